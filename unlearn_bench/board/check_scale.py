"""Whether calibrated scores lie where their row's values do, between the board's own two ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from unlearn_bench.board.board_file import BoardFile, RowPart, to_float
from unlearn_bench.board.check_rows import CLOSE
from unlearn_bench.board.faults import Fault, place_of
from unlearn_bench.board.table import MEAN, Role
from unlearn_bench.compare.calibrate import OPEN_ENDED, Form, calibrate
from unlearn_bench.protocols.catalog import Metric, list_protocols
from unlearn_bench.schema import ItemScore

ASK = "hold it against its cells: unlearn-bench board validate FILE --run RUN"
Ends = Mapping[tuple[Role, str], RowPart]  # by role and seed


def check_scale(content: BoardFile) -> Iterator[Fault]:
    """Values and calibrated scores that contradict each other: one of the two was changed.

    Only single seeds, of tasks that are known here. A merged board may have kept a row without its
    cells, with a scale of models that were asked elsewhere. That shows in most of its scores, since
    rounding moves every likelihood, so of such a row nothing is said.
    """
    ends = {(row.role, row.seed): row for row in content.rows}
    known = list_protocols()
    metrics = {
        column.name: known[column.task].metrics[column.metric]
        for column in content.columns
        if column.task in known and column.metric in known[column.task].metrics
    }
    for row in content.rows:
        expected = _expect(row, ends, metrics) if row.seed != MEAN else {}
        told = {name: to_float(row.calibrated[name].value) for name in expected}
        wrong = [name for name in expected if not _is_close(told[name], expected[name])]
        for name in wrong if 2 * len(wrong) < len(expected) else ():
            what = (
                f"its calibrated score is {told[name]:.4g}, and its value "
                f"{row.scores[name].value} gives {expected[name]:.4g} between the board's ends"
            )
            yield Fault(what, ASK, place_of(row), name)


def _expect(row: RowPart, ends: Ends, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """By column the calibrated score of a row's value, where values are all that it is made of: no
    model lacks an item.
    """
    expected = {}
    for name in row.calibrated.keys() & metrics.keys():
        told = row.calibrated[name]
        roles: tuple[Role, ...] = ("target", "exact") if told.form == "reached" else ("target",)
        models = [row, *(ends[role, row.seed] for role in roles if (role, row.seed) in ends)]
        scores = [one.scores[name] for one in models if name in one.scores]
        whole = [s for s in scores if s.n and not s.missing and s.value is not None]
        if told.value is not None and len(whole) == 1 + len(roles):
            values = [to_float(score.value) for score in whole]
            expected[name] = _calibrate_values(metrics[name], told.form, values)
    return dict(sorted(expected.items()))


def _calibrate_values(metric: Metric, form: Form, values: list[float]) -> float:
    """values: the cell's, the target's and, where the form takes it, the exact model's.

    Of one item each reduction is a function of the item, so a model with a value is one that has a
    single item with it.
    """
    if metric.reduce == "weighted_exp":
        values = [-math.log(value) if value > 0 else math.inf for value in values]
    elif metric.reduce == "bits":
        values = [-value * math.log(2) for value in values]
    if metric.reduce not in OPEN_ENDED:
        metric = metric.model_copy(update={"reduce": "mean"})
    models = [[ItemScore("", "", "", "", value, 1.0)] for value in values]
    own, target, exact = [*models, []][:3]
    return calibrate(metric, form, own, target, exact).value


def _is_close(told: float, expected: float) -> bool:
    return math.isclose(told, expected, rel_tol=CLOSE, abs_tol=CLOSE)
