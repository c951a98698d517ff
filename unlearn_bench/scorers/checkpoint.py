"""Files that judge: found in a folder or on the hub, opened without running anything, hashed."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.errors import ScorerError


@dataclass(frozen=True)
class HubFiles:
    """One repository of the model hub at one revision; `str()` names both."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]}"


def find_file(name: str, hub: HubFiles, folder: Path | None, *, offline: bool) -> Path | None:
    """One file: of `folder` when there is one, else of the hub's cache or the hub itself.

    None where it is not to be had. Honours HF_HUB_OFFLINE, HF_HOME and the hub's token.
    """
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        found = hf_hub_download(hub.repo, name, revision=hub.revision, local_files_only=offline)
    except (EntryNotFoundError, HfHubHTTPError, OSError):
        return None
    return Path(found)


def read_tensors(path: Path, next_step: str = "") -> dict[str, Any]:
    """All tensors of a `.safetensors` file, or what `open_pickle` finds in any other."""
    tensors: dict[str, Any]
    if path.suffix != ".safetensors":
        tensors = open_pickle(path, next_step)
        return tensors
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error, next_step) from error
    return tensors


def open_pickle(path: Path, next_step: str) -> Any:
    """A checkpoint of torch's own format, if it holds tensors and plain containers only.

    Raises ScorerError for anything else, with nothing executed; `next_step` is how to get a good
    one.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ScorerError(
            "the checkpoint holds more than tensors and plain values: refused, nothing executed",
            where=str(path),
            next_step="save it again as tensors and plain values, where you trust it",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise _unreadable(path, error, next_step) from error


def _unreadable(path: Path, error: Exception, next_step: str) -> ScorerError:
    return ScorerError(
        f"the checkpoint cannot be read: {error}", where=str(path), next_step=next_step
    )


def fill_model(model: Any, tensors: dict[str, Any], path: Path) -> None:
    """Give `model` every tensor of the checkpoint `path`.

    Raises ScorerError when one is missing, left over or of another shape: none stays as it was
    drawn at random.
    """
    try:
        # Older transformers saved position indices as weights; they are computed now.
        kept = {name: value for name, value in tensors.items() if not name.endswith("position_ids")}
        model.load_state_dict(kept)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ScorerError(
            f"the checkpoint's tensors do not fit {type(model).__name__}: {error}",
            where=str(path),
        ) from error


def hash_files(paths: Iterable[Path]) -> str:
    """Hex sha256 over the files' bytes, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
