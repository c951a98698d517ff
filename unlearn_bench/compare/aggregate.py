"""From per-item scores to the board's numbers, each with its n, missing items and standard error.

NaN is a missing value: left out of the sums and counted. ±inf stays, as the sign of a diverged
model. One item says nothing about spread, so a standard error from n = 1 is NaN.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import Metric, Protocol

Floats = NDArray[np.float64]
Estimate = tuple[float, float]
RESAMPLES = 1000


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
    """Reduce one metric's rows by the metric's own rule; see REDUCERS."""
    present = [item for item in items if not math.isnan(item.value)]
    value, stderr = math.nan, math.nan
    if present:
        values = np.array([item.value for item in present], dtype=np.float64)
        weights = np.array([item.weight for item in present], dtype=np.float64)
        groups = [item.group for item in present]
        with np.errstate(all="ignore"):  # a diverged model overflows: inf is the right answer
            value, stderr = REDUCERS[metric.reduce](values, weights, groups)
    return Score(
        task=task,
        metric=name,
        value=float(value),
        stderr=float(stderr),
        n=len(present),
        missing=len(items) - len(present),
        direction=metric.direction,
        unit=metric.unit,
    )


def _mean(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """Sample mean and sd / √n (sd with n − 1)."""
    return float(values.mean()), _mean_error(values)


def _mean_error(values: Floats) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _nll_rate(values: Floats, weights: Floats) -> Estimate:
    """Ratio −Σll / Σw in nats per unit, and its linearised standard error.

    For r = Σa/Σw the residuals e = a − r·w have mean zero; var(r) ≈ n/(n − 1) · Σe² / (Σw)²
    (Cochran 1977, eq. 6.13, without finite-population correction).
    """
    total = weights.sum()
    if total <= 0:
        return math.nan, math.nan
    rate = -values.sum() / total
    count = len(values)
    if count < 2 or not math.isfinite(rate):
        return float(rate), math.nan
    residuals = -values - rate * weights
    return float(rate), float(math.sqrt(count / (count - 1) * (residuals**2).sum()) / total)


def _weighted_exp(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """exp(−Σll / Σw): perplexity per word or byte; standard error by the delta method."""
    rate, error = _nll_rate(values, weights)
    perplexity = float(np.exp(rate))
    return perplexity, perplexity * error


def _bits(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """−Σll / Σw / ln 2: bits per byte."""
    rate, error = _nll_rate(values, weights)
    return rate / math.log(2), error / math.log(2)


def _macro_mean(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """Unweighted mean of the groups' means; strata are independent, so their variances add."""
    strata = _by_group(values, groups)
    errors = [_mean_error(stratum) for stratum in strata]
    means = [float(stratum.mean()) for stratum in strata]
    return float(np.mean(means)), math.sqrt(sum(error**2 for error in errors)) / len(strata)


def _group_gap(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """Largest minus smallest group mean; standard error by a seeded bootstrap within groups."""
    strata = _by_group(values, groups)
    means = [float(stratum.mean()) for stratum in strata]
    gap = max(means) - min(means)
    if any(len(stratum) < 2 for stratum in strata) or not np.isfinite(values).all():
        return gap, math.nan
    seed = zlib.crc32(values.tobytes())  # the same items give the same error on every machine
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [
            generator.choice(stratum, size=(RESAMPLES, len(stratum))).mean(axis=1)
            for stratum in strata
        ]
    )
    return gap, float((drawn.max(axis=0) - drawn.min(axis=0)).std(ddof=1))


def _auc(values: Floats, weights: Floats, groups: list[str]) -> Estimate:
    """Share of pairs in which a member's value is above a non-member's, equal ones counting half.

    Standard error of DeLong et al. 1988 (Biometrics 44:837): the variance of each item's own share,
    over the number of its kind, summed over both kinds.
    """
    members, others = _by_group(values, groups) if len(set(groups)) == 2 else (values, values[:0])
    if not (len(members) and len(others)) or not np.isfinite(values).all():
        return math.nan, math.nan
    wins = pairs_won(members, others)
    value = float(wins.mean())
    if min(wins.shape) < 2:
        return value, math.nan
    variances = [wins.mean(axis=side).var(ddof=1) / wins.shape[1 - side] for side in (0, 1)]
    return value, math.sqrt(sum(variances))


def pairs_won(members: Floats, others: Floats) -> Floats:
    """(members, others) float64: 1 where the member's value is higher, ½ where they are equal."""
    wins: Floats = np.sign(members[:, None] - others[None, :]) / 2 + 0.5
    return wins


def _by_group(values: Floats, groups: list[str]) -> list[Floats]:
    names = np.array(groups)
    return [values[names == name] for name in sorted(set(groups))]


REDUCERS: dict[str, Callable[[Floats, Floats, list[str]], Estimate]] = {
    "mean": _mean,
    "weighted_exp": _weighted_exp,
    "bits": _bits,
    "macro_mean": _macro_mean,
    "group_gap": _group_gap,
    "auc": _auc,
}


def over_seeds(scores: Sequence[Score]) -> Score:
    """One metric over several seeds: the mean of the seeds' values that are not missing.

    Its squared standard error is the mean of the seeds' own squared errors (every seed asks the
    same items, so more seeds do not average their sampling error away) plus the variance between
    seeds / number of seeds. Where sampling noise is in both terms this errs on the wide side.
    `n` is the number of items of one seed, `missing` the number missing in all seeds together.
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
    """The score minus the reference, NaN when either is missing or the two counted other items."""
    if reference is None or score.n != reference.n:
        return math.nan
    return score.value - reference.value
