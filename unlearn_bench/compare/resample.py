"""Resampled values of a metric: items drawn again, seeds drawn again, labels swapped.

Nearly every reduction of a metric is a function of three sums per stratum: of the values, of the
weights, and of how many items there are. Drawing items again only changes how often each is
counted, so thousands of resamples are one matrix product.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from unlearn_bench.compare.aggregate import pairs_won
from unlearn_bench.compare.columns import Column, Floats

Counts = NDArray[np.int64]
BLOCK = 500  # resamples at a time: their counts of items are held together


def reduce_models(column: Column, counts: Floats | None = None) -> Floats:
    """Every model's value, (m,); with counts (resamples, n) of the items, (m, resamples).

    The same values as `compare.aggregate` has, infinite where a model diverged.
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
        return float(wins.mean())
    mine, theirs = counts[:, member], counts[:, ~member]
    areas: Floats = ((mine @ wins) * theirs).sum(axis=1) / mine.sum(axis=1) / theirs.sum(axis=1)
    return areas


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


def _group_gap(values: Floats, weights: Floats, number: Floats) -> Floats:
    means = values / number
    gap: Floats = means.max(axis=1) - means.min(axis=1)
    return gap


REDUCTIONS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "mean": _mean,
    "weighted_exp": _weighted_exp,
    "bits": _bits,
    "macro_mean": _macro_mean,
    "group_gap": _group_gap,
}


def draw_items(column: Column, resamples: int, generator: Generator) -> Iterator[Floats]:
    """Blocks (at most BLOCK, n) of how often each item is counted, `resamples` rows in all.

    Clusters are drawn with replacement within their stratum, k − 1 of k: so the spread of a mean
    over resamples is its unbiased standard error for few clusters too, where drawing k is too
    narrow by (k − 1)/k (Rao and Wu 1988, JASA 83:231, with their m = k − 1).
    """
    homes = np.zeros(int(column.clusters.max()) + 1, np.int64)
    homes[column.clusters] = column.strata
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        drawn = np.zeros((rows, len(homes)))
        for stratum in range(int(homes.max()) + 1):
            own = np.flatnonzero(homes == stratum)
            chance = np.full(len(own), 1 / len(own))
            drawn[:, own] = generator.multinomial(max(len(own) - 1, 1), chance, size=rows)
        yield drawn[:, column.clusters]


def draw_seeds(seeds: int, resamples: int, generator: Generator) -> Floats:
    """(resamples, seeds) shares of each seed in a mean: k − 1 of k drawn, for the same reason."""
    drawn = max(seeds - 1, 1)
    return generator.multinomial(drawn, np.full(seeds, 1 / seeds), size=resamples) / drawn


def seeded(column: Column) -> Generator:
    """Seeded by the values: the same items give the same interval on every machine."""
    return np.random.default_rng(zlib.crc32(np.ascontiguousarray(column.values).tobytes()))


def smallest_stratum(column: Column) -> int:
    """Clusters in the stratum that has the fewest: with one, nothing is known of the spread."""
    return min(
        len(np.unique(column.clusters[column.strata == stratum]))
        for stratum in np.unique(column.strata)
    )


def draw_swaps(clusters: int, resamples: int, generator: Generator) -> Iterator[Floats]:
    """Blocks (at most BLOCK, clusters) of 0 and 1: which clusters change sides.

    All 2^clusters patterns, each once, where those are no more than `resamples`.
    """
    if 2**clusters <= resamples:
        patterns = np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1
        yield from (
            patterns[start : start + BLOCK].astype(np.float64)
            for start in range(0, len(patterns), BLOCK)
        )
        return
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        yield generator.integers(0, 2, size=(rows, clusters)).astype(np.float64)
