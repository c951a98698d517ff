"""One metric of several models, matched item by item: the arrays that comparisons are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import ItemScore

Floats = NDArray[np.float64]
STRATIFIED = (
    "macro_mean",
    "group_max",
    "group_gap",
    "auc",
)  # reductions that keep an item's group apart


@dataclass(frozen=True)
class Column:
    """One metric over n items of m models (or of one model with m seeds), items in one order.

    values: (m, n) float64, without NaN. weights: (n,) float64. strata, clusters: (n,) int64,
    numbered from 0. Items of one stratum are reduced together; items of one cluster are drawn
    together, since what a model knows of one subject it learned from one text. A cluster may have
    items in several strata: one request under many templates. missing: items left out because one
    of the models has no value there.
    """

    reduce: str
    values: Floats
    weights: Floats
    strata: NDArray[np.int64]
    clusters: NDArray[np.int64]
    missing: int

    @property
    def finite(self) -> bool:
        """False where a model diverged: then nothing can be resampled."""
        return bool(np.isfinite(self.values).all())


def align(reduce: str, models: Sequence[Sequence[ItemScore]], names: Sequence[str]) -> Column:
    """The models' rows of one metric, matched by item id and in its order.

    So whoever asked the items in another order draws the same resamples. An item without a value in
    one of them is left out of all and counted. Raises IncomparableError when the models were not
    asked the same items, when an id occurs twice, and when an item's weight or group differs: then
    they were not asked the same thing.
    """
    tables = [_by_id(rows, name) for rows, name in zip(models, names, strict=True)]
    first = tables[0]
    for table, name in zip(tables[1:], names[1:], strict=True):
        _check_same(first, table, names[0], name)
    missing = {item for table in tables for item, row in table.items() if math.isnan(row.value)}
    kept = sorted(first.keys() - missing)
    rows = [first[item] for item in kept]
    strata = [row.group for row in rows] if reduce in STRATIFIED else [""] * len(rows)
    return Column(
        reduce=reduce,
        values=np.array([[table[item].value for item in kept] for table in tables], np.float64),
        weights=np.array([row.weight for row in rows], np.float64),
        strata=_numbered(strata),
        clusters=_numbered([row.cluster or f"{row.group}\n{row.item_id}" for row in rows]),
        missing=len(first) - len(kept),
    )


def _by_id(rows: Sequence[ItemScore], name: str) -> dict[str, ItemScore]:
    table: dict[str, ItemScore] = {}
    for row in rows:
        if row.item_id in table:
            raise IncomparableError(
                f"{name} has item {row.item_id!r} of {row.task}.{row.metric} twice"
            )
        table[row.item_id] = row
    return table


def _check_same(
    first: dict[str, ItemScore], second: dict[str, ItemScore], name: str, other: str
) -> None:
    if first.keys() != second.keys():
        only = sorted(first.keys() ^ second.keys())
        row = next(iter({**second, **first}.values()))
        sides = ((name, first, second), (other, second, first))
        raise IncomparableError(
            f"{name} has {len(first)} items and {other} {len(second)}; "
            f"{len(only)} are not in both, the first is {only[0]!r}",
            where=f"{row.task}.{row.metric}: "
            + ", ".join(
                f"{label} {len(own)} items, {len(own.keys() - others.keys())} of them its alone"
                for label, own, others in sides
            ),
            next_step="evaluate both with the same suite, limits and data",
        )
    for item, row in first.items():
        if (row.weight, row.group) != (second[item].weight, second[item].group):
            raise IncomparableError(
                f"item {item!r} of {row.task}.{row.metric} is not the same in {name} and {other}",
                next_step="evaluate both with the same data",
            )


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], np.int64)
