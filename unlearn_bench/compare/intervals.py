"""How sure one value is: bootstrap over items and seeds, and Wilson's interval for shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from unlearn_bench.compare.columns import Column, Floats
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import (
    draw_items,
    draw_seeds,
    draw_unseen,
    draw_widening,
    seeded,
    smallest_stratum,
)

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

    Items are drawn in their clusters, the same for all seeds, with Student's t for the seeds
    (percentiles; with one seed its training noise is unknown and not in the interval), cut where
    the metric ends. A share of one seed has Wilson's interval, which does not shrink to a point
    where all items agree.
    """
    value = float(reduce_models(column).mean()) if column.weights.size else math.nan
    if not can_resample(column):
        return Interval(value, math.nan, math.nan)
    share = column.reduce == "mean" and bool(np.isin(column.values, (0, 1)).all())
    if share and (len(column.values) == 1 or value in (0, 1)):
        return wilson(value, effective_size(column))
    drawn = bootstrap(column, [range(len(column.values))], resamples)[0]
    low, high = ends(drawn)
    # A largest group or a gap is larger in nearly every resample: the value belongs to it still.
    return Interval(value, max(min(low, value), least(column)), min(max(high, value), most(column)))


def least(column: Column) -> float:
    """Below which the metric cannot be, as far as its items tell: 0, or nothing."""
    if column.reduce in ("weighted_exp", "auc", "group_gap"):
        return 0.0
    return 0.0 if column.values.min() >= 0 else -math.inf


def most(column: Column) -> float:
    """Above which it cannot be: 1 for an area, and for shares' means, largest group and gap."""
    if column.reduce == "auc":
        return 1.0
    share = column.reduce not in ("weighted_exp", "bits") and column.values.min() >= 0
    return 1.0 if share and column.values.max() <= 1 else math.inf


def can_resample(column: Column) -> bool:
    """Whether anything is known of the spread: finite values, two clusters in every stratum, and
    both kinds for an area.
    """
    if not column.weights.size or (column.reduce == "auc" and column.strata.max() != 1):
        return False
    return column.finite and smallest_stratum(column) > 1


def bootstrap(
    column: Column, sides: Sequence[range], resamples: int, beside: Sequence[range] = ()
) -> list[Floats]:
    """Per side (resamples,) of the mean over its seeds: the same items drawn for all models.

    What other seeds would give is in it wherever a side has several. A side of one seed beside such
    sides is taken to spread as they do on average. What seeds answer otherwise item by item is
    counted twice, as the items' and as the seeds': taking it out leaves two and three seeds with
    too many false alarms, since it is known as badly as they are (docs/design/statistics.md).
    beside: what the sides are read by, drawn along after them; its seeds say nothing of theirs.
    """
    generator = seeded(column)
    blocks = [reduce_models(column, counts) for counts in draw_items(column, resamples, generator)]
    drawn = np.concatenate(blocks, axis=1).T
    several = [list(side) for side in sides if len(side) > 1]
    widening = None
    if len(sides) == 2 and several:
        freedom = _freedom([reduce_models(column)[side] for side in several])
        widening = draw_widening(freedom, resamples, generator)
    means = []
    for side in sides:
        mean = _draw_mean(drawn[:, list(side)], generator, widening)
        for other in several if len(side) == 1 else ():
            weights = draw_unseen(len(other), resamples, generator, widening)
            apart = drawn[:, other] - drawn[:, other[:1]]
            mean += (apart * weights).sum(axis=1) / math.sqrt(len(several))
        means.append(mean)
    return means + [_draw_mean(drawn[:, list(side)], generator) for side in beside]


def _draw_mean(own: Floats, generator: Generator, widening: Floats | None = None) -> Floats:
    """Mean over seeds drawn anew. own: (resamples, seeds).

    From the first seed on, so that seeds that are alike give exactly what one of them does.
    """
    weights = draw_seeds(own.shape[1], len(own), generator, widening)
    mean: Floats = own[:, 0] + ((own - own[:, :1]) * weights).sum(axis=1)
    return mean


def _freedom(sides: Sequence[Floats]) -> float:
    """Degrees of freedom of a difference whose sides' seeds spread unlike (Welch 1947, eq. 17)."""
    variances = np.array([values.var(ddof=1) / len(values) for values in sides])
    degrees = np.array([len(values) - 1 for values in sides])
    square = float((variances**2 / degrees).sum())
    return float(variances.sum() ** 2 / square) if square > 0 else float(degrees.sum())


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
    # Of a share of 0 or 1 rounding could leave the end on the wrong side of the value.
    return Interval(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))
