"""What has to be known of a metric to compare two models by it, and items sorted by metric."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unlearn_bench.schema import Direction, ItemScore


@dataclass(frozen=True)
class Measure:
    """One metric as its protocol has it. headline: whether boards show it to people.

    reduce: "" where nobody here knows how the items became the stored value.
    """

    task: str
    metric: str
    reduce: str
    direction: Direction
    unit: str
    headline: bool = False

    @property
    def name(self) -> str:
        """`<task>.<metric>`, as in every file."""
        return f"{self.task}.{self.metric}"


def by_metric(items: Iterable[ItemScore]) -> dict[str, list[ItemScore]]:
    """Rows by `<task>.<metric>`."""
    found: dict[str, list[ItemScore]] = {}
    for row in items:
        found.setdefault(f"{row.task}.{row.metric}", []).append(row)
    return found
