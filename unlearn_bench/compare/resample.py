"""Items drawn again, seeds drawn again, labels swapped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from unlearn_bench.compare.columns import Column, Floats

BLOCK = 500  # resamples at a time: their counts of items are held together


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
