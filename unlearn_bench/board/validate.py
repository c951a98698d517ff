"""Whether a board that somebody hands in can be what a run wrote: what a schema cannot say.

A fault names the row, the column and the next step. Nothing here opens a model: that a row's
numbers are those of its cells is checked where these are at hand, that they follow from the answers
is `verify`'s to say.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.board.board_file import (
    BoardFile,
    ColumnPart,
    RowPart,
    read_board_file,
    to_board,
)
from unlearn_bench.board.check_derived import check_derived
from unlearn_bench.board.check_provenance import check_provenance
from unlearn_bench.board.check_rows import check_rows
from unlearn_bench.board.check_scale import check_scale
from unlearn_bench.board.check_texts import check_texts
from unlearn_bench.board.faults import AGAIN, Fault, place_of
from unlearn_bench.board.files import FORMULA_STARTS, render_csv
from unlearn_bench.board.table import MEAN
from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.runs.finished import StoredCell, read_cells


@dataclass(frozen=True)
class Verdict:
    """One file's faults, none in a valid one. rows and columns: how many it has, 0 where unread."""

    file: Path
    faults: tuple[Fault, ...]
    rows: int = 0
    columns: int = 0


def validate(files: Sequence[Path], runs: Sequence[Path] = ()) -> list[Verdict]:
    """One verdict per file. runs: folders whose cells the rows are held against.

    Raises UsageError for a file that is not there, and what `read_cells` raises of the runs.
    """
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no file {str(file)!r}", next_step="check the path")
    cells = read_cells(runs).cells if runs else ()
    return [_validate_file(file, cells, runs) for file in files]


def _validate_file(file: Path, cells: Sequence[StoredCell], runs: Sequence[Path]) -> Verdict:
    try:
        content = read_board_file(file)
    except CorruptDataError as error:
        return Verdict(file, (Fault(error.what, error.next_step),))
    faults = [*check_texts(content), *check_columns(content), *check_provenance(content)]
    readable = not any(fault.stops for fault in faults)
    if readable:
        faults += check_rows(content)
        faults += check_scale(content)
        faults += _check_csv(content, file.with_suffix(".csv"))
    if runs:
        faults += _check_cells(content, {cell.record.key: cell for cell in cells})
    if runs and readable:
        faults += check_derived(file, content, runs, _stored_columns(cells))
    return Verdict(file, tuple(faults), len(content.rows), len(content.columns))


def check_columns(content: BoardFile) -> Iterator[Fault]:
    """Every column named once, of a task that was asked, and as the task defines it; every score
    and every column of a summary among them.
    """
    known, names = list_protocols(), [column.name for column in content.columns]
    for name in {name for name in names if names.count(name) > 1}:
        yield Fault("the column is there twice", AGAIN, column=name, stops=True)
    for column in content.columns:
        if column.name != f"{column.task}.{column.metric}":
            yield Fault("its name is not <task>.<metric>", AGAIN, column=column.name)
        if column.task not in content.protocol.tasks:
            yield Fault(f"no protocol here asks {column.task}", AGAIN, column=column.name)
        if column.task in known:
            task = known[column.task]
            metric = task.metrics.get(column.metric) or task.against_exact.get(column.metric)
            if metric and (metric.direction, metric.unit) != (column.direction, column.unit):
                says = f"{metric.direction} in {metric.unit!r}"
                yield Fault(f"{column.task} says {says}", AGAIN, column=column.name)
    for row in content.rows:
        for name in {*row.scores, *row.calibrated} - set(names):
            what = "it has a score of no column"
            yield Fault(what, AGAIN, place_of(row), name, stops=True)
    for part, columns in (content.overall.columns if content.overall else {}).items():
        for name in set(columns) - set(names):
            yield Fault(f"{part} of overall is made of no column", AGAIN, column=name, stops=True)


def _check_csv(content: BoardFile, file: Path) -> Iterator[Fault]:
    """Cell by cell the same as the JSON says. Without a CSV there is nothing to check."""
    if not file.is_file():
        return
    expected = _read_csv(render_csv(to_board(content)))
    try:
        found = _read_csv(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error) as error:
        yield Fault(f"{file.name} cannot be read: {error}", AGAIN)
        return
    yield from _formulas(found, file.name)
    if expected[0] != found[0]:
        other = sorted(set(expected[0]) ^ set(found[0]))[:3]
        what = f"{file.name} has other columns than the JSON, or in another order"
        yield Fault(f"{what}: {', '.join(other)}" if other else what, AGAIN)
        return
    if len(expected) != len(found):
        counts = f"{len(found) - 1} rows, the JSON {len(expected) - 1}"
        yield Fault(f"{file.name} has {counts}", AGAIN)
    for row, ours, theirs in zip(content.rows, expected[1:], found[1:], strict=False):
        for name, told, read in zip(expected[0], ours, theirs, strict=False):
            if told != read:
                what = f"{file.name} says {read!r}, the JSON {told!r}"
                yield Fault(what, AGAIN, place_of(row), name)


