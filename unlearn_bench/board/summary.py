"""What a board adds to its rows: calibrated scores, the overall score, TRACE's deltas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unlearn_bench.board.table import MEAN, Board, Row
from unlearn_bench.compare.calibrate import (
    Calibrated,
    Form,
    calibrate,
    form_of,
    over_seeds,
    why_not,
)
from unlearn_bench.compare.overall import (
    FORMULA,
    GOALS,
    KEEP,
    NOT_TUNED_ON,
    Overall,
    overall,
    overall_of_seeds,
    parts_of,
)
from unlearn_bench.compare.trace import (
    MEASURES,
    Kind,
    TraceError,
    error_over_seeds,
    paired_error,
    trace_deltas,
)
from unlearn_bench.protocols.catalog import MINI, Protocol
from unlearn_bench.schema import ItemScore

ByMetric = Mapping[tuple[str, str], Sequence[ItemScore]]  # one cell's rows


def by_metric(rows: Sequence[ItemScore]) -> dict[tuple[str, str], list[ItemScore]]:
    """One cell's rows by task and metric."""
    found: dict[tuple[str, str], list[ItemScore]] = {}
    for row in rows:
        found.setdefault((row.task, row.metric), []).append(row)
    return found


@dataclass(frozen=True)
class Cells:
    """The rows of every cell with scores, by method and seed, and what each method is for."""

    protocols: Mapping[str, Protocol]
    items: Mapping[tuple[str, str], ByMetric]
    goals: Mapping[str, Sequence[str]]
    target: str
    exact: str


def with_summary(board: Board, cells: Cells) -> Board:
    """The board with calibrated and overall scores and TRACE's deltas in its rows."""
    silent = find_silent(cells)
    rows: dict[tuple[str, str], Row] = {}
    for method in dict.fromkeys(row.method for row in board.rows):
        own = {row.seed: row for row in board.rows if row.method == method}
        rows |= {(method, seed): row for seed, row in _calibrate(own, cells, silent).items()}
    parts = parts_of(cells.protocols, GOALS, silent)
    parts[KEEP] = parts_of(cells.protocols, (), silent)[KEEP]  # of a method with no goal: the most
    left_out: dict[str, dict[str, str]] = {}
    for (name, form), reason in silent.items():
        left_out.setdefault(name, {})[form] = reason
    return with_trace(
        replace(
            board,
            rows=tuple(rows[row.method, row.seed] for row in board.rows),
            overall={part: tuple(itertools.chain(*own.values())) for part, own in parts.items()},
            left_out={
                column.name: left_out[column.name]
                for column in board.columns
                if column.headline and column.name in left_out
            },
        ),
        cells,
    )


def find_silent(cells: Cells) -> dict[tuple[str, Form], str]:
    """Columns that cannot be calibrated in this run, in which form and why, whatever the method."""
    found: dict[tuple[str, Form], str] = {}
    for task, protocol in cells.protocols.items():
        for name, metric in protocol.metrics.items():
            targets, exacts = (
                [
                    rows.get((task, name), ())
                    for (own, _), rows in cells.items.items()
                    if own == role
                ]
                for role in (cells.target, cells.exact)
            )
            for form in dict.fromkeys(form_of(protocol, name, goals) for goals in ((), GOALS)):
                if form and (reason := why_not(metric, form, targets, exacts)):
                    found[f"{task}.{name}", form] = reason
    return found


def _calibrate(
    rows: Mapping[str, Row], cells: Cells, silent: Mapping[tuple[str, Form], str]
) -> dict[str, Row]:
    """One method's rows, by seed, with calibrated and overall scores."""
    method = next(iter(rows.values())).method
    goals = cells.goals.get(method, ())
    parts = parts_of(cells.protocols, goals, silent)
    scores = {
        seed: _calibrate_cell(cells, method, seed, silent) if row.scores else {}
        for seed, row in rows.items()
        if seed != MEAN
    }
    wholes = {
        seed: overall(goals, parts, own) if own else Overall(math.nan, reason=rows[seed].status)
        for seed, own in scores.items()
    }
    if MEAN in rows:
        scored = [own for own in scores.values() if own]
        names = scored[0] if scored else ()
        scores[MEAN] = {name: over_seeds([own[name] for own in scored]) for name in names}
        wholes[MEAN] = overall_of_seeds(list(wholes.values()))
    return {
        seed: replace(row, calibrated=scores[seed], overall=wholes[seed])
        for seed, row in rows.items()
    }


def _calibrate_cell(
    cells: Cells, method: str, seed: str, silent: Mapping[tuple[str, Form], str]
) -> dict[str, Calibrated]:
    own, target, exact = (
        cells.items.get((name, seed), {}) for name in (method, cells.target, cells.exact)
    )
    found = {}
    for task, protocol in cells.protocols.items():
        for name, metric in protocol.metrics.items():
            form = form_of(protocol, name, cells.goals.get(method, ()))
            if form is None:
                continue
            column = f"{task}.{name}"
            if reason := silent.get((column, form)):
                found[column] = Calibrated(form, math.nan, reason=reason)
            else:
                sides = (rows.get((task, name), ()) for rows in (own, target, exact))
                found[column] = calibrate(metric, form, *sides)
    return found


