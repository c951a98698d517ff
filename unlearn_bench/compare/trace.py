"""TRACE's three deltas: what an edit did to general ability, instruction following and safety.

Wang et al. 2023 (arXiv 2310.06762) report, for a model trained on task after task, the mean change
against the first model over M benchmarks of one kind: Δ = 1/M · Σ (after − before). Here the first
model is the target and the benchmarks are the run's own. TRACE has instruction following and safety
judged by a larger model; here they are the shares that this bench measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from unlearn_bench.compare.aggregate import delta
from unlearn_bench.compare.calibrate import RESAMPLES, draw_over_seeds, drawn_alike, middle
from unlearn_bench.compare.columns import Floats, align
from unlearn_bench.compare.intervals import can_resample
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_items
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import MINI
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import Metric

Rows = Sequence[ItemScore]

Kind = Literal["general_ability", "instruction_following", "safety"]

# The one metric of each task that counts, always a share of its items: one scale for all.
# over_refusal is in no kind: declining everything would pay for itself within safety.
MEASURES: Mapping[Kind, Mapping[str, str]] = {
    "general_ability": {
        "truthfulqa": "mc2",
        "gsm8k": "exact_match_flexible",
        "mmlu": "acc",
        "bbh": "exact_match",
        "boolq": "acc",
        "piqa": "acc",
        "arc_challenge": "acc_norm",
        "hellaswag": "acc_norm",
    },
    "instruction_following": {"ifeval": "prompt_level_strict_acc"},
    "safety": {
        "jailbreak": "attack_success_rate",
        "realtoxicityprompts": "toxicity_probability",
        "toxigen": "toxic_rate",
    },
}
BETTER = {"higher": 1.0, "lower": -1.0}


@dataclass(frozen=True)
class TraceDelta:
    """One kind's delta: positive is better, NaN where `tasks` is empty.

    tasks: those that it is the mean over. missing: the kind's others, which the two models do not
    both have with the same number of items. All without the mark of a mini set.
    """

    kind: Kind
    value: float
    tasks: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class TraceError:
    """How sure a delta is: standard error and 95 % interval; NaN where nothing can be resampled.

    drawn: (resamples,) of the delta, None where there are none.
    """

    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan
    drawn: Floats | None = field(default=None, repr=False, compare=False)


def trace_deltas(
    before: Sequence[Score],
    after: Sequence[Score],
    measures: Mapping[Kind, Mapping[str, str]] = MEASURES,
) -> tuple[TraceDelta, ...]:
    """The delta of each kind, over the tasks that both models have scores of.

    before: the target's scores; after: those of the edited model. Where lower is better, the sign
    is turned. Raises IncomparableError for a measure that says neither.
    """
    old, new = ({(_real(s.task), s.metric): s for s in scores} for scores in (before, after))
    return tuple(
        _mean(kind, {task: _change(old, new, task, metric) for task, metric in metrics.items()})
        for kind, metrics in measures.items()
    )


def _real(task: str) -> str:
    return task.removesuffix(MINI)


def _change(
    old: Mapping[tuple[str, str], Score],
    new: Mapping[tuple[str, str], Score],
    task: str,
    metric: str,
) -> float:
    """after − before, turned so that more is better; NaN where it cannot be said."""
    score = new.get((task, metric))
    reference = old.get((task, metric))
    if score is None or reference is None or score.task != reference.task:
        return math.nan
    if score.direction not in BETTER:
        raise IncomparableError(
            f"{task}.{metric} is {score.direction}: no end of it is better",
            next_step="choose a measure whose direction is higher or lower",
        )
    return BETTER[score.direction] * delta(score, reference)


def _mean(kind: Kind, changes: Mapping[str, float]) -> TraceDelta:
    known = {task: change for task, change in changes.items() if not math.isnan(change)}
    value = sum(known.values()) / len(known) if known else math.nan
    missing = tuple(task for task in changes if task not in known)
    return TraceDelta(kind, value, tuple(known), missing)


def paired_error(measures: Sequence[tuple[Metric, Rows, Rows]]) -> TraceError:
    """Of one model's delta: bootstrap over the items of its tasks, in pairs with the target's.

    measures: each task's metric with the model's rows and the target's. Items are drawn as for
    calibrated scores, so tasks are independent and what both models say of one item goes together.
    """
    if not measures:
        return TraceError()
    total: Floats | float = 0.0
    value = 0.0
    for metric, own, target in measures:
        column = align(metric.reduce, [own, target], ["the cell", "the target"])
        if not can_resample(column):
            return TraceError()
        counts = draw_items(column, RESAMPLES, drawn_alike(own))
        values = np.concatenate([reduce_models(column, drawn) for drawn in counts], axis=1)
        total = total + BETTER[metric.direction] * (values[0] - values[1])
        here, there = reduce_models(column)
        value += BETTER[metric.direction] * float(here - there)
    return _error(value / len(measures), np.asarray(total) / len(measures))


def error_over_seeds(value: float, seeds: Sequence[TraceError]) -> TraceError:
    """Of a mean of several seeds' deltas: items drawn again, and Student's t over the seeds."""
    drawn = draw_over_seeds([one.drawn for one in seeds]) if seeds else None
    return TraceError() if drawn is None else _error(value, drawn)


def _error(value: float, drawn: Floats) -> TraceError:
    """Shares change by 1 at most. The value belongs to its interval, however skewed the draws."""
    low, high = middle(drawn)
    low, high = max(min(low, value), -1.0), min(max(high, value), 1.0)
    return TraceError(float(drawn.std(ddof=1)), low, high, drawn)
