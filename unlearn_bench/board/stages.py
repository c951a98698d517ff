"""A sequence's board as data: one row per method and stage, with the scores of every request.

A request's columns count the items about its own subjects, at every stage: before it (still
known?), after it (forgotten, updated?) and after later ones (still so?).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unlearn_bench.board.publish import board_columns, board_protocol, cell_row
from unlearn_bench.board.table import MEAN, ROLE_ORDER, Column, Row, build_board
from unlearn_bench.compare.requests import (
    TASK,
    UNDONE,
    Kind,
    metrics_of,
    score_request,
    score_undone,
    undone_metric,
)
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.requests import Request
from unlearn_bench.runs.sequence import SUITE, SequencePlan, SequenceResult, StageCell
from unlearn_bench.runs.store import read_items
from unlearn_bench.schema import SCORED, ItemScore, Score

NOT_APPLICABLE = "not_applicable"
SHOWN: dict[Kind, tuple[str, ...]] = {  # of a request, to people; the files hold every metric
    "forget": ("forget_extraction_strength", "forget_choice_acc"),
    "update": ("update_efficacy", "update_new_extraction_strength", "update_new_choice_acc"),
}
SHOWN_RETAIN = ("retain_neighbour_extraction_strength", "retain_stranger_extraction_strength")


@dataclass(frozen=True)
class StageRow:
    """One stage of one method's chain, with one seed or as the mean over the seeds.

    stage: 0 is the target before any request. request: the one the stage was to serve, or "".
    """

    stage: int
    request: str
    row: Row


@dataclass(frozen=True)
class SequenceBoard:
    """Everything a sequence's files show. `protocol` is what all rows have in common."""

    model: str
    suite: str
    requests: tuple[Request, ...]
    columns: tuple[Column, ...]
    rows: tuple[StageRow, ...]
    protocol: Mapping[str, Any]

    @property
    def name(self) -> str:
        """File name: a suite other than the default is part of it."""
        return "sequence" if self.suite == SUITE else f"sequence-{self.suite}"

    def shown_columns(self) -> list[Column]:
        """The columns for people."""
        return [column for column in self.columns if column.headline]

    def shown_rows(self) -> list[StageRow]:
        """The rows for people: the mean where a method ran with several seeds, else its one row."""
        averaged = {stage.row.method for stage in self.rows if stage.row.seed == MEAN}
        return [s for s in self.rows if s.row.seed == MEAN or s.row.method not in averaged]


def build_sequence_board(sequence: SequencePlan, result: SequenceResult) -> SequenceBoard:
    """Score every request at every stage, add seed means and the deltas to the target."""
    plan, columns = sequence.plan, sequence_columns(sequence)
    targets = [_target_row(sequence, columns, target) for target in result.targets]
    stages: list[list[Row]] = [[] for _ in sequence.requests]
    for chain in result.chains:
        target = next(t for t in result.targets if t.cell.seed == chain[0].cell.seed)
        for rows, row in zip(stages, _chain_rows(sequence, columns, target, chain), strict=True):
            rows.append(row)
    board = [StageRow(0, "", row) for row in _complete(targets, [], columns)]
    for stage, (request, rows) in enumerate(zip(sequence.requests, stages, strict=True), 1):
        board += [StageRow(stage, request.name, row) for row in _complete(targets, rows, columns)]
    board.sort(key=_place)
    return SequenceBoard(
        model=plan.model.name,
        suite=plan.suite.name,
        requests=sequence.requests,
        columns=tuple(columns),
        rows=tuple(board),
        protocol=board_protocol(plan),
    )


def sequence_columns(sequence: SequencePlan) -> list[Column]:
    """Each request's own metrics, then those that are about no request."""
    fur, columns = sequence.plan.protocols[TASK], []
    for request in sequence.requests:
        shown = SHOWN[request.kind]
        for name, metric in metrics_of(request.kind, fur).items():
            head = name in shown
            columns.append(Column(request.name, name, metric.direction, metric.unit, head))
        name, metric = undone_metric(request.kind)
        columns.append(Column(request.name, name, metric.direction, metric.unit, True))
    requested = {name for kind in SHOWN for name in metrics_of(kind, fur)}
    for column in board_columns(sequence.plan):
        if column.task != TASK:
            columns.append(column)
        elif column.metric not in requested:
            columns.append(replace(column, headline=column.metric in SHOWN_RETAIN))
    return columns


def _target_row(sequence: SequencePlan, columns: Sequence[Column], target: CellResult) -> Row:
    row = cell_row(sequence.plan, target)
    return replace(row, scores=_common(row, columns) | _request_scores(sequence, _items(target)))


def _chain_rows(
    sequence: SequencePlan,
    columns: Sequence[Column],
    target: CellResult,
    chain: Sequence[CellResult],
) -> Iterator[Row]:
    """One row per stage. A stage that was not applicable has the scores of the one before it."""
    common, items = _common(cell_row(sequence.plan, target), columns), _items(target)
    served: dict[str, list[ItemScore]] = {}  # the items right after each request's own stage
    for result in chain:
        row, cell = cell_row(sequence.plan, result), result.cell
        assert isinstance(cell, StageCell)
        if result.record.status in SCORED:
            common, items = _common(row, columns), _items(result)
        elif result.record.status != NOT_APPLICABLE:
            yield row
            continue
        undone = _undone_scores(sequence, served, items)
        yield replace(row, scores=common | _request_scores(sequence, items) | undone)
        if result.record.status in SCORED:
            served[cell.request.name] = items


def _items(result: CellResult) -> list[ItemScore]:
    scored = result.record.status in SCORED
    return read_items(result.folder / "items.parquet") if scored else []


def _common(row: Row, columns: Sequence[Column]) -> dict[str, Score]:
    """The row's own scores, as far as the board has columns for them."""
    names = {column.name for column in columns}
    return {name: score for name, score in row.scores.items() if name in names}


def _request_scores(sequence: SequencePlan, items: Sequence[ItemScore]) -> dict[str, Score]:
    fur = sequence.plan.protocols[TASK]
    return {
        f"{request.name}.{score.metric}": score
        for request in sequence.requests
        if items
        for score in score_request(request.name, request.kind, request.facts, items, fur)
    }


def _undone_scores(
    sequence: SequencePlan,
    served: Mapping[str, Sequence[ItemScore]],
    items: Sequence[ItemScore],
) -> dict[str, Score]:
    """What is undone of the requests of earlier stages, as far as the method served them."""
    return {
        f"{request.name}.{UNDONE[request.kind][0]}": score_undone(
            request.name, request.kind, request.facts, served[request.name], items
        )
        for request in sequence.requests
        if request.name in served
    }


def _complete(targets: Sequence[Row], rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows of one stage (the targets' own where there are none), with means and deltas."""
    board = build_board("", "", columns, [*targets, *rows], {})
    idle = {row.method: row.reason for row in rows if row.status == NOT_APPLICABLE}
    return [
        replace(row, status=NOT_APPLICABLE, reason=idle[row.method]) if row.method in idle else row
        for row in board.rows
        if (row.role == "target") != bool(rows)
    ]


def _place(stage: StageRow) -> tuple[int, str, bool, int, int]:
    """By role, method and seed (the mean last), then along the chain."""
    row = stage.row
    mean = row.seed == MEAN
    return ROLE_ORDER.index(row.role), row.method, mean, 0 if mean else int(row.seed), stage.stage
