"""A model folder into memory and back: safetensors only, nothing random, nothing half written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.cache import new_folder
from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.models.chat import TEMPLATE_FILE
from unlearn_bench.models.fingerprint import TOKENIZER_FILES
from unlearn_bench.models.safety import refuse_unsafe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
# Copied byte for byte from the source folder: re-saving them may reorder or drop entries, and the
# tokenizer's hash would then differ between a model and its edits.
COPIED_FILES = (*TOKENIZER_FILES, TEMPLATE_FILE, "generation_config.json")


def load_model(
    folder: Path, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The folder's causal language model in `dtype` on `device`, in eval mode, and its tokenizer.

    Every tensor comes from the files: a missing or misshapen one raises CorruptDataError instead
    of being drawn at random. Tied embeddings are tied after loading. No network, no remote code.
    Raises also UnsafeArtefactError and MissingDataError (see `refuse_unsafe`), and UsageError for
    an unknown dtype.
    """
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}", next_step=f"choose one of {', '.join(DTYPES)}")
    refuse_unsafe(folder)
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below by name
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CorruptDataError(
            f"transformers cannot open the model: {error}",
            where=str(folder),
            next_step="check config.json, or fetch the model again",
        ) from error
    _require_complete(model, report, folder)
    model.eval()
    return model.to(device), load_tokenizer(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer alone. Raises CorruptDataError when it cannot be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(
            f"the tokenizer cannot be opened: {error}",
            where=str(folder),
            next_step="put tokenizer.json and tokenizer_config.json beside the weights",
        ) from error
    return tokenizer


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    source: Path | None = None,
) -> None:
    """Write `model` as safetensors into `folder`, which appears whole or not at all.

    The tokenizer's files and generation_config.json are byte copies of those in `source` (default:
    the folder that the tokenizer was loaded from); without such a folder the tokenizer is saved
    anew. Tied tensors are stored once, so they are tied again on loading. An existing `folder` is
    replaced in the end. Raises OSError (disk full): `folder` is then as it was.
    """
    origin = source or Path(tokenizer.name_or_path)
    with new_folder(folder) as work:
        model.save_pretrained(work)
        if (origin / "tokenizer_config.json").is_file():
            _copy_files(origin, work)
        else:
            tokenizer.save_pretrained(work)


def _copy_files(origin: Path, target: Path) -> None:
    for name in COPIED_FILES:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, target / name)


def _require_complete(model: PreTrainedModel, report: dict[str, Any], folder: Path) -> None:
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    missing = sorted(set(report.get("missing_keys", ())) - tied)
    misshapen = sorted(str(entry) for entry in report.get("mismatched_keys", ()))
    if missing or misshapen:
        raise CorruptDataError(
            f"{len(missing)} tensors are missing and {len(misshapen)} have another shape: "
            f"{', '.join((missing + misshapen)[:3])}",
            where=str(folder),
            next_step="the weights do not belong to this config.json: fetch the model again",
        )
