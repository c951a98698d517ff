"""Makes the profile `deep` known before hypothesis looks for it, and one fixture to all files."""

from __future__ import annotations

from tests.property import bounds
from tests.property.well_formed import small_sets

__all__ = ["bounds", "small_sets"]
