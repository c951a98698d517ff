"""Numbers that take two models' items: a cell's, and those of the model that never knew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unlearn_bench.compare.calibrate import middle
from unlearn_bench.compare.columns import Column, Floats, align
from unlearn_bench.compare.intervals import RESAMPLES, can_resample
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_items, draw_seeds, seeded
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import AgainstExact, Protocol

Rows = Sequence[ItemScore]
LEAST = -100.0  # percent


class Spread(NamedTuple):
    """How sure a value is; low and high: its 95 % interval. NaN where that cannot be known."""

    stderr: float
    low: float
    high: float


NO_SPREAD = Spread(math.nan, math.nan, math.nan)


def score_against_exact(
    items: Sequence[ItemScore],
    exact: Sequence[ItemScore],
    protocols: Mapping[str, Protocol],
) -> list[Score]:
    """Every protocol's comparisons, in order. items, exact: all rows of the two cells.

    Without rows of the exact model the values are missing. Raises IncomparableError when the two
    were not asked the same items.
    """
    return [
        _score(task, name, protocol, comparison, items, exact)
        for task, protocol in protocols.items()
        for name, comparison in protocol.against_exact.items()
    ]


def _score(
    task: str,
    name: str,
    protocol: Protocol,
    comparison: AgainstExact,
    items: Sequence[ItemScore],
    exact: Sequence[ItemScore],
) -> Score:
    value, spread = math.nan, NO_SPREAD
    count = missing = 0
    sides = [
        [row for row in rows if (row.task, row.metric) == (task, comparison.metric)]
        for rows in (items, exact)
    ]
    if all(sides):
        column = align(protocol.metrics[comparison.metric].reduce, sides, ("the cell", "exact"))
        count, missing = column.weights.size, column.missing
        if count and column.finite:
            if comparison.compare == "ks_p":
                value = kolmogorov_smirnov(column)
            else:
                value, spread = relative_difference(column)
    return Score(
        task=task,
        metric=name,
        value=value,
        stderr=spread.stderr,
        n=count,
        missing=missing,
        direction=comparison.direction,
        unit=comparison.unit,
        low=spread.low,
        high=spread.high,
    )


def spread_over_seeds(
    protocol: Protocol, comparison: AgainstExact, seeds: Mapping[str, tuple[Rows, Rows]]
) -> Spread:
    """Of the mean over several seeds of one comparison. seeds: by what each is called its rows of
    the compared metric, and those of the exact model that it is read against.
    """
    sides = [rows for side in zip(*seeds.values(), strict=True) for rows in side]
    if comparison.compare == "ks_p" or not all(sides):
        return NO_SPREAD
    names = [*seeds, *(f"the exact model of {name}" for name in seeds)]
    column = align(protocol.metrics[comparison.metric].reduce, sides, names)
    return relative_difference(column)[1] if column.weights.size and column.finite else NO_SPREAD


def kolmogorov_smirnov(column: Column) -> float:
    """p of the two-sample test between the items' values of both models; exact for few items.

    Source: Maini et al. 2024 (arXiv 2401.06121), section 2.2.3. As there the items count as
    independent, which facts of one subject are not: p is on the small side. It has no standard
    error and no interval: it says itself how well chance explains the items, and estimates nothing
    that more items would come nearer to.
    """
    from scipy.stats import ks_2samp

    one, other = column.values
    return float(ks_2samp(one, other).pvalue)


def relative_difference(column: Column) -> tuple[float, Spread]:
    """100·(x − exact)/exact of the reduced values: of one cell, or the mean over a method's seeds.

    column: the cells, then in the same order the exact model that each is read against. The spread
    is the bootstrap's: the same items are drawn for all, with Student's t for the seeds. It stays
    above −100 %, where an area, which is never negative, has come to 0; draws in which the exact
    model's is 0 have no value. Source: Shi et al. 2024 (arXiv 2407.06460), section 3.2 (PrivLeak).
    """
    value = float(_percent(reduce_models(column)).mean())
    if not can_resample(column):
        return value, NO_SPREAD
    generator = seeded(column)
    blocks = [reduce_models(column, counts) for counts in draw_items(column, RESAMPLES, generator)]
    percent = _percent(np.concatenate(blocks, axis=1)).T
    drawn = (percent * draw_seeds(percent.shape[1], RESAMPLES, generator)).sum(axis=1)
    low, high = middle(drawn)
    return value, Spread(float(drawn.std(ddof=1)), max(low, LEAST), high)


def _percent(values: Floats) -> Floats:
    """values: (2m, ...), the exact model's in the second half. NaN where that is 0."""
    own, exact = np.split(values, 2)
    with np.errstate(all="ignore"):
        return np.where(exact == 0, math.nan, 100 * (own - exact) / exact)
