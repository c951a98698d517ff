"""Identity of a model folder by content: weights, configuration, tokenizer, chat template.

Nothing is remembered between calls: a cache keyed on a path (or on its size and time) could name
an edited model by its unedited fingerprint. Hashing half a gigabyte takes about a second.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.errors import CorruptDataError, MissingDataError
from unlearn_bench.models.chat import read_template
from unlearn_bench.models.safety import read_json

TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
# Written by whichever library version saved the folder; they change no computation.
VOLATILE_CONFIG_KEYS = ("transformers_version", "_name_or_path", "_model_name_or_path")
MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in a safetensors file: `start` and `end` are absolute byte offsets."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def fingerprint(folder: Path) -> str:
    """`"sha256:<64 hex>"` over the name, dtype, shape and bytes of every tensor, sorted by name.

    Independent of sharding, file names, tensor order in the files and safetensors metadata.
    Raises MissingDataError (no weights) or CorruptDataError (truncated, overlapping names).
    """
    whole = hashlib.sha256()
    for tensor, digest in tensor_digests(folder).items():
        whole.update(f"{tensor} {digest}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def tensor_digests(folder: Path) -> dict[str, str]:
    """Tensor name to sha256 (hex) of its dtype, shape and bytes, in name order."""
    tensors = stored_tensors(folder)
    # hashlib releases the GIL on large buffers, so threads use the cores.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip((t.name for t in tensors), pool.map(_digest, tensors), strict=True))


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """All tensors of the folder's safetensors files, sorted by name, from the headers alone."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingDataError("no .safetensors weights", where=str(folder))
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for tensor in _read_header(file):
            if tensor.name in tensors:
                raise CorruptDataError(
                    f"tensor {tensor.name!r} is stored twice",
                    where=f"{tensors[tensor.name].file} and {file}",
                    next_step="remove the file that does not belong to this model",
                )
            tensors[tensor.name] = tensor
    return [tensors[name] for name in sorted(tensors)]


def _read_header(file: Path) -> list[StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise _corrupt(file, "its header is cut short")
        try:
            header = json.loads(stream.read(length))
            entries = [
                StoredTensor(
                    name,
                    str(entry["dtype"]),
                    tuple(int(n) for n in entry["shape"]),
                    file,
                    8 + length + int(entry["data_offsets"][0]),
                    8 + length + int(entry["data_offsets"][1]),
                )
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _corrupt(file, f"its header cannot be read ({error})") from error
    if any(not 8 + length <= tensor.start <= tensor.end <= size for tensor in entries):
        raise _corrupt(file, "it ends before its last tensor")
    return entries


def _corrupt(file: Path, why: str) -> CorruptDataError:
    return CorruptDataError(
        f"{file.name} is not a whole safetensors file: {why}",
        where=str(file),
        next_step="fetch or write the model again",
    )


def _digest(tensor: StoredTensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    if tensor.end > tensor.start:  # an empty tensor has no bytes to map
        with (
            tensor.file.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[tensor.start : tensor.end] as part,
        ):
            digest.update(part)
    return digest.hexdigest()


def config_hash(folder: Path) -> str:
    """sha256 of config.json's settings, without the keys that only name the saving library."""
    config = read_json(folder / "config.json")
    kept = {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}
    return f"sha256:{hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()}"


def tokenizer_hash(folder: Path) -> str:
    """sha256 over the names and bytes of the tokenizer's files (the chat template apart)."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"sha256:{digest.hexdigest()}"


def template_hash(folder: Path) -> str:
    """sha256 of the chat template's text, or `"none"` for a model without one."""
    text = read_template(folder)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else "none"
