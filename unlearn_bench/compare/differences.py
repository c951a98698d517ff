"""Two models metric by metric: the paired difference, and in one word what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unlearn_bench.compare.columns import align
from unlearn_bench.compare.intervals import RESAMPLES
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.nearness import TEST, TEST_OF_SEEDS, nearness
from unlearn_bench.compare.paired import MCNEMAR, SEEDS, SWAPS, Comparison, compare, holm
from unlearn_bench.schema import ItemScore

LEVEL = 0.05  # of the adjusted p below which a difference is called one
Verdict = Literal["better", "worse", "no difference seen", "not judged", "not comparable"]
Rows = Mapping[str, Sequence[ItemScore]]  # of one cell, by `<task>.<metric>`


@dataclass(frozen=True)
class Difference:
    """One metric of two models: `found` is second minus first, and `verdict` is on the second.

    p_adjusted: Holm's, over all metrics that were compared at once. reason: why there is no
    verdict. found is None where nothing could be compared. distance: of a metric that is read
    against the exact model, below 0 where the second is nearer to it.
    """

    measure: Measure
    found: Comparison | None
    distance: float = math.nan
    p_adjusted: float = math.nan
    verdict: Verdict = "not comparable"
    reason: str = ""


def measure_difference(
    measure: Measure,
    first: Sequence[Rows],
    second: Sequence[Rows],
    exact: Sequence[Rows] = (),
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare one metric of two models, each the rows of its seeds; without a verdict yet.

    exact: the exact model's seeds, read for a metric whose best value is theirs. The items must be
    the same: else IncomparableError.
    """
    sides = [[rows.get(measure.name, ()) for rows in side] for side in (second, first, exact)]
    if not measure.reduce:
        return Difference(measure, None, reason="nobody here knows how its items make its value")
    if not all(map(bool, (*sides[0], *sides[1]))):
        return Difference(measure, None, reason="only one of the two has it")
    models = [*sides[0], *sides[1]]
    found = compare(align(measure.reduce, models, _names(*sides[:2])), len(second), resamples)
    if measure.direction == "nearer_exact" and exact and all(sides[2]):
        models += sides[2]
        column = align(measure.reduce, models, _names(*sides))
        near = nearness(column, len(second), len(first), resamples)
        found = replace(found, p=near.p, test=near.test)
        return Difference(measure, found, near.difference)
    return Difference(measure, found)


def _names(*sides: Sequence[object]) -> list[str]:
    called = ("the second", "the first", "the exact model")  # the difference is second − first
    return [
        f"{name}, seed {number}" if len(side) > 1 else name
        for name, side in zip(called, sides, strict=False)
        for number in range(1, len(side) + 1)
    ]


def judge_differences(
    differences: Sequence[Difference], resamples: int = RESAMPLES
) -> list[Difference]:
    """The same with Holm's adjusted p over all of them, and a verdict each."""
    found = [one.found.p if one.found else math.nan for one in differences]
    judged = [
        _judge(replace(one, p_adjusted=p)) for one, p in zip(differences, holm(found), strict=True)
    ]
    return [
        replace(
            one, reason=_out_of_reach(one.found, [*found[:place], *found[place + 1 :]], resamples)
        )
        if one.found and one.verdict == "no difference seen"
        else one
        for place, one in enumerate(judged)
    ]


def _out_of_reach(found: Comparison, others: Sequence[float], resamples: int) -> str:
    """Why not even the clearest difference could have been seen; "" where one could have been.

    others: p of all that is compared beside it, which Holm's adjustment counts with it.
    """
    least = _least(found, resamples)
    if holm([least, *others])[0] <= LEVEL:
        return ""
    tests = 1 + sum(not math.isnan(p) for p in others)
    among = f" among {tests} tests" if least <= LEVEL else ""
    drawn = least != _least_of_swaps(found)
    what = f"{resamples} resamples" if drawn else f"{found.clusters} independent groups"
    return f"{what} are too few to show any{among}"


def _least(found: Comparison, resamples: int) -> float:
    """The smallest p that the test can give, however far apart the models are; where swaps are
    drawn, what was observed counts as one of them (`compare.paired`).
    """
    exact = _least_of_swaps(found)
    swaps = exact if 2**found.clusters <= resamples else 1 / (resamples + 1)
    tails = 2 / (resamples + 1)
    of_test: dict[str, float] = {
        MCNEMAR: exact,
        SWAPS: swaps,
        TEST: swaps,
        SEEDS: tails,
        TEST_OF_SEEDS: max(swaps, tails),
    }
    return of_test[found.test]


def _least_of_swaps(found: Comparison) -> float:
    """Of all label swaps of k groups the observed one and its mirror image are as extreme."""
    return 0.5 ** (found.clusters - 1)


def _judge(difference: Difference) -> Difference:
    found, direction = difference.found, difference.measure.direction
    if found is None:
        return difference
    if not found.n:
        return replace(difference, reason="no item has a value in both")
    if not math.isfinite(found.difference):
        return replace(difference, reason="a value is not finite: a model diverged")
    if math.isnan(found.p):
        return replace(difference, reason="too few independent items to test")
    if direction == "none":
        return replace(difference, verdict="not judged", reason="it has no better side")
    if direction == "nearer_exact" and math.isnan(difference.distance):
        return replace(difference, verdict="not judged", reason="no exact model to read it by")
    if difference.p_adjusted > LEVEL:
        return replace(difference, verdict="no difference seen")
    gained = {
        "higher": found.difference > 0,
        "lower": found.difference < 0,
        "nearer_exact": difference.distance < 0,
    }[direction]
    return replace(difference, verdict="better" if gained else "worse")
