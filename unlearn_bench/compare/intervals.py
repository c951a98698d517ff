"""How sure one value is: bootstrap over items and seeds, and Wilson's interval for shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_items, draw_seeds, seeded, smallest_stratum

RESAMPLES = 10_000
LEVEL = 0.95
NORMAL = 1.959963984540054  # its two-sided point


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided 95 % interval; both ends NaN where the spread cannot be known."""

    value: float
    low: float
    high: float


def interval(column: Column, resamples: int = RESAMPLES) -> Interval:
    """The mean over the column's models (seeds of one method), with its interval.

    Items are drawn in their clusters, the same for all seeds, and seeds above them (hierarchical
    bootstrap, percentiles; with one seed its training noise is unknown and not in the interval). A
    share of one seed has Wilson's interval, which does not shrink to a point where all items agree.
    """
    value = float(reduce_models(column).mean()) if column.weights.size else math.nan
    if not can_resample(column):
        return Interval(value, math.nan, math.nan)
    share = column.reduce == "mean" and bool(np.isin(column.values, (0, 1)).all())
    if share and (len(column.values) == 1 or value in (0, 1)):
        return wilson(value, effective_size(column))
    drawn = bootstrap(column, [range(len(column.values))], resamples)[0]
    return Interval(value, *ends(drawn))


def can_resample(column: Column) -> bool:
    """Whether anything is known of the spread: finite values, two clusters in every stratum, and
    both kinds for an area.
    """
    if not column.weights.size or (column.reduce == "auc" and column.strata.max() != 1):
        return False
    return column.finite and smallest_stratum(column) > 1


def bootstrap(column: Column, sides: Sequence[range], resamples: int) -> list[Floats]:
    """Per side (resamples,) of the mean over its seeds: the same items drawn for all models."""
    generator = seeded(column)
    blocks = [reduce_models(column, counts) for counts in draw_items(column, resamples, generator)]
    drawn = np.concatenate(blocks, axis=1)
    means = []
    for side in sides:
        shares = draw_seeds(len(side), resamples, generator)
        means.append((drawn[list(side)].T * shares).sum(axis=1))
    return means


def ends(drawn: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def effective_size(column: Column) -> float:
    """How many independent items a share of clustered items is worth (Kish 1965, section 5.4).

    p(1 − p) over the variance of the clusters' mean, at least the number of clusters and at most
    that of items; the number of clusters where all items agree, since nothing tells them apart.
    """
    values, clusters = column.values[0], column.clusters
    share, count, groups = float(values.mean()), len(values), int(clusters.max()) + 1
    if column.values.min() == column.values.max():
        return float(groups)
    sums = np.bincount(clusters, weights=values - share)
    variance = groups / (groups - 1) * float((sums**2).sum()) / count**2
    if variance * count <= share * (1 - share):  # clusters differ less than items drawn at random
        return float(count)
    return max(share * (1 - share) / variance, groups)


def wilson(share: float, size: float) -> Interval:
    """Wilson 1927's score interval: (p + z²/2n ± z√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)."""
    square = NORMAL**2 / size
    middle = (share + square / 2) / (1 + square)
    half = NORMAL / (1 + square) * math.sqrt(share * (1 - share) / size + square / (4 * size))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
