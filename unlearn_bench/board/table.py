"""The board as data: rows, columns, deltas and the best values. Every rendering reads this."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unlearn_bench.board.visible import visible
from unlearn_bench.compare.aggregate import delta, over_seeds
from unlearn_bench.compare.calibrate import Calibrated
from unlearn_bench.compare.overall import Overall
from unlearn_bench.compare.trace import Kind, TraceError
from unlearn_bench.schema import Direction, Score

Role = Literal["target", "exact", "method", "control"]
ROLE_ORDER: tuple[Role, ...] = ("target", "exact", "method", "control")
MEAN = "mean"  # in the seed column of a seed aggregate
COSTS = (
    "edit_seconds",
    "evaluate_seconds",
    "peak_memory_bytes",
    "parameters_touched",
    "delta_norm",
    "forward_passes",
    "backward_passes",
)
TUNING = ("tuning_best", "tuning_median", "tuning_trials")


@dataclass(frozen=True)
class Column:
    """One metric of one task. Headline columns are shown to people; files hold all of them."""

    task: str
    metric: str
    direction: Direction
    unit: str
    headline: bool

    @property
    def name(self) -> str:
        """`<task>.<metric>`, as in every file."""
        return f"{self.task}.{self.metric}"


@dataclass(frozen=True)
class Row:
    """One cell, or the mean of one method's cells over seeds (`seed` is then "mean").

    scores and deltas: by column name; empty when the cell has no scores. costs: by COSTS, None
    where unknown. tuning: by TUNING, of a method that ran as it was tuned: validation objectives of
    its trials, and how many there were. provenance: text by name. calibrated: by column name;
    overall: made of them, None where nothing was calibrated; trace: TRACE's deltas by kind;
    trace_errors: how sure they are.
    """

    method: str
    seed: str
    role: Role
    status: str
    reason: str
    scores: Mapping[str, Score] = field(default_factory=dict)
    deltas: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float | int | None] = field(default_factory=dict)
    tuning: Mapping[str, float | int | None] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    calibrated: Mapping[str, Calibrated] = field(default_factory=dict)
    overall: Overall | None = None
    trace: Mapping[Kind, float] = field(default_factory=dict)
    trace_errors: Mapping[Kind, TraceError] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """Everything one leaderboard shows. `protocol` is what all rows have in common.

    overall: what rows' overall scores are made of, by part (goals and what is kept) the names of
    the columns; left_out: headline columns that say nothing in this run, by form the reason. trace:
    the tasks that each of TRACE's deltas is the mean over, in every row.
    """

    model: str
    suite: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    protocol: Mapping[str, Any]
    overall: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trace: Mapping[Kind, Sequence[str]] = field(default_factory=dict)

    def shown_rows(self) -> list[Row]:
        """The rows for people: the mean where a method ran with several seeds, else its one row.

        By role, then by the overall score; those without one follow, then what did not end well.
        """
        averaged = {row.method for row in self.rows if row.seed == MEAN}
        shown = [row for row in self.rows if row.seed == MEAN or row.method not in averaged]
        return sorted(shown, key=_standing)  # stable: without overall scores nothing moves

    @property
    def ranked(self) -> bool:
        """Whether any row has an overall score to show."""
        return any(overall_value(row) is not None for row in self.rows)

    def shown_columns(self) -> list[Column]:
        """The headline columns, or all when no protocol names any."""
        return [column for column in self.columns if column.headline] or list(self.columns)


def overall_value(row: Row) -> float | None:
    """The row's overall score; None where it has none."""
    return None if row.overall is None or math.isnan(row.overall.value) else row.overall.value


def _standing(row: Row) -> tuple[int, bool, bool, float]:
    value = overall_value(row)
    return ROLE_ORDER.index(row.role), not row.scores, value is None, -(value or 0.0)


def other_targets(board: Board) -> list[str]:
    """A note where rows were edited from targets that are not the same to the bit."""
    targets = {row.provenance.get("target_fingerprint", "") for row in board.rows} - {""}
    if len(targets) < 2:
        return []
    return [
        f"{board.model}, suite {board.suite}: the rows come from {len(targets)} targets, of one "
        "recipe on different machines; deltas are to the one on the board"
    ]


def build_board(
    model: str,
    suite: str,
    columns: Sequence[Column],
    cells: Sequence[Row],
    protocol: Mapping[str, Any],
) -> Board:
    """Order the cells' rows, add the deltas to the target row of the same seed, and seed means."""
    rows: list[Row] = []
    targets = {row.seed: row for row in cells if row.role == "target"}
    for method in dict.fromkeys(row.method for row in cells):
        own = sorted((row for row in cells if row.method == method), key=lambda row: int(row.seed))
        own = [_with_deltas(row, targets.get(row.seed)) for row in own]
        rows += own
        if len(own) > 1:
            rows.append(_mean_row(own))
    rows.sort(key=lambda row: (ROLE_ORDER.index(row.role), row.method))  # stable: seeds stay put
    return Board(model, suite, tuple(columns), tuple(rows), protocol)


