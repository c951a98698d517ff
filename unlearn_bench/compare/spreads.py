"""How much single subjects' or items' differences between a target and an edited model vary.

What a comparison could find depends on it (`power`), and it is known before a run only from earlier
ones. `spreads.json` holds what `python -m unlearn_bench.spread_file` measured, and on what.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from unlearn_bench.compare.calibrate import OPEN_ENDED
from unlearn_bench.compare.columns import Column, align
from unlearn_bench.compare.intervals import bootstrap, can_resample
from unlearn_bench.protocols.catalog import MINI
from unlearn_bench.schema import ItemScore

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import Metric

FILE = Path(__file__).with_name("spreads.json")
RESAMPLES = 1000
Rows = Sequence[ItemScore]


@dataclass(frozen=True)
class Spread:
    """√C times the standard error of a paired difference over C clusters, pooled over `pairs`.

    binary: items are 0 or 1 and stand alone. relative: the difference is of the logarithm, so a
    share of the value, as for perplexities.
    """

    spread: float
    pairs: int
    binary: bool
    relative: bool


def measure_spread(metric: Metric, pairs: Sequence[tuple[Rows, Rows]]) -> Spread | None:
    """One metric's spread. pairs: rows of an edited model and of its target.

    The root of the pairs' mean variance, since one pair of few clusters says little of its own.
    Pairs in which no item differs tell nothing and are left out; None where no other is left.
    """
    columns = [align(metric.reduce, pair, ("edited", "target")) for pair in pairs if all(pair)]
    relative = metric.reduce in OPEN_ENDED
    found = [_spread(column, relative=relative) for column in columns if can_resample(column)]
    known = [spread for spread in found if spread > 0]
    if not known:
        return None
    binary = metric.reduce == "mean" and all(
        np.isin(column.values, (0, 1)).all() and _clusters(column) == column.weights.size
        for column in columns
    )
    return Spread(math.sqrt(fmean(s**2 for s in known)), len(known), binary, relative)


def _spread(column: Column, *, relative: bool) -> float:
    edited, target = bootstrap(column, [range(1), range(1, 2)], RESAMPLES)
    drawn = np.log(edited / target) if relative else edited - target
    return float(drawn.std(ddof=1)) * math.sqrt(_clusters(column))


def _clusters(column: Column) -> int:
    return int(column.clusters.max()) + 1


def read_spreads(file: Path = FILE) -> dict[str, Spread]:
    """The measured spreads by `<task>.<metric>`."""
    content = json.loads(file.read_bytes())
    return {name: Spread(**fields) for name, fields in content["spreads"].items()}


def find_spread(spreads: Mapping[str, Spread], task: str, metric: str) -> tuple[str, Spread] | None:
    """The spread of a column with the name of the task it was measured on.

    A mini set stands for its real twin and the other way round: their items ask the same.
    """
    twin = task.removesuffix(MINI) if task.endswith(MINI) else task + MINI
    for name in (task, twin):
        if f"{name}.{metric}" in spreads:
            return name, spreads[f"{name}.{metric}"]
    return None
