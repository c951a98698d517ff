"""Whether a board's derived numbers are those of its cells: the board is made again from the runs.

What a cell does not store itself is worked out from all cells together: scores against the exact
model, calibrated and overall scores, TRACE's deltas, means over seeds with their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unlearn_bench.board.assemble import OTHER_COLUMNS
from unlearn_bench.board.board_file import BoardFile, RowPart, read_board_file, to_float
from unlearn_bench.board.check_rows import CLOSE
from unlearn_bench.board.faults import AGAIN, Fault, place_of
from unlearn_bench.board.merge import merge, write_merged
from unlearn_bench.board.table import MEAN

DERIVED = ("scores", "calibrated", "overall", "trace", "trace_errors")
SHOWN = 3  # places of one row


def check_derived(
    file: Path, content: BoardFile, runs: Sequence[Path], stored: Mapping[str, set[str]]
) -> Iterator[Fault]:
    """What the runs' cells give otherwise. stored: by cell key the columns that a cell has itself.

    Rows of cells that are in none of the runs are not looked at, and no row where the target or the
    exact model is in none: they span the scale. Raises what `merge` raises.
    """
    gone = {row.method for row in content.rows if not _is_there(row, stored)}
    if any(row.role in ("target", "exact") and row.method in gone for row in content.rows):
        return
    made = _made_again(file, runs)
    for row in content.rows:
        again = made.get(_identity(row))  # none for a mean of which the runs have more seeds
        if again is None or (
            row.method in gone if row.seed == MEAN else not _is_there(row, stored)
        ):
            continue
        own = stored.get(row.told("cell_key"), set())
        places = list(_differences(_derived(row, own), _derived(again, own), ()))
        for column, what in places[:SHOWN]:
            yield Fault(what, AGAIN, place_of(row), column)
        if len(places) > SHOWN:
            what = f"{len(places) - SHOWN} more numbers are not what its cells give"
            yield Fault(what, AGAIN, place_of(row))


def _is_there(row: RowPart, stored: Mapping[str, set[str]]) -> bool:
    return row.seed == MEAN or row.told("cell_key") in stored


def _made_again(file: Path, runs: Sequence[Path]) -> dict[tuple[str, str], RowPart]:
    with TemporaryDirectory() as folder:
        merged, _ = merge([*runs, file], Path(folder), apart=True)
        written = [path for path in write_merged(merged) if path.suffix == ".json"]
        return {_identity(row): row for path in written for row in read_board_file(path).rows}


def _identity(row: RowPart) -> tuple[str, str]:
    """A cell by its key, a mean by its method and seeds."""
    return (row.method, row.told("seeds")) if row.seed == MEAN else ("", row.told("cell_key"))


def _derived(row: RowPart, own: set[str]) -> dict[str, Any]:
    """Its derived numbers. Deltas follow from the values, and are held against them elsewhere."""
    told = row.model_dump(mode="json", include=set(DERIVED))
    told["scores"] = {
        name: {part: figure for part, figure in score.items() if part != "delta"}
        for name, score in told["scores"].items()
        if name not in own
    }
    return told


def _differences(told: Any, made: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Column, and what is there against what the cells give."""
    if place == ("overall",) and made is not None and made["reason"] == OTHER_COLUMNS:
        return
    if isinstance(told, dict) and isinstance(made, dict):
        for name in dict.fromkeys([*told, *made]):
            yield from _differences(told.get(name), made.get(name), (*place, name))
    elif not _same(told, made):
        what = f"{'.'.join(place)} is {told}, its cells give {made}"
        yield (place[1] if len(place) > 2 else place[0]), what


def _same(told: Any, made: Any) -> bool:
    if told == made:
        return True
    if not all(isinstance(one, int | float) for one in (told, made)):
        return False
    return math.isclose(to_float(told), to_float(made), rel_tol=CLOSE, abs_tol=CLOSE)
