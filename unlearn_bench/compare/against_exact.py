"""Numbers that take two models' items: a cell's, and those of the model that never knew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearn_bench.compare.columns import Column, align
from unlearn_bench.compare.intervals import RESAMPLES
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.resample import draw_items, seeded, smallest_stratum
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import AgainstExact, Protocol


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
    value = stderr = math.nan
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
                value, stderr = relative_difference(column)
    return Score(
        task=task,
        metric=name,
        value=value,
        stderr=stderr,
        n=count,
        missing=missing,
        direction=comparison.direction,
        unit=comparison.unit,
    )


def kolmogorov_smirnov(column: Column) -> float:
    """p of the two-sample test between the items' values of both models; exact for few items.

    Source: Maini et al. 2024 (arXiv 2401.06121), section 2.2.3. As there the items count as
    independent, which facts of one subject are not: p is on the small side.
    """
    from scipy.stats import ks_2samp

    one, other = column.values
    return float(ks_2samp(one, other).pvalue)


def relative_difference(column: Column) -> tuple[float, float]:
    """100·(x − exact)/exact of the reduced values, with its bootstrap standard error.

    Source: Shi et al. 2024 (arXiv 2407.06460), section 3.2 (PrivLeak).
    """
    own, exact = reduce_models(column)
    value = 100 * (own - exact) / exact if exact else math.nan
    if smallest_stratum(column) < 2:
        return float(value), math.nan
    drawn = np.concatenate(
        [reduce_models(column, counts) for counts in draw_items(column, RESAMPLES, seeded(column))],
        axis=1,
    )
    with np.errstate(all="ignore"):
        spread = (100 * (drawn[0] - drawn[1]) / drawn[1]).std(ddof=1)
    return float(value), float(spread)
