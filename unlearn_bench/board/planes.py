"""Which planes a report draws: what methods are for against what should stay, and against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unlearn_bench.board.collect import Collection, Entrant
from unlearn_bench.board.plots import Axis, Bar, Point, draw_differences, draw_plane
from unlearn_bench.board.standing import Standing
from unlearn_bench.board.table import Board, Column, Row

# By goal, the metrics that show it, the first that a method has a value of; and what it may cost.
GOALS = {
    "forget": ("forget_extraction_strength", "forget_blank_rouge_l", "forget_rouge_l"),
    "update": ("update_efficacy",),
    "detoxify": ("expected_max_toxicity", "toxicity_probability", "toxic_rate"),
}
FLUENCY = ("fluency_ppl", "word_perplexity")  # of what it writes, else of what it reads
KEPT = {
    "forget": (
        *("retain_neighbour_rouge_l", "neighbour_rouge_l", "retain_rouge_l"),
        *("locality_choice_acc", "word_perplexity"),
    ),
    "detoxify": FLUENCY,
}
SPREAD = 3.0  # between the smallest and largest perplexity, above which its axis is logarithmic
LEFT_OUT = "Not drawn, because a value is missing or not finite: "
FREE = "The target is not drawn: it was not edited."


@dataclass(frozen=True)
class Figure:
    """One drawing. note: what the reader must know of it."""

    title: str
    svg: str
    note: str


def draw_planes(found: Collection) -> tuple[list[Figure], list[str]]:
    """For each goal that the board measures: against what is kept, then against seconds. And what
    is not drawn because no method would be in it.
    """
    figures, undrawn = [], []
    rows = {row.method: row for row in found.board.shown_rows()}
    for goal in GOALS:
        entrants = [one for one in found.entrants if one.scored and _is_for(one, goal)]
        shown = [rows[one.name] for one in entrants]
        outcomes = _columns(found.board, GOALS[goal])
        if not outcomes or not any(row.role == "method" for row in shown):
            continue
        outcome = _valued(outcomes, shown)
        planes = [_against_cost(f"{goal}-cost", outcome, shown)]
        if keeps := _columns(found.board, KEPT.get(goal, KEPT["forget"])):
            planes.insert(0, _against_kept(f"{goal}-kept", outcome, _valued(keeps, shown), shown))
        figures += [one for one in planes if one.svg]
        undrawn += [one.title for one in planes if not one.svg]
    return figures, undrawn


def draw_bars(found: Collection, standing: Standing) -> list[Figure]:
    """Per task the differences to the target in its headline columns."""
    names = [one.name for one in _in_order(found) if one.scored and one.role != "target"]
    by_task: dict[str, list[Column]] = {}
    for column in found.board.shown_columns():
        if column.name in standing.differences:
            by_task.setdefault(column.task, []).append(column)
    figures = []
    for number, (task, columns) in enumerate(by_task.items()):
        bars = [[_bar(standing, column, name) for name in names] for column in columns]
        title = f"{task}: difference to the target"
        svg = draw_differences(f"d{number}", title, columns, names, bars)
        figures.append(Figure(title, svg, ""))
    return figures


def _in_order(found: Collection) -> list[Entrant]:
    places = {row.method: place for place, row in enumerate(found.board.rows)}
    return sorted(found.entrants, key=lambda one: places[one.name])


def _bar(standing: Standing, column: Column, name: str) -> Bar | None:
    own = standing.differences[column.name].get(name)
    if own is None:
        return None
    apart = own.comparison
    return Bar(apart.difference, apart.low, apart.high, own.sure, own.better)


def _columns(board: Board, metrics: Sequence[str]) -> list[Column]:
    """Of each of `metrics` that the board has the first column."""
    own = {column.metric: column for column in reversed(board.columns)}
    return [own[metric] for metric in metrics if metric in own]


def _valued(columns: Sequence[Column], rows: Sequence[Row]) -> Column:
    """The first in which a method has a finite value; the first of all where none is such."""
    methods = [row for row in rows if row.role == "method"]
    valued = (c for c in columns if any(math.isfinite(_ends(row, c)[0]) for row in methods))
    return next(valued, columns[0])


def _is_for(entrant: Entrant, goal: str) -> bool:
    """Whether a method says that it serves a goal; measures and methods from outside always do."""
    goals = entrant.card.facts.get("goals", ()) if entrant.card else ()
    return entrant.role != "method" or not goals or goal in goals


def _against_kept(name: str, outcome: Column, kept: Column, rows: Sequence[Row]) -> Figure:
    points = [Point(r.method, r.role, _ends(r, kept), _ends(r, outcome)) for r in rows]
    title = f"{_label(outcome)} against {_label(kept)}"
    return _plane(name, title, _axis(kept, [p.x[0] for p in points]), outcome, points)


def _against_cost(name: str, outcome: Column, rows: Sequence[Row]) -> Figure:
    points = []
    for row in rows:
        seconds = row.costs.get("edit_seconds")
        cost = math.nan if seconds is None else float(seconds)
        if row.role != "target":
            points.append(
                Point(row.method, row.role, (cost, math.nan, math.nan), _ends(row, outcome))
            )
    title = f"{_label(outcome)} against seconds of editing"
    axis = Axis("seconds of editing", "lower", logarithmic=True)
    figure = _plane(name, title, axis, outcome, points)
    return Figure(figure.title, figure.svg, f"{FREE} {figure.note}".strip())


def _plane(name: str, title: str, x: Axis, outcome: Column, points: Sequence[Point]) -> Figure:
    """The drawing; none where no method would be in it."""
    drawn = [p for p in points if math.isfinite(p.x[0]) and math.isfinite(p.y[0])]
    drawn = [p for p in drawn if p.x[0] > 0 or not x.logarithmic]
    if not any(point.role == "method" for point in drawn):
        return Figure(title, "", "")
    lost = ", ".join(point.name for point in points if point not in drawn)
    y = _axis(outcome, [point.y[0] for point in drawn])
    svg = draw_plane(name, title, x, y, drawn)
    return Figure(title, svg, LEFT_OUT + lost if lost else "")


def _axis(column: Column, values: Sequence[float]) -> Axis:
    finite = [value for value in values if math.isfinite(value)]
    wide = bool(finite) and min(finite) > 0 and max(finite) > SPREAD * min(finite)
    perplexing = column.metric in FLUENCY
    return Axis(_label(column), column.direction, logarithmic=wide and perplexing)


def _label(column: Column) -> str:
    return f"{column.task}: {column.metric.replace('_', ' ')}"


def _ends(row: Row, column: Column) -> tuple[float, float, float]:
    score = row.scores.get(column.name)
    return (score.value, score.low, score.high) if score else (math.nan, math.nan, math.nan)
