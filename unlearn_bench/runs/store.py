"""One folder per cell: its files first, `record.json` last and atomically.

A cell is finished exactly when its record says so and every file's hash is the one it recorded.
Anything else is set aside under its own name and computed again; it is never read as a score.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unlearn_bench.cache import remove_unfinished, write_atomically
from unlearn_bench.errors import CorruptDataError, DiskFullError, UnlearnBenchError, UsageError
from unlearn_bench.schema import (
    SCORED,
    ItemScore,
    Sample,
    Score,
    Status,
    TokenLikelihoods,
)

RECORD = "record.json"
CHECKPOINT = "checkpoint"  # an edited model that is kept
UNKEPT = "edited"  # one that is deleted as soon as its cell has ended
FORMAT = 1
CellStatus = Status | Literal["incomplete", "not_applicable", "not_run"]
STATUSES = (
    "started",
    "success",
    "incomplete",
    "diverged",
    "failed",
    "cancelled",
    "not_applicable",
    "not_run",
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: ulimit -f
# What a path says that leads to no file. Any other error says nothing about the file.
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Record:
    """How one cell ended. `files` maps each other file of the folder to its sha256.

    `incomplete` is a finished cell with missing values (a scorer failed), and one without a time in
    `finished` is being judged again; a stage of a sequence for which nothing was computed is
    `not_applicable` or `not_run`. Times are UTC, ISO 8601; `seconds` holds the wall time of each
    step.
    """

    method: str
    seed: int
    key: str
    status: CellStatus
    reason: str = ""
    started: str = ""
    finished: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def in_work(self) -> bool:
        """Whether a process is at the cell, or was when it was killed."""
        return self.status == "started" or (self.status == "incomplete" and not self.finished)


def cell_folder(output: Path, key: str, method: str, seed: int) -> Path:
    """Folder of one cell. Raises UsageError if the method's name would lead out of `output`."""
    return inside(output / "cells", f"{key[:16]}-{method}-s{seed}")


def inside(root: Path, *parts: str) -> Path:
    """`root` joined with `parts`; UsageError when that is not below `root`, links followed."""
    path = root.joinpath(*parts)
    base = root.resolve()
    try:
        place = path.resolve()
    except ValueError as error:  # a NUL, half a surrogate pair
        raise UsageError(f"no file can be called {'/'.join(parts)!r}", where=str(root)) from error
    if base not in place.parents:
        raise UsageError(
            f"{'/'.join(parts)!r} leaves the output folder",
            where=str(root),
            next_step="choose a name without path separators or '..'",
        )
    return path


def require_writable(folder: Path) -> None:
    """Raise UsageError unless `folder` takes files, or could be made and would. Writes nothing."""
    try:
        if _is_writable(folder):
            return
    except (OSError, ValueError):  # a name longer than the system takes, a NUL
        pass
    raise UsageError(
        f"the output folder {str(folder)!r} cannot be written",
        next_step="choose another folder with --output",
    )


def _is_writable(folder: Path) -> bool:
    if folder.exists():
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    parent = folder.resolve().parent
    return parent != folder and _is_writable(parent)


@contextlib.contextmanager
def exclusive(output: Path) -> Iterator[None]:
    """Hold `output` for this process: two runs in one folder would overwrite each other's cells."""
    with _disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnlearnBenchError(
                "another process is writing to this output folder",
                where=str(output),
                next_step="wait for it to end, or choose another folder with --output",
            ) from error
        yield


def write_file(path: Path, content: bytes) -> str:
    """Write atomically and return the sha256.

    Raises DiskFullError when no space is left, with the old file untouched.
    """
    with _disk_errors(path):
        write_atomically(path, content)
        path.chmod(0o644)  # results are for sharing; temporary files are born private
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UsageError(
                f"cannot write there: {error.strerror}",
                where=str(path),
                next_step="choose another folder with --output",
            ) from error
        raise


@contextlib.contextmanager
def full_disk_said(path: Path) -> Iterator[None]:
    """Raise DiskFullError, with the folder that was written to, for whatever says the disk is full.

    Our own errors pass: they have said what they have to say.
    """
    try:
        yield
    except UnlearnBenchError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left, in whichever library's words."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # safetensors' and pyarrow's own error types; the first gives the number as Rust spells it.
    number = re.search(r"\(os error (\d+)\)", str(error))
    return "No space left on device" in str(error) or (
        number is not None and int(number[1]) in FULL
    )


