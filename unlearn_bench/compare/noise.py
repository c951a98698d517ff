"""Margins to start a gate's rules from: what the noise of the baseline's own numbers suggests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearn_bench.compare.aggregate import standard_error
from unlearn_bench.compare.columns import Column, align
from unlearn_bench.compare.differences import Rows
from unlearn_bench.compare.intervals import NORMAL
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.power import POWER, minimum_detectable_effect
from unlearn_bench.compare.reductions import reduce_models
from unlearn_bench.compare.spreads import find_spread, read_spreads

ROUNDING = 1e-9  # relative: seeds that differ by less were asked nothing that a seed decides


@dataclass(frozen=True)
class Suggestion:
    """A margin in the metric's unit, or as a share of the baseline's value where `relative`; and in
    words where it comes from.
    """

    measure: Measure
    margin: float
    source: str
    relative: bool = False


def suggest_margin(measure: Measure, seeds: Sequence[Rows], noise: Sequence[Rows]) -> Suggestion:
    """From the spread of the seeds' differences where they differ, else from that of edited models
    that were measured before, else from the items' own.

    seeds: the baseline's rows. noise: rows of several seeds of one unchanged model, which may be
    the same ones; fewer than two tell nothing.
    """
    if len(noise) > 1:
        column = _column(measure, noise)
        values = reduce_models(column) if column.weights.size else np.array([])
        gaps = [one - other for one, other in itertools.combinations(values, 2)]
        spread = math.sqrt(float(np.mean(np.square(gaps)))) if gaps else 0.0
        if math.isfinite(spread) and spread > ROUNDING * float(np.abs(values).max(initial=0)):
            source = f"1.96 x the root mean square difference of two of {len(values)} seeds"
            return Suggestion(measure, NORMAL * spread, source)
    column = _column(measure, seeds[:1])
    return _from_pairs(measure, column) or _from_items(measure, column)


def _from_pairs(measure: Measure, column: Column) -> Suggestion | None:
    """The difference that a paired test finds, if items differ as much as they did between edited
    models and their targets (`spreads.json`). None of a column that nobody has measured.
    """
    found = find_spread(read_spreads(), measure.task, measure.metric)
    if found is None:
        return None
    task, spread = found
    clusters = int(column.clusters.max()) + 1
    effect = minimum_detectable_effect(spread.spread, clusters, binary=spread.binary)
    source = (
        f"found with {POWER:.0%} power by {clusters} independent items that differ as those of "
        f"{spread.pairs} edited models from their targets on {task}"
    )
    return Suggestion(measure, effect, source, spread.relative)


def _from_items(measure: Measure, column: Column) -> Suggestion:
    """The difference of two models that a paired test finds, if their items had nothing in common:
    √2 standard errors of one model. Edited models have much in common, so this is on the wide side.
    """
    clusters = int(column.clusters.max()) + 1
    alone = clusters == column.weights.size
    binary = column.reduce == "mean" and alone and bool(np.isin(column.values, (0, 1)).all())
    spread = math.sqrt(2) * standard_error(column) * math.sqrt(clusters)
    effect = minimum_detectable_effect(spread, clusters, binary=binary)
    source = f"found with {POWER:.0%} power by {clusters} independent items of unlike models"
    if spread == 0:
        source = (
            f"all {clusters} independent items are alike and say nothing of noise: set your own"
        )
    return Suggestion(measure, effect, source)


def can_fail(measure: Measure, seeds: Sequence[Rows], share: float) -> bool:
    """Whether the metric has enough independent items for a p of `share` or less."""
    column = _column(measure, seeds)
    if not column.weights.size or not column.finite:
        return False
    return bool(0.5 ** (int(column.clusters.max()) + 1) <= share)


def _column(measure: Measure, seeds: Sequence[Rows]) -> Column:
    rows = [cell.get(measure.name, ()) for cell in seeds]
    return align(measure.reduce, rows, [f"seed {number}" for number in range(len(rows))])
