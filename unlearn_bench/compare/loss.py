"""How much worse a candidate is than its baseline, and whether by more than is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.intervals import RESAMPLES, bootstrap, can_resample
from unlearn_bench.compare.paired import Comparison, compare
from unlearn_bench.schema import Direction


@dataclass(frozen=True)
class Margin:
    """What a metric may lose: `size` in the metric's own unit, or a share of the baseline's value
    where `relative`.
    """

    size: float
    relative: bool = False

    def of(self, baseline: Floats) -> Floats:
        """In the metric's unit, for many values of the baseline."""
        allowed: Floats = (
            self.size * np.abs(baseline) if self.relative else self.size + 0 * baseline
        )
        return allowed


@dataclass(frozen=True)
class Loss:
    """`value` is positive where the candidate is worse; low, high: its 95 % interval.

    margin: what was allowed, in the metric's unit. p: one-sided, of "no worse than the margin";
    least: the smallest that so few independent items can give. found: the paired comparison,
    candidate minus baseline.
    """

    value: float
    low: float
    high: float
    margin: float
    p: float
    least: float
    found: Comparison


def measure_loss(
    column: Column,
    candidates: int,
    direction: Direction,
    margin: Margin,
    resamples: int = RESAMPLES,
) -> Loss:
    """Compare the column's first `candidates` models (the candidate's seeds) with the baseline's.

    p is the larger of two. One is the bootstrap's, of a loss no larger than the margin: the share
    of resamples in which the loss stays within it. It answers the question, but is no exact test.
    The other is exact: McNemar's or the label swap's p (of the seeds' mean where there are several)
    of no loss at all, of which "no worse than the margin" is a consequence. In the losing direction
    it is half the two-sided p, since swapping all labels turns every difference round. So the rate
    of false alarms of two models that are alike is the declared one, however few the items.
    """
    sign = -1.0 if direction == "higher" else 1.0
    found = compare(column, candidates, resamples)
    p = math.nan
    if can_resample(column):
        sides = [range(candidates), range(candidates, len(column.values))]
        one, other = bootstrap(column, sides, resamples)
        within = np.count_nonzero(sign * (one - other) <= margin.of(other))
        p = (within + 1) / (resamples + 1)  # Davison and Hinkley 1997, eq. 4.11
        p = max(p, _any_loss(column, candidates, sign, resamples))
    low, high = sorted((sign * found.low, sign * found.high))
    return Loss(
        value=sign * found.difference + 0.0,  # no −0
        low=low + 0.0,
        high=high + 0.0,
        margin=float(margin.of(np.array([found.second]))[0]),
        p=p,
        least=0.5**found.clusters,
        found=found,
    )


def _any_loss(column: Column, candidates: int, sign: float, resamples: int) -> float:
    """One-sided p of the exact test between the means over the seeds of either side."""
    sides = column.values[:candidates], column.values[candidates:]
    means = replace(column, values=np.array([side.mean(axis=0) for side in sides]))
    exact = compare(means, 1, resamples)
    return exact.p / 2 if sign * exact.difference > 0 else 1.0
