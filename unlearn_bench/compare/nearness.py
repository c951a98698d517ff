"""Which of two models is nearer to the exact one, for metrics whose best value is that model's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.intervals import RESAMPLES, bootstrap, can_resample
from unlearn_bench.compare.paired import SEEDS, alike_seeds, share_beyond
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_swaps, seeded

TEST = "label swap, distance to exact"
TEST_OF_SEEDS = f"label swap and {SEEDS}, distance to exact"


@dataclass(frozen=True)
class Nearness:
    """|first − exact| − |second − exact|: below 0 where the first is nearer. p: two-sided, of
    `test`.
    """

    difference: float
    p: float
    test: str = TEST


def nearness(column: Column, first: int, second: int, resamples: int = RESAMPLES) -> Nearness:
    """Compare the distances of the column's first `first` models and of the next `second` to the
    rest, which are the exact model's seeds.

    p is that of swapping the two models' labels cluster by cluster, the exact model staying what it
    is: all swaps where they are few, else `resamples` of them. That knows nothing of what a seed
    does to all items alike, so where seeds differ p is the larger of it and the bootstrap's with
    Student's t for the seeds, the exact model's among them. NaN where nothing can be resampled.
    """
    if not can_resample(column):
        return Nearness(math.nan, math.nan)
    one = column.values[:first].mean(axis=0)
    other = column.values[first : first + second].mean(axis=0)
    exact = float(reduce_models(column)[first + second :].mean())
    difference = float(_distances(column, one[None], other[None], exact)[0])
    p = _swap_test(column, one, other, exact, resamples)
    sides = [range(first), range(first, first + second)]
    if alike_seeds(column, sides):
        return Nearness(difference, p)
    best = range(first + second, len(column.values))
    here, there, true = bootstrap(column, sides, resamples, beside=[best])
    nearer = np.abs(here - true) - np.abs(there - true)
    return Nearness(difference, max(p, share_beyond(nearer)), TEST_OF_SEEDS)


def _swap_test(column: Column, one: Floats, other: Floats, exact: float, resamples: int) -> float:
    """Share of label swaps with a difference of distances as large. one, other: (n,) values."""
    difference = float(_distances(column, one[None], other[None], exact)[0])
    clusters = int(column.clusters.max()) + 1
    slack = 1e-12 * max(abs(difference), 1.0)  # equal up to rounding counts as equal
    beyond = total = 0
    for swaps in draw_swaps(clusters, resamples, seeded(column)):
        moved = swaps[:, column.clusters] * (other - one)
        drawn = _distances(column, one + moved, other - moved, exact)
        beyond += int(np.count_nonzero(np.abs(drawn) >= abs(difference) - slack))
        total += len(drawn)
    seen = 0 if 2**clusters <= resamples else 1  # the observed labels are among all swaps
    return (beyond + seen) / (total + seen)


def _distances(column: Column, one: Floats, other: Floats, exact: float) -> Floats:
    """(resamples,) differences of distances. one, other: (resamples, n) values."""
    values = reduce_models(replace(column, values=np.concatenate([one, other])))
    found: Floats = np.abs(values[: len(one)] - exact) - np.abs(values[len(one) :] - exact)
    return found