def _mean_row(rows: Sequence[Row]) -> Row:
    """Mean over the seeds that have scores; incomplete, with the reason, when some have none."""
    scored = [row for row in rows if row.scores]
    lost = [f"seed {row.seed} {row.status}" for row in rows if row.status != "success"]
    remarks = [
        f"seed {row.seed}: {row.reason}" for row in rows if row.status == "success" and row.reason
    ]
    names = dict.fromkeys(name for row in scored for name in row.scores)
    status = "success" if not lost else "incomplete" if scored else rows[0].status
    return Row(
        method=rows[0].method,
        seed=MEAN,
        role=rows[0].role,
        status=status,
        reason="; ".join((*lost, *remarks)),
        scores={
            name: over_seeds([row.scores[name] for row in scored if name in row.scores])
            for name in names
        },
        deltas=_mean_deltas(scored, names),
        costs={name: _mean_cost([row.costs.get(name) for row in scored]) for name in COSTS},
        tuning=rows[0].tuning,
        provenance=_shared(rows) | {"seeds": " ".join(row.seed for row in scored)},
    )


def _mean_deltas(scored: Sequence[Row], names: Iterable[str]) -> dict[str, float]:
    """Means of the seeds' own deltas, NaN where a seed has none: means over other seeds differ by
    what the seeds are, not by what the method does.
    """
    if not any(row.deltas for row in scored):
        return {}
    return {
        name: sum(row.deltas.get(name, math.nan) for row in scored) / len(scored) for name in names
    }


def _mean_cost(values: Sequence[float | int | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shared(rows: Sequence[Row]) -> dict[str, str]:
    first, *others = (row.provenance for row in rows)
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _with_deltas(row: Row, target: Row | None) -> Row:
    if target is None or row is target:
        return row
    deltas = {name: delta(score, target.scores.get(name)) for name, score in row.scores.items()}
    return Row(**{**vars(row), "deltas": deltas})


def best_methods(board: Board, column: Column) -> set[str]:
    """Contenders with the best finite value of a column; ties all count, controls never do, nor
    does a value that lacks items which another's has: it may be the best of the easy ones.

    None where all of several are equal: such a column tells nothing apart.
    """
    rows = board.shown_rows()
    exact = next((r.scores[column.name].value for r in rows if _has(r, column, "exact")), math.nan)
    counted = _items_counted(board, column)
    most = max(counted.values(), default=0)
    losses = {
        row.method: _loss(row.scores[column.name].value, column.direction, exact)
        for row in rows
        if _has(row, column, "method") and counted.get(row.method, 0) == most
    }
    finite = {method: loss for method, loss in losses.items() if math.isfinite(loss)}
    lowest = min(finite.values(), default=math.nan)
    best = {method for method, loss in finite.items() if loss == lowest}
    return best if len(best) < len(losses) or len(losses) == 1 else set()


def _items_counted(board: Board, column: Column) -> dict[str, int]:
    """By contender how many items its value is of: in a mean those of the seed with the fewest."""
    counted: dict[str, int] = {}
    for row in board.rows:
        if row.seed != MEAN and _has(row, column, "method"):
            count = row.scores[column.name].n
            counted[row.method] = min(count, counted.get(row.method, count))
    return counted


def _has(row: Row, column: Column, role: Role) -> bool:
    return row.role == role and column.name in row.scores


def _loss(value: float, direction: Direction, exact: float) -> float:
    """How far from best, lower being better; NaN when the direction names no best."""
    losses = {"higher": -value, "lower": value, "nearer_exact": abs(value - exact)}
    return losses.get(direction, math.nan)


ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "nearer_exact": "→exact", "none": ""}


def figure(score: Score | None) -> str:
    """`0.412 ± 0.031` for people; a dash for missing, the word for diverged."""
    if score is None or math.isnan(score.value):
        return "–"
    if math.isinf(score.value):
        return "diverged"
    text = _short(score.value)
    return f"{text} ± {_short(score.stderr)}" if math.isfinite(score.stderr) else text


def overall_figure(row: Row) -> str:
    """`0.61 [0.52, 0.69]` for people: the overall score with its 95 % interval; a dash without."""
    found = row.overall
    if found is None or math.isnan(found.value):
        return "–"
    if math.isnan(found.low):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def signed(value: float | None, stderr: float = math.nan) -> str:
    """`+0.021 ± 0.013`: a change for people, its sign always there; a dash for missing."""
    text = "–" if value is None else f"{value:+.3f}"
    return f"{text} ± {stderr:.3f}" if math.isfinite(stderr) else text


def best_overall(board: Board) -> set[str]:
    """Contenders with the highest overall score; ties all count, controls never do."""
    values = {
        row.method: value
        for row in board.shown_rows()
        if row.role == "method" and (value := overall_value(row)) is not None
    }
    return {method for method, value in values.items() if value == max(values.values())}


def tuning_figures(row: Row) -> list[str]:
    """Best, median and number of trials for people; dashes for a method that was not tuned."""
    best, median, trials = (row.tuning.get(name) for name in TUNING)
    figures = ["–" if value is None else _short(value) for value in (best, median)]
    return [*figures, "–" if trials is None else str(trials)]


def _short(value: float) -> str:
    size = abs(value)
    if size >= 10_000:
        return f"{value:.1e}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"


def public_text(text: str) -> str:
    """One line without folders of this machine or host names, and with what would steer a screen
    shown: boards are committed and shared.
    """
    text = re.sub(r"(https?://)[^\s/]+", r"\1…", text)
    text = re.sub(r"(?<![\w.:/…])~?/(?:[^\s/'\"<>]+/)+", "…/", text)
    return visible(" ".join(text.split()))