def with_trace(board: Board, cells: Cells | None = None) -> Board:
    """The board with TRACE's deltas, each over the same tasks in every row: those the target has.

    A row that lacks one of them has no delta of that kind, since a mean over other tasks is another
    number. In a row of means they are the mean of the seeds' own. cells: whose items say how sure
    they are; a row without any keeps what it came with, where its delta is the same.
    """
    targets = {row.seed: list(row.scores.values()) for row in board.rows if row.role == "target"}
    tasks: dict[Kind, tuple[str, ...]] = {}
    for scores in targets.values():
        for own in trace_deltas(scores, scores):
            tasks[own.kind] = max(tasks.get(own.kind, ()), own.tasks, key=len)
    deltas: dict[tuple[str, str], dict[Kind, float]] = {}
    for row in board.rows:
        found = trace_deltas(targets.get(row.seed, ()), list(row.scores.values()))
        deltas[row.method, row.seed] = {
            own.kind: own.value for own in found if own.tasks and own.tasks == tasks[own.kind]
        }
    known = {column.task for column in board.columns}
    named = {
        kind: tuple(task if task in known else task + MINI for task in own)
        for kind, own in tasks.items()
    }
    rows = [replace(row, trace=_row_trace(row, deltas)) for row in board.rows]
    errors = {
        (row.method, row.seed): _row_errors(row, old, named, cells)
        for row, old in zip(rows, board.rows, strict=True)
        if row.seed != MEAN
    }
    return replace(
        board,
        rows=tuple(replace(row, trace_errors=_over_rows(row, errors)) for row in rows),
        trace=named,
    )


def _row_errors(
    row: Row, old: Row, tasks: Mapping[Kind, Sequence[str]], cells: Cells | None
) -> dict[Kind, TraceError]:
    """Of one seed's deltas, from its items and the target's."""
    own, target = (
        (cells.items.get((name, row.seed), {}) for name in (row.method, cells.target))
        if cells
        else ({}, {})
    )
    if not own or not target or cells is None:
        return {kind: e for kind, e in old.trace_errors.items() if same_delta(row, old, kind)}
    found = {}
    for kind in row.trace:
        names = [(task, MEASURES[kind][task.removesuffix(MINI)]) for task in tasks[kind]]
        found[kind] = paired_error(
            [
                (cells.protocols[task].metrics[name], own[task, name], target[task, name])
                for task, name in names
            ]
        )
    return found


def same_delta(one: Row, other: Row, kind: Kind) -> bool:
    """Whether two rows have the same delta of that kind, up to rounding."""
    values = (row.trace.get(kind, math.nan) for row in (one, other))
    return math.isclose(*values, rel_tol=1e-9, abs_tol=1e-9)


def _over_rows(
    row: Row, errors: Mapping[tuple[str, str], Mapping[Kind, TraceError]]
) -> dict[Kind, TraceError]:
    """A seed's own; in a row of means those over its seeds."""
    if row.seed != MEAN:
        return dict(errors[row.method, row.seed])
    seeds = [own for (method, _), own in errors.items() if method == row.method]
    return {
        kind: error_over_seeds(value, [own[kind] for own in seeds if kind in own])
        for kind, value in row.trace.items()
    }


def _row_trace(
    row: Row, deltas: Mapping[tuple[str, str], Mapping[Kind, float]]
) -> dict[Kind, float]:
    if row.seed != MEAN:
        return dict(deltas[row.method, row.seed])
    seeds = [own for (method, seed), own in deltas.items() if method == row.method and seed != MEAN]
    kinds = dict.fromkeys(kind for own in seeds for kind in own)
    values = {kind: [own[kind] for own in seeds if kind in own] for kind in kinds}
    return {kind: sum(own) / len(own) for kind, own in values.items()}


def trace_kinds(board: Board) -> list[Kind]:
    """Those of TRACE's deltas that any row beside the target has."""
    rows = [row for row in board.rows if row.role != "target"]
    return [kind for kind in board.trace if any(kind in row.trace for row in rows)]


def overall_notes(board: Board) -> list[str]:
    """How the overall score is made, from which columns, and which say nothing in this run."""
    lines = [FORMULA, NOT_TUNED_ON]
    for part, names in board.overall.items():
        lines.append(f"{part}: {', '.join(names) or 'no column'}")
    for name, reasons in board.left_out.items():
        lines += [f"left out: {name} as {form}: {reason}" for form, reason in reasons.items()]
    return lines


def trace_notes(board: Board) -> list[str]:
    """Which tasks TRACE's deltas are means over."""
    return [
        f"trace.{kind}: mean change from the target, better above 0, of "
        + ", ".join(board.trace[kind])
        for kind in trace_kinds(board)
    ]
