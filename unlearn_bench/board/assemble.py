"""One board of cells that are worked out again and of rows that are kept as they came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unlearn_bench.board.entries import Entry
from unlearn_bench.board.publish import board_protocol, make_board
from unlearn_bench.board.sources import ReadBoard
from unlearn_bench.board.summary import same_delta, with_trace
from unlearn_bench.board.table import MEAN, Board, Column, Row, build_board
from unlearn_bench.compare.calibrate import over_seeds
from unlearn_bench.compare.overall import Overall, overall_of_seeds
from unlearn_bench.errors import IncomparableError
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.stored_plan import plan_of
from unlearn_bench.runs.tuned import Winner

MADE_ANEW = ("versions", "asked", "tuning", "notes")
OTHER_COLUMNS = (
    "made of other columns than the other rows': merge the run's folder in place of its board"
)


@dataclass(frozen=True)
class Kept:
    """A row as it came, under the name it has here, and the board it came with."""

    row: Row
    board: ReadBoard


def assemble(entries: Mapping[tuple[str, str], Entry], suite: str) -> Board:
    """The board of these entries, all under one protocol. entries: by the row's name and seed;
    suite: what the board is called.
    """
    kept = {
        place: Kept(replace(one.row, method=place[0]), one.board)
        for place, one in entries.items()
        if not one.rebuilt and one.row is not None and one.board is not None
    }
    rebuilt = {place: one for place, one in entries.items() if place not in kept}
    rows = [one.row for one in kept.values()]
    if rebuilt:
        board = _worked_out(rebuilt, rows)
    else:
        first = min(entries.values(), key=lambda one: repr(one.protocol))
        board = with_trace(build_board(first.named.slug, suite, (), rows, first.protocol))
    board = replace(
        board,
        suite=suite,
        columns=_columns(board.columns, [one.board for one in kept.values()]),
        protocol=_common_protocol(board.protocol, list(entries.values())),
    )
    return _with_kept(board, kept)


def _worked_out(entries: Mapping[tuple[str, str], Entry], kept: Sequence[Row]) -> Board:
    """The board of cells, from their items; beside them the kept rows, yet without summaries."""
    cells = {place: one.cell for place, one in entries.items() if one.cell is not None}
    first = min(entries.values(), key=lambda one: one.named.label)
    known = list_cards("method")
    plan = plan_of(
        list(cells.values()),
        first.protocols or {},
        {place[0]: known[one.method] for place, one in entries.items()},
        {cell.record.key: place[0] for place, cell in cells.items()},
        first.named,
    )
    tuned = {
        place[0]: _winner(one.row) for place, one in entries.items() if one.row and one.row.tuning
    }
    results = [
        CellResult(cell, stored.record, stored.folder)
        for cell, stored in zip(plan.cells, cells.values(), strict=True)
    ]
    board = make_board(replace(plan, tuned=tuned), results, kept)
    return replace(board, protocol=board_protocol(plan))


def _winner(row: Row) -> Winner:
    best, median = row.tuning.get("tuning_best"), row.tuning.get("tuning_median")
    trials = int(row.tuning.get("tuning_trials") or 0)
    return Winner(options=None, best=best, median=median, trials=trials)


def _columns(own: Sequence[Column], boards: Sequence[ReadBoard]) -> tuple[Column, ...]:
    """The cells' columns, then those that only kept rows have. Raises IncomparableError for one
    that is another number by the same name.
    """
    found = {column.name: column for column in own}
    for one in sorted(boards, key=lambda one: repr(one.board)):
        for column in one.board.columns:
            known = found.setdefault(column.name, column)
            if (known.direction, known.unit) != (column.direction, column.unit):
                raise IncomparableError(
                    f"{column.name} is {column.direction} in {column.unit!r} here and "
                    f"{known.direction} in {known.unit!r} elsewhere",
                    where=str(one.path),
                    next_step=f"unlearn-bench board validate {one.path}",
                )
    return tuple(found.values())


def _common_protocol(own: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """What all rows have in common. Versions and tuning only where they are the same for all;
    notes of all boards that the rows are on.
    """
    protocols = [one.protocol for one in entries]
    boards = [one.board.board.protocol for one in entries if one.board]
    told = sorted({repr(protocol["notes"]): protocol["notes"] for protocol in boards}.items())
    tuning = boards[0].get("tuning") if boards else None
    tuned_alike = tuning and all(protocol.get("tuning") == tuning for protocol in boards)
    versions = {
        name: version
        for name, version in own["versions"].items()
        if all(protocol["versions"].get(name) == version for protocol in protocols)
    }
    asked = own.get("asked")
    return {  # in the order in which evaluate writes it
        **{name: value for name, value in own.items() if name not in MADE_ANEW},
        "versions": versions,
        **({"asked": {**asked, "decoding": _decoding(protocols)}} if asked else {}),
        **({"tuning": tuning} if tuned_alike else {}),
        "notes": list(dict.fromkeys(note for _, notes in told for note in notes)),
    }


def _decoding(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for protocol in protocols:
        found |= (protocol.get("asked") or {}).get("decoding", {})
    return found


def _with_kept(board: Board, kept: Mapping[tuple[str, str], Kept]) -> Board:
    """The board with the summaries that kept rows came with, where they are of the same columns."""
    block = _summary_block(board, [one.board.board for one in kept.values()])
    columns = _plain(block)
    rows = {
        place: replace(
            row,
            calibrated=kept[place].row.calibrated,
            overall=_overall(kept[place], columns),
        )
        if place in kept
        else row
        for row in board.rows
        if (place := (row.method, row.seed))[1] != MEAN
    }
    means = {
        row.method: _mean(row, [one for one in rows.values() if one.method == row.method], kept)
        for row in board.rows
        if row.seed == MEAN
    }
    return replace(
        board,
        overall=block.overall,
        left_out=block.left_out,
        rows=tuple(
            means[row.method] if row.seed == MEAN else rows[row.method, row.seed]
            for row in board.rows
        ),
    )


def _summary_block(board: Board, came: Sequence[Board]) -> Board:
    """Whose overall columns are the board's: its cells' where they make an overall score, else
    those of the board with most of them.
    """
    worked_out = bool(board.overall) and _summarised(board)[0] > 0
    return board if worked_out or not came else max(came, key=_summarised)


def _summarised(board: Board) -> tuple[int, str]:
    """How many rows have an overall score, and what tells boards with as many apart."""
    valued = sum(
        row.overall is not None and not math.isnan(row.overall.value) for row in board.rows
    )
    return valued, repr(_plain(board))


def _plain(board: Board) -> dict[str, list[str]]:
    return {part: list(names) for part, names in board.overall.items()}


def _overall(one: Kept, columns: Mapping[str, Sequence[str]]) -> Overall | None:
    own = one.row.overall
    if own is None or math.isnan(own.value) or _plain(one.board.board) == columns:
        return own
    return Overall(math.nan, reason=OTHER_COLUMNS)


def _mean(row: Row, seeds: Sequence[Row], kept: Mapping[tuple[str, str], Kept]) -> Row:
    """A row of means: as it came where all its seeds came with it, made of the seeds' values where
    some did, and without intervals then, since those take the items.
    """
    came = [kept[one.method, one.seed] for one in seeds if (one.method, one.seed) in kept]
    if not came:
        return row
    boards = {id(one.board): one.board for one in came}
    if len(boards) == 1 and len(came) == len(seeds):
        (only,) = boards.values()
        for whole in only.board.rows:
            same = whole.provenance.get("seeds") == row.provenance.get("seeds")
            if whole.seed == MEAN and whole.method == row.method and same:
                return replace(row, **_summaries(whole, row, seeds), scores=whole.scores)
    scored = [one for one in seeds if one.scores]
    names = set.intersection(*(set(one.calibrated) for one in scored)) if scored else set()
    return replace(
        row,
        calibrated={
            name: over_seeds([one.calibrated[name] for one in scored])
            for name in (scored[0].calibrated if scored else ())
            if name in names
        },
        overall=_overall_of(seeds),
    )


def _summaries(whole: Row, row: Row, seeds: Sequence[Row]) -> dict[str, Any]:
    """The overall score of the row as it came, unless its seeds' do not stand."""
    mixed = any(one.overall is not None and one.overall.reason == OTHER_COLUMNS for one in seeds)
    return {
        "calibrated": whole.calibrated,
        "overall": Overall(math.nan, reason=OTHER_COLUMNS) if mixed else whole.overall,
        "trace_errors": {
            kind: error
            for kind, error in whole.trace_errors.items()
            if same_delta(whole, row, kind)
        },
    }


def _overall_of(seeds: Sequence[Row]) -> Overall | None:
    known = [one.overall for one in seeds if one.overall is not None]
    return overall_of_seeds(known) if known else None
