"""Small readers that name the file and the line when something is wrong."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import unlearn_bench
from unlearn_bench.data.packages import sha256_of
from unlearn_bench.errors import CorruptDataError, MissingDataError

Row = dict[str, Any]
# What the rows of a file are: lines of text, records of a JSON list (or of a table whose cells have
# line breaks), or rows of a parquet file. Only lines can be jumped to, so errors say which.
Unit = Literal["line", "record", "row"]
LONGEST_NAME = 255  # bytes that a file's name may have


def tasks_folder() -> Path:
    """The `tasks` folder: inside the installed package, or at the top of a checkout."""
    package = Path(unlearn_bench.__file__).resolve().parent
    for folder in (package / "tasks", package.parent / "tasks"):
        if folder.is_dir():
            return folder
    raise MissingDataError(
        "the tasks folder is missing from this installation",
        where=str(package),
        next_step="reinstall unlearn-bench",
    )


def corrupt(path: Path, number: int, why: str, unit: Unit = "line") -> CorruptDataError:
    """The error for the line, record or row with this number (1-based; 0 = the whole file)."""
    where = f"{path}, {unit} {number}" if number else str(path)
    return CorruptDataError(why, where=where, next_step="fetch the file again or restore it")


def read_text(path: Path) -> str:
    """The file's text, gunzipped when its name ends in `.gz`. Raises CorruptDataError."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except FileNotFoundError as error:
        raise MissingDataError(f"{path.name} is missing", where=str(path)) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise corrupt(path, 0, f"{path.name} cannot be read: {error}") from error


def require_released(path: Path, sha256: str) -> None:
    """Raises CorruptDataError unless the file, gunzipped, is the released one to the byte.

    A file that was changed or filtered, or that is of another revision, can have as many rows.
    """
    found = hashlib.sha256(read_text(path).encode()).hexdigest()
    if found != sha256:
        raise CorruptDataError(
            f"{path.name} is not the released file: its sha256 is {found[:16]}…, "
            f"the released one's {sha256[:16]}…",
            where=str(path),
            next_step="fetch the released file again; rows of your own can be asked by a task file "
            "of lm-eval's (--tasks FILE.yaml)",
        )


def find_file(root: Path, name: str) -> Path:
    """`name` below `root`, or its gzipped twin where only that is there."""
    path, twin = root / name, root / f"{name}.gz"
    return twin if twin.is_file() and not path.is_file() else path


def read_jsonl(path: Path, required: Iterable[str] = (), texts: Iterable[str] = ()) -> list[Row]:
    """One JSON object per line, each with the `required` keys and with texts under `texts`.

    Raises MissingDataError, or CorruptDataError for an empty file, a blank line, broken JSON,
    absent keys and what should be a text and is none.
    """
    texts = tuple(texts)
    rows: list[Row] = []
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a text.
    lines = read_text(path).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = _load_json(line)
        except (ValueError, RecursionError) as error:
            raise corrupt(path, number, f"not a line of JSON: {error}") from error
        rows.append(_object(row, (*required, *texts), path, number))
    require_texts(rows, path, *texts)
    return rows


