"""Two models on the same items: how far apart, how sure, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.intervals import RESAMPLES, bootstrap, can_resample, ends
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_swaps, seeded

MCNEMAR, SWAPS = "McNemar, exact", "label swap"  # the tests of one model against another
SEEDS = "bootstrap, t over seeds"  # of several seeds that differ


@dataclass(frozen=True)
class Comparison:
    """`first` minus `second` on the n items that both have, in `clusters` independent groups.

    low, high: 95 % interval of the difference, paired bootstrap. p: two-sided, of `test`. NaN where
    a model diverged or nothing was asked; a NaN is no pass of anything.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    n: int
    clusters: int
    missing: int


def compare(column: Column, first: int, resamples: int = RESAMPLES) -> Comparison:
    """Compare the column's first `first` models (seeds of one method) with the rest.

    One seed on each side: p is McNemar's exact where every value is 0 or 1 and every item stands
    alone (McNemar 1947), otherwise that of swapping the two models' labels cluster by cluster,
    which is exact for every metric if the models are alike: all swaps where they are few, else
    `resamples` of them. So it is for several seeds that all gave the same. Otherwise a method is
    more than its items: p is twice the smaller share, on one side of 0, of differences with the
    items drawn again and Student's t for the seeds (`resample.draw_seeds`).
    """
    count, models = column.weights.size, len(column.values)
    clusters = int(column.clusters.max()) + 1 if count else 0
    sides = [range(first), range(first, models)]
    here = there = low = high = p = math.nan
    test = "none"
    if count:
        here, there = (float(reduce_models(column)[list(side)].mean()) for side in sides)
    if can_resample(column):
        one, other = bootstrap(column, sides, resamples)
        low, high = ends(one - other)
        if alike_seeds(column, sides):
            p, test = _test_single(one_seed(column, sides), here - there, resamples)
        else:
            p, test = share_beyond(one - other), SEEDS
    return Comparison(
        first=here,
        second=there,
        difference=here - there,
        low=low,
        high=high,
        p=p,
        test=test,
        n=count,
        clusters=clusters,
        missing=column.missing,
    )


def alike_seeds(column: Column, sides: Sequence[range]) -> bool:
    """Whether every side has one seed, or several that all gave the same."""
    return all((column.values[list(side)] == column.values[side[0]]).all() for side in sides)


def one_seed(column: Column, sides: Sequence[range]) -> Column:
    """The column with the first model of every side alone."""
    return replace(column, values=column.values[[side[0] for side in sides]])


def share_beyond(drawn: Floats) -> float:
    """Two-sided p of drawn differences: Davison and Hinkley 1997, eq. 4.11, on both sides. Never 0
    with finitely many resamples.
    """
    tails = (np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return min(1.0, 2 * (min(tails) + 1) / (len(drawn) + 1))


def _test_single(column: Column, difference: float, resamples: int) -> tuple[float, str]:
    one, other = column.values
    alone = int(column.clusters.max()) + 1 == column.weights.size
    if column.reduce == "mean" and alone and np.isin(column.values, (0, 1)).all():
        from scipy.stats import binomtest

        gained, lost = (
            int(((one == 1) & (other == 0)).sum()),
            int(((one == 0) & (other == 1)).sum()),
        )
        if gained + lost == 0:
            return 1.0, MCNEMAR
        return float(binomtest(gained, gained + lost).pvalue), MCNEMAR
    return _swap_test(column, difference, resamples), SWAPS


def _swap_test(column: Column, difference: float, resamples: int) -> float:
    """Share of label swaps with a difference as large, the observed one among them.

    Ernst 2004, Statistical Science 19:676, section 3: each cluster of a pair of models that do not
    differ could as well have been the other's.
    """
    one, other = column.values
    clusters = int(column.clusters.max()) + 1
    exact = 2**clusters <= resamples
    slack = 1e-12 * max(abs(difference), 1.0)  # equal up to rounding counts as equal
    beyond = total = 0
    for swaps in draw_swaps(clusters, resamples, seeded(column)):
        moved = swaps[:, column.clusters]
        drawn = _reduce_swapped(column, one + moved * (other - one), other + moved * (one - other))
        beyond += int(np.count_nonzero(np.abs(drawn) >= abs(difference) - slack))
        total += len(drawn)
    return beyond / total if exact else (beyond + 1) / (total + 1)


def _reduce_swapped(column: Column, one: Floats, other: Floats) -> Floats:
    """Differences of many swapped pairs. one, other: (resamples, n) values."""
    swapped = Column(
        column.reduce,
        np.concatenate([one, other]),
        column.weights,
        column.strata,
        column.clusters,
        column.missing,
    )
    values = reduce_models(swapped)
    return values[: len(one)] - values[len(one) :]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p, in the given order; NaN stays NaN and is no hypothesis (Holm 1979)."""
    order = sorted(
        (index for index, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__
    )
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
