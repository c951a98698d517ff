"""Real weights for the end-to-end tests: the embedded model, from an index or the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_bench.errors import MissingDataError
from unlearn_bench.models.open import open_model
from unlearn_bench.models.opened import OpenedModel


@pytest.fixture(scope="session")
def smollm() -> OpenedModel:
    """SmolLM2-135M-Instruct as every user gets it. Skips where no package index answers."""
    try:
        return open_model("smollm2-135m")
    except MissingDataError as error:
        pytest.skip(f"the embedded model is not to be had: {error}")


@pytest.fixture(scope="session")
def smollm_folder(smollm: OpenedModel) -> Path:
    """Its folder. Read only."""
    return smollm.folder