def read_json_records(path: Path, required: Iterable[str] = ()) -> list[Row]:
    """One JSON list of objects, each with the `required` keys.

    Raises as `read_jsonl` but with the record's number, also for a list without a record.
    """
    try:
        rows = _load_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise corrupt(path, 0, f"not valid JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise corrupt(path, 0, "not a JSON list with records")
    return [
        _object(row, required, path, number, "record") for number, row in enumerate(rows, start=1)
    ]


def _load_json(text: str) -> Any:
    """JSON without half surrogate pairs, which no file can be written with. Raises ValueError."""
    content = json.loads(text)
    if "\\ud" in text.casefold():
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _object(row: Any, required: Iterable[str], path: Path, number: int, unit: Unit = "line") -> Row:
    if not isinstance(row, dict):
        raise corrupt(path, number, "not a JSON object", unit)
    absent = [key for key in required if key not in row]
    if absent:
        raise corrupt(path, number, f"lacks {', '.join(absent)}", unit)
    return row


def read_csv(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[tuple[int, Row]]:
    """The rows of a table with a header line: just `columns`, each row with the line it ends on.

    optional: columns that come too where the table has them. Raises MissingDataError, or
    CorruptDataError for absent columns, a row that is cut short, an open quotation mark and a table
    without rows.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        absent = [name for name in columns if name not in (reader.fieldnames or ())]
        if absent:
            raise corrupt(path, 1, f"lacks the columns {', '.join(absent)}")
        wanted = [*columns, *(name for name in optional if name in (reader.fieldnames or ()))]
        for row in reader:
            chosen = {name: row[name] for name in wanted}
            if None in row or None in chosen.values():
                raise corrupt(path, reader.line_num, "has not as many cells as the header")
            rows.append((reader.line_num, chosen))
    except csv.Error as error:
        raise corrupt(path, reader.reader.line_num, f"not a line of a table: {error}") from error
    if not rows:
        raise corrupt(path, 0, "has no rows")
    return rows


def require_texts(rows: Iterable[Row], path: Path, *keys: str, unit: Unit = "line") -> None:
    """Raise CorruptDataError at the first row where one of `keys` is not a text with words in it.

    A key that ends in `[]` is a list of such texts, and of at least one.
    """
    for number, row in enumerate(rows, start=1):
        for key in keys:
            value = row[key.removesuffix("[]")]
            texts = value if key.endswith("[]") else [value]
            if not isinstance(texts, list) or not texts or not all(map(is_text, texts)):
                kind = "a list of texts" if key.endswith("[]") else "a text"
                raise corrupt(path, number, f"{key.removesuffix('[]')} is not {kind}", unit)


def is_text(value: object) -> bool:
    """Whether it is a text with words in it."""
    return isinstance(value, str) and bool(value.strip())


def refuse_repeats(
    rows: Iterable[Row],
    path: Path,
    *keys: str,
    own_id: tuple[str, ...] = (),
    unit: Unit = "line",
    numbers: Iterable[int] | None = None,
) -> None:
    """Raise CorruptDataError at the first row that has the same `keys` as an earlier one.

    own_id: keys by which the file itself tells its rows apart; rows that have them are compared by
    these instead, so that two of them may say the same. numbers: of the rows, where these are not
    1, 2, 3, ... (lines of a table).
    """
    first: dict[str, int] = {}
    for number, row in zip(numbers or itertools.count(1), rows, strict=False):
        known_by = own_id if own_id and all(key in row for key in own_id) else keys
        content = json.dumps([known_by, [row[key] for key in known_by]], default=repr)
        if content in first:
            what = f"repeats {' and '.join(known_by)} of {unit} {first[content]}"
            raise corrupt(path, number, what, unit)
        first[content] = number


def require_unique_ids(rows: Iterable[Row], path: Path) -> None:
    """Raise CorruptDataError at the first empty or repeated "id" of a JSONL file's rows."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        identity = row.get("id")
        if not isinstance(identity, str) or not identity:
            raise corrupt(path, number, "has no id")
        if identity in first:
            raise corrupt(path, number, f"repeats the id {identity!r} of line {first[identity]}")
        first[identity] = number


def verify_sha256sums(folder: Path) -> dict[str, str]:
    """Check every file listed in `folder`/SHA256SUMS; returns name to hash.

    Raises MissingDataError or CorruptDataError naming the file that is not as committed.
    """
    listing = folder / "SHA256SUMS"
    sums: dict[str, str] = {}
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        expected, _, name = line.partition("  ")
        named = 0 < len(name.encode()) <= LONGEST_NAME and Path(name).name == name
        if len(expected) != 64 or not named:
            raise corrupt(listing, number, "not of the form '<sha256>  <file>'")
        path = folder / name
        if not path.is_file():
            raise MissingDataError(f"{name} is missing", where=str(path))
        found = sha256_of(path)
        if found != expected:
            raise corrupt(path, 0, f"sha256 is {found[:16]}…, SHA256SUMS says {expected[:16]}…")
        sums[name] = expected
    return sums
