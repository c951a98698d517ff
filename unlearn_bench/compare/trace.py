"""TRACE's three deltas: what an edit did to general ability, instruction following and safety.

Wang et al. 2023 (arXiv 2310.06762) report, for a model trained on task after task, the mean change
against the first model over M benchmarks of one kind: Δ = 1/M · Σ (after − before). Here the first
model is the target and the benchmarks are the run's own. TRACE has instruction following and safety
judged by a larger model; here they are the shares that this bench measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unlearn_bench.compare.aggregate import delta
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import MINI
from unlearn_bench.schema import Score

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

    stderr: √Σ(s₀² + s₁²)/M, of the two models' standard errors in each of the M tasks. Tasks are
    independent. So are taken the two models' errors, though both answer the same items and models
    that are alike err alike: scores do not tell their covariance, of which twice would be taken
    off, so this is an upper bound wherever that is above 0. Where the items are at hand the paired
    difference is the sharper one (`compare.paired`). NaN where a task has no standard error.
    tasks: those that it is the mean over. missing: the kind's others, which the two models do not
    both have with the same number of items. All without the mark of a mini set.
    """

    kind: Kind
    value: float
    stderr: float
    tasks: tuple[str, ...]
    missing: tuple[str, ...]


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
) -> tuple[float, float]:
    """after − before, turned so that more is better, and its standard error; NaN where it cannot be
    said.
    """
    score = new.get((task, metric))
    reference = old.get((task, metric))
    if score is None or reference is None or score.task != reference.task:
        return math.nan, math.nan
    if score.direction not in BETTER:
        raise IncomparableError(
            f"{task}.{metric} is {score.direction}: no end of it is better",
            next_step="choose a measure whose direction is higher or lower",
        )
    change = BETTER[score.direction] * delta(score, reference)
    return change, math.hypot(score.stderr, reference.stderr)


def _mean(kind: Kind, changes: Mapping[str, tuple[float, float]]) -> TraceDelta:
    known = {task: change for task, change in changes.items() if not math.isnan(change[0])}
    value = stderr = math.nan
    if known:
        value = sum(change for change, _ in known.values()) / len(known)
        stderr = math.hypot(*(error for _, error in known.values())) / len(known)
    missing = tuple(task for task in changes if task not in known)
    return TraceDelta(kind, value, stderr, tuple(known), missing)