def disk_full(path: Path) -> DiskFullError:
    """The error that tells the user so."""
    return DiskFullError(
        "no space is left on the disk; all records written before are intact",
        where=str(path),
        next_step="free some space and run the same command again: it goes on where it was",
    )


def to_json(value: Any) -> Any:
    """Plain JSON of dataclasses, paths and numpy values; NaN and ±inf become the words for them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [to_json(item) for item in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bool | int | str | None):
        return value
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return to_json(value.tolist())
    return str(value)


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that hashes are taken of."""
    text = json.dumps(
        to_json(value), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return text.encode("utf-8", "surrogatepass")


def write_json(path: Path, value: Any) -> str:
    """Write readable JSON atomically; return the sha256 of its bytes."""
    text = json.dumps(to_json(value), indent=1, ensure_ascii=False, allow_nan=False)
    return write_file(path, (text + "\n").encode("utf-8", "backslashreplace"))


def write_record(folder: Path, record: Record) -> None:
    """The last write of a cell. The record carries a hash of itself, so damage to it shows."""
    body = {"format": FORMAT, **to_json(record)}
    write_json(folder / RECORD, {**body, "self_sha256": digest(body)})


def remove_unkept(folder: Path) -> None:
    """Delete a cell's model, where it is not kept, and what a killed process was writing there."""
    shutil.rmtree(folder / UNKEPT, ignore_errors=True)
    remove_unfinished(folder)


def record_failure(folder: Path, record: Record) -> Record:
    """Write how a cell ended without scores, and return the record that it has then.

    Where there are scores their record stands: the process was stopped after it had written it, or
    while it judged the stored answers again.
    """
    found = None
    with contextlib.suppress(CorruptDataError):
        found = read_record(folder, record.key)
    if found is not None and found.status in SCORED:
        if not found.in_work:
            return found
        record = dataclasses.replace(found, finished=record.finished)
    write_record(folder, record)
    return record


def read_record(folder: Path, key: str) -> Record | None:
    """The verified record of a cell, or None when there is none.

    Raises CorruptDataError when the record is no record, belongs to another key, or names a file
    that is missing or has other bytes, and UnlearnBenchError when the disk does not say what is
    there.
    """
    path = folder / RECORD
    try:
        content = _read(path)
    except IsADirectoryError as error:
        raise CorruptDataError(f"the record is damaged: {error}", where=str(path)) from error
    except OSError:
        return None
    try:
        body = json.loads(content)
        claimed = body.pop("self_sha256")
        if claimed != digest(body) or body.pop("format") != FORMAT:
            raise ValueError("its own hash does not match")
        record = _as_record(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptDataError(f"the record is damaged: {error}", where=str(path)) from error
    if record.key != key or record.status not in STATUSES:
        raise CorruptDataError("the record belongs to another cell", where=str(path))
    for name, expected in record.files.items():
        try:
            actual = hashlib.sha256(_read(inside(folder, name))).hexdigest()
        except (OSError, UsageError) as error:
            raise CorruptDataError(f"{name!r} cannot be read", where=str(folder)) from error
        if actual != expected:
            raise CorruptDataError(f"{name} is not what the record says", where=str(folder))
    return record


def _read(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where there is none, UnlearnBenchError where the disk
    does not say: a network that is away for a moment must not make a finished cell a damaged one.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in NO_FILE:
            raise
        raise UnlearnBenchError(
            f"a cell cannot be read: {error.strerror}",
            where=str(path),
            next_step="nothing was changed; run the same command again when the disk answers",
        ) from error


def _as_record(body: Any) -> Record:
    """Raises ValueError or TypeError for a body of another form, such as another version's."""
    record = Record(**body)
    texts = (record.method, record.key, record.status, record.reason, record.started)
    of_text = all(isinstance(text, str) for text in (*texts, record.finished))
    seconds = isinstance(record.seconds, dict) and all(
        isinstance(spent, int | float) for spent in record.seconds.values()
    )
    files = isinstance(record.files, dict) and all(
        isinstance(found, str) for found in record.files.values()
    )
    if not (of_text and seconds and files and isinstance(record.seed, int)):
        raise ValueError("a value in it is of another type")
    return record


def digest(body: Any) -> str:
    """sha256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(body)).hexdigest()


def set_aside(output: Path, folder: Path) -> Path:
    """Move a damaged cell to `<output>/set-aside/`, under a name of its own; return where it is."""
    shelf = output / "set-aside"
    shelf.mkdir(parents=True, exist_ok=True)
    numbered = (shelf / f"{folder.name}.{count}" for count in range(1, 1_000_000))
    place = next(path for path in numbered if not path.exists())
    os.rename(folder, place)
    return place


def write_samples(path: Path, samples: Sequence[Sample]) -> str:
    """Per-sample outputs as parquet: texts as they are, structured columns as JSON text."""
    import pyarrow as pa

    text, texts = pa.large_string(), pa.list_(pa.large_string())
    kinds = {"task": text, "item_id": text, "filter": text, "prompt": text, "outputs": texts}
    columns = {name: [getattr(sample, name) for sample in samples] for name in kinds}
    columns["outputs"] = [list(sample.outputs) for sample in samples]
    columns["values"] = [json.dumps(sample.values) for sample in samples]
    columns["likelihoods"] = [json.dumps(sample.likelihoods) for sample in samples]
    columns["under_target"] = [list(sample.under_target) for sample in samples]
    columns["tokens"] = [[vars(option) for option in sample.tokens] for sample in samples]
    columns["document"] = [json.dumps(to_json(sample.document)) for sample in samples]
    kinds |= dict.fromkeys(("values", "likelihoods", "document"), text)
    kinds["under_target"] = pa.list_(pa.float64())
    floats = pa.list_(pa.float32())
    parts = {"log_probs": floats, "greedy": pa.list_(pa.bool_())}
    parts |= {"means": floats, "deviations": floats}
    kinds["tokens"] = pa.list_(pa.struct(parts))
    return _write_table(path, columns, kinds)


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` wrote; pairs in `values` come back as tuples."""
    return [
        Sample(
            **{name: row[name] for name in ("task", "item_id", "filter", "prompt")},
            outputs=tuple(row["outputs"]),
            values={
                name: (value[0], value[1]) if isinstance(value, list) else value
                for name, value in json.loads(row["values"]).items()
            },
            document=json.loads(row["document"]),
            likelihoods=tuple((total, greedy) for total, greedy in json.loads(row["likelihoods"])),
            tokens=tuple(
                TokenLikelihoods(**{name: tuple(part) for name, part in option.items()})
                for option in row.get("tokens") or ()
            ),
            under_target=tuple(row.get("under_target") or ()),
        )
        for row in _read_rows(path)
    ]


def write_items(path: Path, items: Sequence[ItemScore]) -> str:
    """Per-item scores as parquet, one row per item and metric; NaN is a missing value."""
    import pyarrow as pa

    names = [item.name for item in dataclasses.fields(ItemScore)]
    kinds = {name: pa.float64() if name in ("value", "weight") else pa.string() for name in names}
    columns = {name: [getattr(item, name) for item in items] for name in names}
    return _write_table(path, columns, kinds)


def read_items(path: Path) -> list[ItemScore]:
    """What `write_items` wrote."""
    return [ItemScore(**row) for row in _read_rows(path)]


def read_scores(path: Path) -> list[Score]:
    """The aggregated scores of one cell, non-finite values restored from their words."""
    rows = json.loads(path.read_bytes())
    figures = ("value", "stderr", "low", "high")
    return [
        Score(**{**row, **{name: float(row[name]) for name in figures if name in row}})
        for row in rows
    ]


def _write_table(path: Path, columns: dict[str, list[Any]], kinds: dict[str, Any]) -> str:
    import pyarrow as pa
    from pyarrow import parquet

    arrays = {
        name: pa.array(columns[name], type=kind, from_pandas=False) for name, kind in kinds.items()
    }
    buffer = io.BytesIO()
    parquet.write_table(pa.table(arrays), buffer, compression="zstd")
    return write_file(path, buffer.getvalue())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows
