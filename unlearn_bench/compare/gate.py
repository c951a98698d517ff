"""Judge a candidate against its baseline: metric by metric, then as a whole.

docs/gate.md says which test answers and why. What is missing, not finite or not asked of the same
items is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlearn_bench.compare.columns import Column, align
from unlearn_bench.compare.differences import Rows
from unlearn_bench.compare.intervals import RESAMPLES, can_resample
from unlearn_bench.compare.loss import Loss, measure_loss
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.paired import holm
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.rules import Chosen
from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import ItemScore

EXIT_REGRESSION, EXIT_INCOMPLETE = 1, 3
SIDES = ("the candidate", "the baseline")
Outcome = Literal["pass", "cannot tell", "regression", "incomplete", "skipped"]


@dataclass(frozen=True)
class Judgement:
    """One metric. loss is None where nothing could be measured; reason says why, or what it means.

    p_adjusted: Holm's, over all metrics that the gate could measure.
    """

    measure: Measure
    outcome: Outcome
    loss: Loss | None = None
    p_adjusted: float = math.nan
    reason: str = ""


def testable_metrics(measures: Sequence[Measure], baseline: Sequence[Rows]) -> list[str]:
    """Metrics of which a paired test is possible, and those whose values are missing or not finite:
    what is wrong with these is the baseline, not the rule.
    """
    found = []
    for measure in measures:
        rows = [cell.get(measure.name, ()) for cell in baseline]
        if not measure.reduce or not all(rows):
            continue
        column = align(measure.reduce, rows, [f"seed {n}" for n in range(len(rows))])
        if not column.weights.size or not column.finite or can_resample(column):
            found.append(measure.name)
    return found


def judge(
    chosen: Sequence[Chosen],
    baseline: Sequence[Rows],
    candidate: Sequence[Rows],
    level: float,
    resamples: int = RESAMPLES,
    names: tuple[str, str] = SIDES,
) -> list[Judgement]:
    """One judgement per chosen metric.

    baseline, candidate: rows by metric of every seed. level: how often a candidate as good as its
    baseline may fail, over all metrics together (Holm). names: what the candidate and the baseline
    are called where they were not asked the same: by their files, if they have any.
    """
    measured = [_measure(one, baseline, candidate, resamples, names) for one in chosen]
    adjusted = holm([one.p if isinstance(one, Loss) else math.nan for one in measured])
    share = level / max(1, sum(isinstance(one, Loss) for one in measured))
    return [
        _judge_loss(one.measure, found, p, level, share) if isinstance(found, Loss) else found
        for one, found, p in zip(chosen, measured, adjusted, strict=True)
    ]


def _measure(
    chosen: Chosen,
    baseline: Sequence[Rows],
    candidate: Sequence[Rows],
    resamples: int,
    names: tuple[str, str],
) -> Loss | Judgement:
    measure = chosen.measure
    if chosen.unjudged:
        return Judgement(measure, "skipped", reason=f"not judged: {chosen.unjudged}")
    here, there = ([rows.get(measure.name, ()) for rows in side] for side in (candidate, baseline))
    if here and not any(here) and not chosen.rule.required:
        return Judgement(measure, "skipped", reason="the candidate was not asked it")
    if not here or not all(here):
        return Judgement(measure, "incomplete", reason="the candidate has no values of it")
    own, other = names
    try:
        column = align(measure.reduce, [*here, *there], [own] * len(here) + [other] * len(there))
    except IncomparableError as error:
        return Judgement(measure, "incomplete", reason=error.what)
    if wrong := _lacking(here, there, column):
        return Judgement(measure, "incomplete", reason=wrong)
    return measure_loss(column, len(here), measure.direction, chosen.rule.allowed, resamples)


def _lacking(
    here: Sequence[Sequence[ItemScore]], there: Sequence[Sequence[ItemScore]], column: Column
) -> str:
    """Why the candidate's values do not suffice, "" where they do."""
    lost = _missing(here) - _missing(there)
    if lost:
        return f"{len(lost)} of the baseline's items have no value, the first is {min(lost)!r}"
    if not column.weights.size:
        return "no item has a value"
    if not (column.finite and np.isfinite(reduce_models(column)).all()):
        return "a value is not finite: a model diverged"
    return "" if can_resample(column) else "too few independent items to test"


def _missing(models: Sequence[Sequence[ItemScore]]) -> set[str]:
    return {row.item_id for rows in models for row in rows if math.isnan(row.value)}


def _judge_loss(
    measure: Measure, loss: Loss, p_adjusted: float, level: float, share: float
) -> Judgement:
    """share: the level divided by the number of metrics, which p has to reach by itself."""
    if loss.value > loss.margin and p_adjusted <= level:
        return Judgement(measure, "regression", loss, p_adjusted, "worse by more than the margin")
    if loss.least > share:
        reason = f"{loss.found.clusters} independent items are too few for any loss to fail"
        return Judgement(measure, "cannot tell", loss, p_adjusted, reason)
    if loss.value <= loss.margin:
        return Judgement(measure, "pass", loss, p_adjusted)
    reason = "worse by more than the margin, but that may be chance"
    return Judgement(measure, "cannot tell", loss, p_adjusted, reason)


def exit_code(judgements: Sequence[Judgement]) -> int:
    """1 when a metric regressed, else 3 when one is incomplete or nothing was judged, else 0."""
    outcomes = [one.outcome for one in judgements]
    if "regression" in outcomes:
        return EXIT_REGRESSION
    judged = [one for one in outcomes if one != "skipped"]
    return 0 if judged and "incomplete" not in judged else EXIT_INCOMPLETE
