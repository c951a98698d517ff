"""Items drawn again, seeds drawn again, labels swapped."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from unlearn_bench.compare.columns import Column, Floats

BLOCK = 500  # resamples at a time: their counts of items are held together


def draw_items(column: Column, resamples: int, generator: Generator) -> Iterator[Floats]:
    """Blocks (at most BLOCK, n) of how often each item is counted, `resamples` rows in all.

    Clusters are drawn with replacement within their stratum, or all together where some lie in
    several, k − 1 of k: so the spread of a mean over resamples is its unbiased standard error for
    few clusters too, where drawing k is too narrow by (k − 1)/k (Rao and Wu 1988, JASA 83:231, with
    their m = k − 1).
    """
    homes = homes_of_clusters(column)
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        drawn = np.zeros((rows, len(homes)))
        for home in range(int(homes.max()) + 1):
            own = np.flatnonzero(homes == home)
            chance = np.full(len(own), 1 / len(own))
            drawn[:, own] = generator.multinomial(max(len(own) - 1, 1), chance, size=rows)
        yield _without_empty_strata(column, drawn[:, column.clusters], generator)


def _without_empty_strata(column: Column, counts: Floats, generator: Generator) -> Floats:
    """Rows that count no item of a stratum (some clusters lie in several) replaced by others."""
    strata = np.eye(int(column.strata.max()) + 1)[column.strata]
    whole = np.flatnonzero((counts @ strata > 0).all(axis=1))
    if 0 < len(whole) < len(counts):
        lost = np.setdiff1d(np.arange(len(counts)), whole)
        counts[lost] = counts[generator.choice(whole, len(lost))]
    return counts


def homes_of_clusters(column: Column) -> NDArray[np.int64]:
    """(C,) of each cluster the number of its stratum; 0 of all, where some lie in several."""
    homes = np.zeros(int(column.clusters.max()) + 1, np.int64)
    homes[column.clusters] = column.strata
    crossed = bool((homes[column.clusters] != column.strata).any())
    return np.zeros_like(homes) if crossed else homes


def draw_seeds(
    seeds: int, resamples: int, generator: Generator, widening: Floats | None = None
) -> Floats:
    """(resamples, seeds) weights of the seeds in a mean, each row of sum 1; some are negative.

    Over the rows the weighted mean of k values spreads about their mean as s/√k times Student's t
    of k − 1 degrees, s their standard deviation: what two or three seeds leave unknown is wide,
    and drawing them again as if they were many makes it up to three times too narrow. widening: of
    `draw_widening`, where it is not that of these seeds alone.
    """
    if seeds == 1:
        return np.ones((resamples, 1))
    noise = draw_unseen(seeds, resamples, generator, widening)
    return noise / math.sqrt(seeds) + 1 / seeds


def draw_unseen(
    seeds: int, resamples: int, generator: Generator, widening: Floats | None = None
) -> Floats:
    """(resamples, seeds) weights of sum 0 with which k values give the noise of one seed, s·t."""
    if widening is None:
        widening = draw_widening(seeds - 1, resamples, generator)
    normal = generator.standard_normal((resamples, seeds))
    centred = normal - normal.mean(axis=1, keepdims=True)
    drawn: Floats = centred / np.sqrt(seeds - 1) * widening  # Σ centred·v is √(k − 1)·s·N(0, 1)
    return drawn


def draw_widening(freedom: float, resamples: int, generator: Generator) -> Floats:
    """(resamples, 1) factors that make normal numbers Student's t of so many degrees."""
    drawn: Floats = np.sqrt(freedom / generator.chisquare(freedom, size=(resamples, 1)))
    return drawn


def seeded(column: Column) -> Generator:
    """Seeded by the values: the same items give the same interval on every machine."""
    return np.random.default_rng(zlib.crc32(np.ascontiguousarray(column.values).tobytes()))


def smallest_stratum(column: Column) -> int:
    """How many clusters are drawn together, or lie in one stratum, at the least: with one, nothing
    is known of the spread.
    """
    drawn = np.unique(homes_of_clusters(column), return_counts=True)[1].min()
    pairs = np.unique(np.stack((column.strata, column.clusters)), axis=1)
    return int(min(drawn, np.unique(pairs[0], return_counts=True)[1].min()))


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
