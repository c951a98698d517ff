"""Where each entrant stands in the headline columns: ranks, and differences to the target."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn_bench.board.collect import Collection, Entrant
from unlearn_bench.board.table import Column
from unlearn_bench.compare.columns import align
from unlearn_bench.compare.paired import Comparison, compare, holm
from unlearn_bench.compare.ranks import Rank, rank
from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import ItemScore

SURE = 0.05
FEW = 0.05  # share of a column's items that a ranked method may lack


@dataclass(frozen=True)
class Difference:
    """An entrant minus the target on the same items. p: Holm's, over the column's entrants.

    better: whether the column's direction welcomes it; None where it names none.
    """

    comparison: Comparison
    p: float
    better: bool | None

    @property
    def sure(self) -> bool:
        """Whether chance does not explain it. NaN is no claim."""
        return self.p < SURE


@dataclass(frozen=True)
class Standing:
    """By column, then by entrant. Ranks are among contenders; differences are of all but the target
    itself. What is absent because its items cannot be compared is told in the notes.
    """

    ranks: Mapping[str, Mapping[str, Rank]]
    differences: Mapping[str, Mapping[str, Difference]]
    notes: tuple[str, ...]


def stand(found: Collection) -> Standing:
    """Ranks and differences in every headline column whose protocol is known."""
    ranks, differences = {}, {}
    notes: list[str] = []
    for column in found.board.shown_columns():
        try:
            if own := _ranks(found, column, notes):
                ranks[column.name] = own
        except IncomparableError as error:
            notes.append(f"{column.name} has no ranks: {error.what}")
        if apart := _differences(found, column, notes):
            differences[column.name] = apart
    return Standing(ranks, differences, tuple(notes))


def _reduction(found: Collection, column: Column) -> str:
    """How the column's items become its value; "" where that is not known, or takes two models."""
    protocol = found.protocols.get(column.task)
    metric = protocol.metrics.get(column.metric) if protocol else None
    return metric.reduce if metric else ""


def _ranks(found: Collection, column: Column, notes: list[str]) -> dict[str, Rank]:
    reduce = _reduction(found, column)
    if not reduce or column.direction not in ("higher", "lower"):
        return {}
    own = _seeds(found, column)
    for name, lacking in _half_judged(own).items():
        del own[name]
        notes.append(f"{name} has no rank in {column.name}: {lacking} have no value there")
    if len(own) < 2:
        return {}
    aligned = align(reduce, *_joined(own))
    if not aligned.weights.size:
        return {}
    if aligned.missing:
        asked = aligned.weights.size + aligned.missing
        notes.append(f"ranks in {column.name} are of {aligned.weights.size} of its {asked} items")
    ends = list(itertools.accumulate(map(len, own.values())))
    sides = [range(end - len(models), end) for end, models in zip(ends, own.values(), strict=True)]
    return dict(zip(own, rank(aligned, sides, column.direction), strict=True))


def _seeds(found: Collection, column: Column) -> dict[str, dict[int, list[ItemScore]]]:
    """By contender and scored seed the rows of a column; none of who lacks them altogether."""
    by_name = {
        one.name: dict(
            zip(
                (cell.seed for cell in one.scored),
                one.items(column.task, column.metric),
                strict=True,
            )
        )
        for one in found.entrants
        if one.role == "method"
    }
    return {name: own for name, own in by_name.items() if own and all(own.values())}


def _joined(
    own: Mapping[str, Mapping[int, list[ItemScore]]],
) -> tuple[list[list[ItemScore]], list[str]]:
    """All models one after the other, and what each is called."""
    models = [rows for seeds in own.values() for rows in seeds.values()]
    return models, [f"{name} (seed {seed})" for name, seeds in own.items() for seed in seeds]


def _half_judged(own: Mapping[str, Mapping[int, list[ItemScore]]]) -> dict[str, str]:
    """Who lacks more than a few of the items of which somebody has a value, and how many.

    Models are ranked on what all of them have: one whose scorer died would leave the others as few
    items as it has itself.
    """
    lost = {name: _without_value(seeds) for name, seeds in own.items()}
    every = set().union(
        *(
            {row.item_id for rows in seeds.values() for row in rows} - lost[name]
            for name, seeds in own.items()
        )
    )
    return {
        name: f"{len(every & items)} of {len(every)} items"
        for name, items in lost.items()
        if len(every & items) > FEW * len(every)
    }


def _without_value(seeds: Mapping[int, Sequence[ItemScore]]) -> set[str]:
    """Ids of the items that lack a value in one of the seeds."""
    return {row.item_id for rows in seeds.values() for row in rows if math.isnan(row.value)}


def _differences(found: Collection, column: Column, notes: list[str]) -> dict[str, Difference]:
    reduce, target = _reduction(found, column), found.entrant("target")
    if not reduce or target is None:
        return {}
    compared: dict[str, Comparison] = {}
    for entrant in found.entrants:
        if entrant is not target and entrant.scored:
            try:
                comparison = _compare(reduce, column, entrant, target)
            except IncomparableError as error:
                notes.append(f"{column.name} has no difference to the target: {error.what}")
                continue
            if comparison is not None:
                compared[entrant.name] = comparison
    adjusted = holm([comparison.p for comparison in compared.values()])
    return {
        name: Difference(comparison, p, _better(comparison, column))
        for (name, comparison), p in zip(compared.items(), adjusted, strict=True)
    }


def _compare(reduce: str, column: Column, entrant: Entrant, target: Entrant) -> Comparison | None:
    """Of the seeds that both have; of all seeds where they share none."""
    seeds = {cell.seed for cell in entrant.scored} & {cell.seed for cell in target.scored}
    sides = [
        [
            rows
            for cell, rows in zip(one.scored, one.items(column.task, column.metric), strict=True)
            if rows and (cell.seed in seeds or not seeds)
        ]
        for one in (entrant, target)
    ]
    if not all(sides):
        return None
    names = [f"{one.name}" for one, own in zip((entrant, target), sides, strict=True) for _ in own]
    return compare(align(reduce, [*sides[0], *sides[1]], names), len(sides[0]))


def _better(comparison: Comparison, column: Column) -> bool | None:
    if column.direction not in ("higher", "lower") or not comparison.difference:
        return None
    return (comparison.difference > 0) == (column.direction == "higher")
