"""Items of several models in one order, and what is said where they are not the same items."""

from __future__ import annotations

import pytest

from unlearn_bench.compare.columns import align
from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import ItemScore


def rows(*names: str) -> list[ItemScore]:
    return [ItemScore("quiz", "acc", name, "", 1.0, 1.0) for name in names]


@pytest.mark.parametrize(
    ("second", "where"),
    [
        ("a", "quiz.acc: runs/a:npo 3 items, 2 of them its alone, runs/b:npo 1 items, 0 of"),
        ("abcd", "quiz.acc: runs/a:npo 3 items, 0 of them its alone, runs/b:npo 4 items, 1 of"),
        ("abd", "quiz.acc: runs/a:npo 3 items, 1 of them its alone, runs/b:npo 3 items, 1 of"),
    ],
)
def test_other_items_are_refused_with_the_metric_and_both_results(second: str, where: str) -> None:
    """a, b, c against fewer, more, and as many others."""
    with pytest.raises(IncomparableError) as caught:
        align("mean", [rows(*"abc"), rows(*second)], ["runs/a:npo", "runs/b:npo"])
    assert caught.value.where.startswith(where)
    assert "evaluate both" in caught.value.next_step
