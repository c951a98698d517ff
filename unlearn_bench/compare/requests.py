"""Scores of single requests, from the values of the items that are about their subjects.

The `fur` task reports every metric over all subjects of a role. Here each is reduced over the
subjects of one request alone, so that an earlier request can be followed through later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from unlearn_bench.compare.aggregate import reduce_metric
from unlearn_bench.protocols.catalog import Metric
from unlearn_bench.schema import ItemScore, Score

if TYPE_CHECKING:
    from unlearn_bench.protocols.catalog import Protocol

TASK = "fur"
Kind = Literal["forget", "update"]
# What a later request may undo, by kind: the name of the change, the metric, and the sign at which
# the change is bad when positive.
UNDONE: dict[Kind, tuple[str, str, int]] = {
    "forget": ("relearned", "forget_extraction_strength", 1),
    "update": ("lost", "update_efficacy", -1),
}


def metrics_of(kind: Kind, protocol: Protocol) -> dict[str, Metric]:
    """The protocol's metrics that a request of this kind is scored by, in its order."""
    return {name: m for name, m in protocol.metrics.items() if name.startswith(f"{kind}_")}


def undone_metric(kind: Kind) -> tuple[str, Metric]:
    """Name and definition of the change that a later request brings about."""
    name, value, sign = UNDONE[kind]
    words = "now − right after its own stage" if sign > 0 else "right after its own stage − now"
    metric = Metric(
        subtask="fur_choice",
        value=value,
        direction="lower",
        unit="share",
        description=f"{value}, {words}",
    )
    return name, metric


def score_request(
    request: str,
    kind: Kind,
    facts: Collection[str],
    items: Iterable[ItemScore],
    protocol: Protocol,
) -> list[Score]:
    """One Score per metric of the kind, over the items that ask for `facts`; its task is `request`.

    facts: ids. A metric without any such item has n = 0 and value NaN.
    """
    own = select(items, facts)
    return [
        reduce_metric(request, name, metric, [item for item in own if item.metric == name])
        for name, metric in metrics_of(kind, protocol).items()
    ]


def score_undone(
    request: str,
    kind: Kind,
    facts: Collection[str],
    then: Iterable[ItemScore],
    now: Iterable[ItemScore],
) -> Score:
    """How much of the request a later one has undone: the mean of the items' own differences.

    then: items right after the request's own stage. Each item is compared with itself, so the
    standard error is that of the paired difference. An item without both values is missing.
    """
    name, metric = undone_metric(kind)
    _, value, sign = UNDONE[kind]
    before = {item.item_id: item.value for item in select(then, facts) if item.metric == value}
    differences = [
        replace(item, value=sign * (item.value - before.get(item.item_id, float("nan"))))
        for item in select(now, facts)
        if item.metric == value
    ]
    return reduce_metric(request, name, metric, differences)


def select(items: Iterable[ItemScore], facts: Collection[str]) -> list[ItemScore]:
    """The `fur` items that ask for these facts: an item's id is `<fact>:<phrasing>`."""
    return [
        item for item in items if item.task == TASK and item.item_id.rpartition(":")[0] in facts
    ]
