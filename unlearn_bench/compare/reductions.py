"""How a metric's items become one number: for one model, for many, and for resampled items.

Nearly every reduction is a function of three sums per stratum: of the values, of the weights, and
of how many items there are. Drawing items again only changes how often each is counted, so
thousands of resamples are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.compare.columns import Column, Floats


def reduce_models(column: Column, counts: Floats | None = None) -> Floats:
    """Every model's value, (m,); with counts (resamples, n) of the items, (m, resamples).

    Infinite where a model diverged.
    """
    if column.reduce == "auc":
        return np.array([_areas(column, values, counts) for values in column.values])
    strata = _one_hot(column.strata)
    reduce = REDUCTIONS[column.reduce]
    weights = column.weights[:, None] * strata
    with np.errstate(all="ignore"):  # a diverged model overflows: inf is the right answer
        if counts is None:
            totals, number = weights.sum(axis=0)[None], strata.sum(axis=0)[None]
            plain: Floats = reduce(column.values @ strata, totals, number)
            return plain
        totals, number = counts @ weights, counts @ strata
        sums = (counts @ (values[:, None] * strata) for values in column.values)
        found: Floats = np.array([reduce(values, totals, number) for values in sums])
    return found


def _areas(column: Column, values: Floats, counts: Floats | None) -> Floats | float:
    """One model's area under the curve, or (resamples,) of them: a sum over pairs of items."""
    member = column.strata == 0  # strata are numbered in the order of their names
    wins = pairs_won(values[member], values[~member])
    if counts is None:
        return float(wins.mean()) if wins.size else math.nan
    mine, theirs = counts[:, member], counts[:, ~member]
    areas: Floats = ((mine @ wins) * theirs).sum(axis=1) / mine.sum(axis=1) / theirs.sum(axis=1)
    return areas


def pairs_won(members: Floats, others: Floats) -> Floats:
    """(members, others) float64: 1 where the member's value is higher, ½ where they are equal."""
    wins: Floats = np.sign(members[:, None] - others[None, :]) / 2 + 0.5
    return wins


def _one_hot(numbers: NDArray[np.int64]) -> Floats:
    """(n, groups) float64: 1 where the item is of the group."""
    return np.eye(int(numbers.max()) + 1)[numbers]


def _mean(values: Floats, weights: Floats, number: Floats) -> Floats:
    means: Floats = values.sum(axis=1) / number.sum(axis=1)
    return means


def _weighted_exp(values: Floats, weights: Floats, number: Floats) -> Floats:
    perplexity: Floats = np.exp(-values.sum(axis=1) / weights.sum(axis=1))
    return perplexity


def _bits(values: Floats, weights: Floats, number: Floats) -> Floats:
    bits: Floats = -values.sum(axis=1) / weights.sum(axis=1) / math.log(2)
    return bits


def _macro_mean(values: Floats, weights: Floats, number: Floats) -> Floats:
    means: Floats = (values / number).mean(axis=1)
    return means


def _group_max(values: Floats, weights: Floats, number: Floats) -> Floats:
    largest: Floats = (values / number).max(axis=1)
    return largest


def _group_gap(values: Floats, weights: Floats, number: Floats) -> Floats:
    means = values / number
    gap: Floats = means.max(axis=1) - means.min(axis=1)
    return gap


REDUCTIONS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "mean": _mean,
    "weighted_exp": _weighted_exp,
    "bits": _bits,
    "macro_mean": _macro_mean,
    "group_max": _group_max,
    "group_gap": _group_gap,
}
