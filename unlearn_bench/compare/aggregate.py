"""From per-item scores to the board's numbers, each with its n, missing items, standard error and
95 % interval.

NaN is a missing value: left out of the sums and counted. ±inf stays, as the sign of a diverged
model. One item, or one cluster of them, says nothing about spread: then error and interval are NaN.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.compare.columns import Column, Floats, align
from unlearn_bench.compare.intervals import bootstrap, can_resample, interval
from unlearn_bench.compare.reductions import pairs_won, reduce_models
from unlearn_bench.compare.resample import homes_of_clusters
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import Metric, Protocol

RESAMPLES = 1000  # per metric of every cell; comparisons take more


def aggregate(items: Iterable[ItemScore], protocols: Mapping[str, Protocol]) -> list[Score]:
    """One Score per metric of every protocol, in the protocols' order.

    items: rows of one cell. A metric without any row has n = 0 and value NaN: missing, never zero.
    Raises UnlearnBenchError for a row of a task or metric that no protocol declares.
    """
    rows: dict[tuple[str, str], list[ItemScore]] = defaultdict(list)
    for item in items:
        if item.task not in protocols or item.metric not in protocols[item.task].metrics:
            raise UnlearnBenchError(
                f"{item.task}.{item.metric} was scored but no protocol declares it",
                next_step="add the metric to the task's protocol.yaml",
            )
        rows[item.task, item.metric].append(item)
    return [
        reduce_metric(task, name, metric, rows[task, name])
        for task, protocol in protocols.items()
        for name, metric in protocol.metrics.items()
    ]


def reduce_metric(task: str, name: str, metric: Metric, items: Sequence[ItemScore]) -> Score:
    """Reduce one metric's rows by the metric's own rule."""
    value = stderr = low = high = math.nan
    count = 0
    if items:
        column = align(metric.reduce, [items], [task])
        count = column.weights.size
        if count:
            found = interval(column, RESAMPLES)
            value, low, high = found.value, found.low, found.high
            stderr = standard_error(column)
    return Score(
        task=task,
        metric=name,
        value=value,
        stderr=stderr,
        n=count,
        missing=len(items) - count,
        direction=metric.direction,
        unit=metric.unit,
        low=low,
        high=high,
    )


def standard_error(column: Column) -> float:
    """Of one model's value, with clusters: items of one cluster may err together.

    For r = Σa/Σw (a mean has w = 1) the residuals e = a − r·w are summed per cluster, and
    var(r) = C/(C − 1) · Σ_c (Σ_c e)² / (Σw)² (Cochran 1977, eq. 6.13, for C clusters; with one item
    each and w = 1 this is sd²/n). Perplexities by the delta method; strata are independent,
    so the variances of their means add, unless clusters lie in several: then e of all strata are
    summed per cluster; an area as DeLong et al. 1988 with each item's share of won pairs in place
    of e (Obuchowski 1997 for clusters); the largest group and the gap by bootstrap.
    """
    if not can_resample(column):
        return math.nan
    (values,), weights = column.values, column.weights
    if column.reduce == "mean":
        return _ratio_error(values, np.ones_like(weights), column.clusters)
    if column.reduce in ("weighted_exp", "bits"):
        error = _ratio_error(-values, weights, column.clusters)
        scale = reduce_models(column)[0] if column.reduce == "weighted_exp" else 1 / math.log(2)
        return float(scale * error)
    if column.reduce == "macro_mean":
        return _macro_error(column)
    if column.reduce == "auc":
        return _area_error(column)
    (drawn,) = bootstrap(column, [range(1)], RESAMPLES)
    return float(drawn.std(ddof=1))


def _ratio_error(values: Floats, weights: Floats, clusters: NDArray[np.int64]) -> float:
    total = weights.sum()
    residuals = values - values.sum() / total * weights
    return _clustered(residuals, clusters) / float(total)


def _macro_error(column: Column) -> float:
    counts = np.bincount(column.strata)
    means = np.bincount(column.strata, weights=column.values[0]) / counts
    residuals = (column.values[0] - means[column.strata]) / counts[column.strata]
    homes = homes_of_clusters(column)[column.clusters]
    parts = [
        _clustered(residuals[homes == home], column.clusters[homes == home])
        for home in np.unique(homes)
    ]
    return math.hypot(*parts) / len(counts)


def _clustered(residuals: Floats, clusters: NDArray[np.int64]) -> float:
    """√(C/(C − 1) · Σ_c (Σ_c e)²)."""
    sums = np.bincount(clusters, weights=residuals)[np.unique(clusters)]
    return float(math.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()))


def _area_error(column: Column) -> float:
    member = column.strata == 0
    wins = pairs_won(column.values[0][member], column.values[0][~member])
    variance = 0.0
    for side, own in enumerate((member, ~member)):
        shares = wins.mean(axis=1 - side)
        variance += (_clustered(shares - shares.mean(), column.clusters[own]) / len(shares)) ** 2
    return math.sqrt(variance)


def over_seeds(scores: Sequence[Score]) -> Score:
    """One metric over several seeds: the mean of the seeds' values that are not missing.

    Its squared standard error is the mean of the seeds' own squared errors (every seed asks the
    same items, so more seeds do not average their sampling error away) plus the variance between
    seeds / number of seeds. Where sampling noise is in both terms this errs on the wide side.
    `n` is the number of items of one seed, `missing` the number missing in all seeds together. The
    interval needs the items themselves: `compare.intervals`.
    """
    first = scores[0]
    values = np.array([s.value for s in scores if not math.isnan(s.value)], dtype=np.float64)
    errors = np.array([s.stderr for s in scores if not math.isnan(s.value)], dtype=np.float64)
    value, stderr = math.nan, math.nan
    if len(values):
        value = float(values.mean())
    if math.isfinite(value):
        spread = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
        stderr = math.sqrt(float((errors**2).mean()) + spread)
    return Score(
        task=first.task,
        metric=first.metric,
        value=value,
        stderr=stderr,
        n=max(score.n for score in scores),
        missing=sum(score.missing for score in scores),
        direction=first.direction,
        unit=first.unit,
    )


def delta(score: Score, reference: Score | None) -> float:
    """The score minus the reference, NaN when either is missing or the two may have counted other
    items: a number of items does not say which of them are missing.
    """
    if reference is None or score.n != reference.n or score.missing or reference.missing:
        return math.nan
    return score.value - reference.value
