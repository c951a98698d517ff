"""What an opened model is.

Apart from `open`, which finds and fetches it: an edit depends on the model (its fingerprint is in
every cell's key), not on the way it came here, so a new source must not change any key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to load: where it lies and what it is.

    name: a slug fit for folder names. label: for people. fingerprint: of the weights. revision:
    the hub's commit, the package's version, or "" for local files.
    """

    folder: Path
    name: str
    label: str
    fingerprint: str
    revision: str
