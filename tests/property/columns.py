"""Generated columns of items: whole numbers of sixteenths, so that sums are exact in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from unlearn_bench.compare.columns import STRATIFIED, Column, align
from unlearn_bench.compare.reductions import REDUCTIONS
from unlearn_bench.protocols.catalog import Metric
from unlearn_bench.schema import ItemScore

LIKELIHOODS = ("weighted_exp", "bits")  # of logarithms of probabilities: none is above 0
KINDS = (*sorted(REDUCTIONS), "auc")
VALUES = st.integers(-48, 48).map(lambda number: number / 16)
SHARES = st.sampled_from((0.0, 1.0))


@dataclass(frozen=True)
class Asked:
    """What several models said of the same items; a letter per item for its group and cluster.

    clusters: "" where every item stands alone. weights: 1 but for rates per word.
    """

    kind: str
    models: tuple[tuple[float, ...], ...]
    groups: str
    clusters: str
    weights: tuple[float, ...]

    def rows(self, model: int = 0) -> list[ItemScore]:
        """One model's items."""
        return self.rows_of(self.models[model])

    def rows_of(self, values: Sequence[float]) -> list[ItemScore]:
        """The same items with other values."""
        return [
            ItemScore(
                "t", "m", f"item {n}", self.groups[n], value, self.weights[n],
                self.clusters[n : n + 1],
            )
            for n, value in enumerate(values)
        ]  # fmt: skip

    def column(self, *order: int) -> Column:
        """The models of these numbers, all of them where none is given."""
        chosen = order or range(len(self.models))
        return align(self.kind, [self.rows(n) for n in chosen], [f"model {n}" for n in chosen])

    @property
    def metric(self) -> Metric:
        """A metric that is reduced so."""
        return metric(self.kind)


def metric(kind: str, direction: str = "higher") -> Metric:
    return Metric.model_validate(
        {"subtask": "t", "value": "v", "reduce": kind, "direction": direction, "unit": ""}
    )


@st.composite
def asked(
    draw: st.DrawFn,
    kinds: Sequence[str] = KINDS,
    models: int = 1,
    values: st.SearchStrategy[float] = VALUES,
    least: int = 4,
    most: int = 12,
    clustered: bool = True,
) -> Asked:
    """least, most: items. Groups are two where the reduction keeps them apart, else one."""
    kind = draw(st.sampled_from(kinds))
    size = draw(st.integers(least, most))
    own = values.map(lambda value: -abs(value)) if kind in LIKELIHOODS else values
    several = st.lists(own, min_size=size, max_size=size).map(tuple)
    apart = kind in STRATIFIED
    letters = st.text("abcd", min_size=size, max_size=size)
    return Asked(
        kind=kind,
        models=tuple(draw(several) for _ in range(models)),
        groups=("xy" * size)[:size] if apart else " " * size,
        clusters=draw(letters | st.just("")) if clustered else "",
        weights=draw(
            st.lists(st.integers(1, 9).map(float), min_size=size, max_size=size).map(tuple)
        ),
    )
