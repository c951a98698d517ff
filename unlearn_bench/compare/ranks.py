"""Which of many methods are really better: rank intervals and groups of ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.intervals import LEVEL, RESAMPLES, bootstrap, can_resample
from unlearn_bench.compare.reductions import reduce_models


@dataclass(frozen=True)
class Rank:
    """Place among the models that have a value: 1 is the best, equal values share the smaller.

    low, high: with 95 % confidence for all models at once, the true ranks lie between them. tie:
    number of the group of models that cannot be told from the group's best, 1 for the first group.
    """

    place: int
    low: int
    high: int
    tie: int


def rank(
    column: Column,
    sides: Sequence[range],
    direction: Literal["higher", "lower"],
    resamples: int = RESAMPLES,
) -> list[Rank]:
    """Rank methods, each a range of the column's models (its seeds).

    One model is better than another if their difference exceeds its bootstrap standard error by
    more than the 95 % point of the largest such ratio over all pairs under resampling: so with
    probability 95 % none of all the claims "better" is wrong (single-step max-t; Mogstad, Romano,
    Shaikh and Wilhelm 2024, Review of Economic Studies 91:476, section 3). Without resamples
    (a diverged model, too few items) nothing is told apart.
    """
    sign = 1.0 if direction == "higher" else -1.0
    values = sign * np.array([reduce_models(column)[list(side)].mean() for side in sides])
    better = np.zeros((len(sides), len(sides)), dtype=bool)
    if can_resample(column) and len(sides) > 1:
        drawn = sign * np.stack(bootstrap(column, sides, resamples))
        better = _better(values, drawn)
    ties = _ties(values, better)
    return [
        Rank(
            place=1 + int((values > value).sum()),
            low=1 + int(better[:, index].sum()),
            high=len(sides) - int(better[index].sum()),
            tie=ties[index],
        )
        for index, value in enumerate(values)
    ]


def _better(values: Floats, drawn: Floats) -> NDArray[np.bool_]:
    """(m, m): whether row's model is surely better than column's. drawn: (m, resamples)."""
    first, second = np.triu_indices(len(values), 1)
    observed = values[first] - values[second]
    spread = np.empty(len(first))
    largest = np.zeros(drawn.shape[1])
    for pair, (one, other) in enumerate(zip(first, second, strict=True)):
        differences = drawn[one] - drawn[other]
        spread[pair] = _middle_spread(differences)
        if spread[pair] > 0:
            ratio = np.abs(differences - observed[pair]) / spread[pair]
            np.maximum(largest, ratio, out=largest)
    far = np.abs(observed) > np.quantile(largest, LEVEL) * spread
    better = np.zeros((len(values), len(values)), dtype=bool)
    better[first, second] = far & (observed > 0)
    better[second, first] = far & (observed < 0)
    return better


def _middle_spread(drawn: Floats) -> float:
    """Standard deviation, the outermost 1 % drawn in: a few seeds give tails that have none."""
    inner = np.clip(drawn, *np.quantile(drawn, [0.005, 0.995]))
    return float(inner.std(ddof=1) or drawn.std(ddof=1))


def _ties(values: Floats, better: NDArray[np.bool_]) -> list[int]:
    """A group is led by the best model that is in none yet, and holds all that it is not surely
    better than.
    """
    groups = [0] * len(values)
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    number = 0
    for leader in order:
        if groups[leader]:
            continue
        number += 1
        for index in order:
            if not groups[index] and not better[leader, index]:
                groups[index] = number
    return groups