def _read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text), strict=True)) or [[]]


def _formulas(rows: Sequence[Sequence[str]], name: str) -> Iterator[Fault]:
    """Cells that a spreadsheet would run. Negative numbers are none."""
    for number, row in enumerate(rows, 1):
        for cell in row:
            if cell.startswith(FORMULA_STARTS) and not _is_number(cell):
                what = f"{name} line {number}: a spreadsheet would run {cell[:20]!r}"
                yield Fault(what, "put an apostrophe before it, as render_csv does, or " + AGAIN)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_cells(content: BoardFile, cells: dict[str, StoredCell]) -> Iterator[Fault]:
    """Every row's status, weights and scores are those of its cell, read in its direction."""
    columns = {column.name: column for column in content.columns}
    for row in content.rows:
        if row.seed == MEAN:
            continue
        cell = cells.get(row.provenance.get("cell_key", ""))
        if cell is None:
            yield Fault("its cell is in none of the runs", "name its run with --run", place_of(row))
            continue
        if cell.record.status != row.status:
            what = f"its status is {row.status}, its cell's is {cell.record.status}"
            yield Fault(what, AGAIN, place_of(row))
        elif cell.scored:
            yield from _differing_scores(row, cell)
            yield from _differing_columns(row, cell, columns)


def _stored_columns(cells: Sequence[StoredCell]) -> dict[str, set[str]]:
    """By cell key the columns whose scores the cell has itself."""
    return {
        cell.record.key: {f"{score.task}.{score.metric}" for score in cell.scores} for cell in cells
    }


def _differing_scores(row: RowPart, cell: StoredCell) -> Iterator[Fault]:
    weights = str(cell.read("provenance.json").get("weights_fingerprint", ""))
    if row.provenance.get("weights_fingerprint") != weights:
        yield Fault(f"its cell has the weights {weights}", AGAIN, place_of(row))
    board = {f"{score.task}.{score.metric}": score for score in cell.scores}
    for name, score in board.items():
        told = row.scores.get(name)
        if told is None:
            yield Fault("its cell has a score there, it has none", AGAIN, place_of(row), name)
            continue
        for part in ("value", "stderr", "low", "high", "n", "missing"):
            ours, theirs = getattr(told, part), _written(getattr(score, part))
            if ours != theirs:
                what = f"{part} is {ours}, its cell has {theirs}"
                yield Fault(what, AGAIN, place_of(row), name)


def _differing_columns(
    row: RowPart, cell: StoredCell, columns: Mapping[str, ColumnPart]
) -> Iterator[Fault]:
    """Of a task that nobody here knows only the cell can say which end is the better one."""
    for score in cell.scores:
        column = columns.get(f"{score.task}.{score.metric}")
        if column and (column.direction, column.unit) != (score.direction, score.unit):
            what = f"it is {column.direction} in {column.unit!r}, its cell has {score.direction}"
            yield Fault(f"{what} in {score.unit!r}", AGAIN, place_of(row), column.name)


def _written(value: float | int) -> float | int | str | None:
    """As a board's JSON has it."""
    if value != value:
        return None
    return str(value) if value in (float("inf"), float("-inf")) else value


def render_verdicts(verdicts: Iterable[Verdict]) -> str:
    """One line per file, and one per fault."""
    lines = []
    for one in verdicts:
        if not one.faults:
            lines.append(f"{one.file}: valid ({one.rows} rows, {one.columns} columns)")
            continue
        lines.append(f"{one.file}: {len(one.faults)} fault{'s' if len(one.faults) > 1 else ''}")
        lines += [f"  {fault}" for fault in one.faults]
        lines += [f"  next: {step}" for step in dict.fromkeys(f.next_step for f in one.faults)]
    return "\n".join(lines) + "\n"


def render_verdicts_json(verdicts: Iterable[Verdict]) -> str:
    """The same for programs."""
    content = [
        {
            "file": str(one.file),
            "valid": not one.faults,
            "rows": one.rows,
            "columns": one.columns,
            "faults": [
                {"row": f.row, "column": f.column, "what": f.what, "next": f.next_step}
                for f in one.faults
            ],
        }
        for one in verdicts
    ]
    return json.dumps({"files": content}, indent=1, ensure_ascii=False) + "\n"
