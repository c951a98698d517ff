"""Cohen's κ (1960): how far the verdicts of a run's two scorers agree beyond chance, per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.schema import ItemScore, Score

AGREEMENT = "scorer_agreement"
UNIT = "Cohen's kappa"
VERDICTS = ("any_above", "any_at_least")
NORMAL_975 = 1.959963984540054


def verdict_metric(protocol: Protocol) -> str:
    """The first metric that says whether an item is toxic at the protocol's threshold, or ""."""
    judged = (
        name
        for name, metric in protocol.metrics.items()
        if metric.judge in VERDICTS and not metric.attribute
    )
    return next(judged, "")


def agreements(
    first: Sequence[ItemScore], second: Sequence[ItemScore], protocols: Mapping[str, Protocol]
) -> list[Score]:
    """One score for each protocol that gives verdicts. first, second: the two scorers' items.

    An item that either scorer leaves without a value is counted as missing and is no part of κ.
    """
    scores = []
    for protocol in protocols.values():
        if metric := verdict_metric(protocol):
            ours, theirs = (_values(items, protocol.name, metric) for items in (first, second))
            pairs = np.array([(value, theirs.get(item, math.nan)) for item, value in ours.items()])
            pairs = pairs.reshape(-1, 2)
            scores.append(_score(protocol.name, pairs))
    return scores


def _values(items: Sequence[ItemScore], task: str, metric: str) -> dict[str, float]:
    return {
        item.item_id: item.value for item in items if item.task == task and item.metric == metric
    }


def _score(task: str, pairs: NDArray[np.float64]) -> Score:
    known = pairs[~np.isnan(pairs).any(axis=1)] > 0.5
    value, stderr = kappa(known[:, 0], known[:, 1])
    return Score(
        task=task,
        metric=AGREEMENT,
        value=value,
        stderr=stderr,
        n=len(known),
        missing=len(pairs) - len(known),
        direction="none",
        unit=UNIT,
        low=max(value - NORMAL_975 * stderr, -1.0) if math.isfinite(stderr) else math.nan,
        high=min(value + NORMAL_975 * stderr, 1.0) if math.isfinite(stderr) else math.nan,
    )


def kappa(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """κ = (p_o − p_e) / (1 − p_e) of two scorers' verdicts, and its standard error.

    NaN without items, and where both give all items one and the same verdict: then p_e is 1, and
    agreement by chance cannot be told from any other. The error is that of large samples (Fleiss,
    Cohen & Everitt 1969), NaN for a single item.
    """
    n = len(first)
    table = np.array([[np.sum((first == i) & (second == j)) for j in (0, 1)] for i in (0, 1)])
    shares = table / max(n, 1)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, by_chance = float(np.trace(shares)), float(rows @ columns)
    if n == 0 or by_chance == 1.0:
        return math.nan, math.nan
    value = (observed - by_chance) / (1 - by_chance)
    agreeing = sum(shares[i, i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in (0, 1))
    differing = sum(shares[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = agreeing + (1 - value) ** 2 * differing - (value - by_chance * (1 - value)) ** 2
    stderr = math.sqrt(max(float(variance), 0.0) / n) / (1 - by_chance)
    return value, stderr if n > 1 else math.nan
