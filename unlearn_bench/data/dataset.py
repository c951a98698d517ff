"""What one data set declares: where its files are in each source, and how each is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_bench.data.files import Row, Unit, corrupt, read_text
from unlearn_bench.data.packages import PackagedFile

Splits = dict[str, list[Row]]
Reader = Callable[[Path], Splits]

ASIDE = "cdef"  # last hexadecimal digits of the ids of validation rows: a quarter of them


@dataclass(frozen=True)
class HubFiles:
    """Files of one data set repository at one commit. `patterns` may hold `*`."""

    repo: str
    revision: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """One real data set, and its mini twin where we wrote one.

    folder_files: paths below `--data`; all must exist, as named or gzipped. hub: None where no
    repository has the files in the authors' form; read_hub is then never called. read_folder and
    read_hub get the root that those paths and patterns are relative to; read_package and read_mini
    get the one file. counts: per source and split, the numbers of rows that a whole copy can have.
    split_files: per source and split, the file (or the folder of files) that holds it, where that
    is not the source's first. released: by folder file the sha256 of what was released, gunzipped,
    where that is one file for ever. validation: set some rows of every split aside, see
    `set_aside`; whole: per source, the splits that are asked to the last row all the same.
    held_out: where the rows on which options are chosen lie in files of their own; its readers give
    one split, "validation".
    """

    name: str
    folder_files: tuple[str, ...]
    read_folder: Reader
    hub: HubFiles | None
    read_hub: Reader
    counts: Mapping[str, Mapping[str, tuple[int, ...]]]
    package: PackagedFile | None = None
    read_package: Reader | None = None
    mini_file: str = ""
    read_mini: Reader | None = None
    validation: bool = False
    whole: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    held_out: Dataset | None = None
    split_files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    released: Mapping[str, str] = field(default_factory=dict)


def with_ids(dataset: str, rows: Iterable[Row], content: tuple[str, ...]) -> list[Row]:
    """Put a stable "id" first in every row: the data set's name and a hash of the `content` keys.

    Equal content has the same id whatever the source and position. A repeated row gets the suffix
    "-2", "-3", ... in order of appearance: readers let one come this far only where the released
    files have some, and refuse it elsewhere (`refuse_repeats`).
    """
    seen: Counter[str] = Counter()
    numbered = []
    for row in rows:
        text = json.dumps([row[key] for key in content], ensure_ascii=False)
        identity = f"{dataset}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        seen[identity] += 1
        suffix = f"-{seen[identity]}" if seen[identity] > 1 else ""
        numbered.append({"id": f"{identity}{suffix}", **_without_id(row)})
    return numbered


def _without_id(row: Row) -> Row:
    """A released row's own id is no id of ours."""
    return {key: value for key, value in row.items() if key != "id"}


def in_id_order(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted by id: since ids are hashes, every prefix is an even sample of the whole.

    For sets whose own order is biased (by file, by score), so that `--limit n` stays fair.
    """
    return sorted(rows, key=lambda row: str(row["id"]))


def set_aside(splits: Splits, whole: Collection[str] = ()) -> Splits:
    """Move the rows whose id ends in one of `ASIDE` into a split of their own, "validation".

    Options of methods are chosen on those, and no suite asks them: a setting that was picked by the
    very items that judge it has seen the answers. Ids are hashes of the content, so every source
    draws the line at one place. The splits of `whole` lose nothing, and what they have is in
    "validation" neither.
    """
    kept = {
        name: rows if name in whole else [row for row in rows if not _is_aside(row)]
        for name, rows in splits.items()
    }
    asked = {row["id"] for name in whole for row in splits[name]}
    aside = {row["id"]: row for rows in splits.values() for row in rows if _is_aside(row)}
    free = [row for identity, row in aside.items() if identity not in asked]
    return {**kept, "validation": in_id_order(free)}


def _is_aside(row: Row) -> bool:
    digest = str(row["id"]).split("-")[1]  # a repeated row has a number behind it
    return digest[-1] in ASIDE


def interleave(rows: Iterable[Row], strata: tuple[str, ...]) -> list[Row]:
    """One row of each stratum in turn, each stratum in its given order: balanced prefixes."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in strata), []).append(row)
    turns = [
        (turn, stratum, row)
        for stratum, members in sorted(groups.items())
        for turn, row in enumerate(members)
    ]
    return [row for _, _, row in sorted(turns, key=lambda entry: entry[:2])]


def read_parquet(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The file's rows with just `columns`. Raises CorruptDataError."""
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=list(columns))
        rows: list[dict[str, Any]] = table.to_pylist()  # texts are decoded here
    except (OSError, ValueError, OverflowError, pyarrow.ArrowException) as error:
        raise corrupt(path, 0, f"{path.name} is not a readable parquet file: {error}") from error
    absent = sorted(set(columns) - set(table.column_names))
    if absent:
        raise corrupt(path, 0, f"{path.name} lacks the columns {', '.join(absent)}")
    if not rows:
        raise corrupt(path, 0, f"{path.name} has no rows")
    return rows


def last_place(path: Path) -> tuple[int, Unit]:
    """The number of a file's last line, record or row, and which of them it is; 0 for a folder.

    Read again from the file, since a split may hold only some of its rows.
    """
    import pyarrow.parquet

    if path.is_dir():
        return 0, "line"
    if path.suffix == ".parquet":
        return int(pyarrow.parquet.read_metadata(path).num_rows), "row"
    text = read_text(path)
    if text.lstrip().startswith("["):
        return len(json.loads(text)), "record"
    return text.removesuffix("\n").count("\n") + 1, "line"
