"""Which of two models is nearer to the exact one, for metrics whose best value is that model's."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from unlearn_bench.compare.columns import Column
from unlearn_bench.compare.intervals import RESAMPLES, bootstrap, can_resample
from unlearn_bench.compare.paired import share_beyond
from unlearn_bench.compare.reductions import reduce_models

TEST = "bootstrap of distances to exact"


@dataclass(frozen=True)
class Nearness:
    """|first − exact| − |second − exact|: below 0 where the first is nearer. p: two-sided."""

    difference: float
    p: float


def nearness(column: Column, first: int, second: int, resamples: int = RESAMPLES) -> Nearness:
    """Compare the distances of the column's first `first` models and of the next `second` to the
    rest, which are the exact model's seeds.

    All three are drawn again together, so what the items have in common cancels. NaN where nothing
    can be resampled.
    """
    if not can_resample(column):
        return Nearness(math.nan, math.nan)
    ends = (0, first, first + second, len(column.values))
    sides = [range(start, end) for start, end in itertools.pairwise(ends)]
    here, there, exact = (float(reduce_models(column)[list(side)].mean()) for side in sides)
    one, other, best = bootstrap(column, sides, resamples)
    drawn = np.abs(one - best) - np.abs(other - best)
    return Nearness(abs(here - exact) - abs(there - exact), share_beyond(drawn))
