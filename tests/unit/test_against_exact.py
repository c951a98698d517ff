"""Forget quality and PrivLeak where the answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unlearn_bench.compare.against_exact import score_against_exact, spread_over_seeds
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import Protocol, list_protocols
from unlearn_bench.schema import ItemScore, Score

WRONG = "forget_wrong_share"
AREA = "min_k_auc"


def protocols(*names: str) -> dict[str, Protocol]:
    known = list_protocols()
    return {name: known[name] for name in names}


def facts(values: Any, metric: str = WRONG) -> list[ItemScore]:
    return [
        ItemScore("fur", metric, f"{n}", "", float(value), 1.0, f"subject {n // 5}")
        for n, value in enumerate(values)
    ]


def texts(members: list[float], others: list[float]) -> list[ItemScore]:
    kinds = [("member", value) for value in members] + [("nonmember", value) for value in others]
    return [
        ItemScore("membership", AREA, f"{n}", kind, value, 1.0, f"subject {n}")
        for n, (kind, value) in enumerate(kinds)
    ]


def quality(items: list[ItemScore], exact: list[ItemScore]) -> Score:
    found = {s.metric: s for s in score_against_exact(items, exact, protocols("fur"))}
    return found["forget_quality"]


def leak(items: list[ItemScore], exact: list[ItemScore]) -> Score:
    (found,) = score_against_exact(items, exact, protocols("membership"))
    return found


def test_the_exact_model_against_itself_is_forgotten_perfectly() -> None:
    values = np.linspace(0.2, 0.8, 20)
    assert quality(facts(values), facts(values)).value == 1.0
    own = texts([0.3, 0.5], [0.2, 0.4])
    assert leak(own, own).value == 0.0


def test_a_model_that_remembers_all_is_told_from_the_exact_one() -> None:
    """Four facts each, no overlap: of the C(8, 4) = 70 ways to divide eight values two are as far
    apart, so p = 2/70.
    """
    found = quality(facts([0.01, 0.02, 0.03, 0.04]), facts([0.4, 0.5, 0.6, 0.7]))
    assert found.value == pytest.approx(2 / 70)
    assert (found.n, found.missing, found.direction) == (4, 0, "higher")


def test_the_scale_of_the_truth_ratio_does_not_matter() -> None:
    """R and R/(1 + R) have the same order, and the test knows nothing else."""
    ratios = np.random.default_rng(0).lognormal(size=(2, 40))
    shares = ratios / (1 + ratios)
    raw, scaled = (quality(facts(both[0]), facts(both[1])).value for both in (ratios, shares))
    assert raw == scaled


def test_privleak_by_hand() -> None:
    """Members above both others: area 1. The exact model's: of the four pairs two are won: 0.5.
    100·(1 − 0.5)/0.5 = 100 %. A model that avoids them has area 0: −100 %.
    """
    exact = texts([0.1, 0.9], [0.5, 0.6])
    assert leak(texts([0.8, 0.9], [0.1, 0.2]), exact).value == pytest.approx(100.0)
    assert leak(texts([0.1, 0.2], [0.8, 0.9]), exact).value == pytest.approx(-100.0)


def test_privleak_has_a_standard_error() -> None:
    """Both areas near 0.5 with 20 texts of a kind: each uncertain by 0.09, the ratio by about as
    much as √2·0.09/0.5 = 26 %, were they independent.
    """
    own, exact = np.random.default_rng(0).normal(size=(2, 2, 20)).tolist()
    found = leak(texts(*own), texts(*exact))
    assert 13 < found.stderr < 52


def test_privleak_has_an_interval() -> None:
    """Of some 1.96 standard errors on either side, which are about 26 % each. The exact model read
    against itself is 0 % in every draw. Four texts of which three are members' are too few.
    """
    own, exact = np.random.default_rng(0).normal(size=(2, 2, 20)).tolist()
    found = leak(texts(*own), texts(*exact))
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.15)
    itself = leak(texts(*exact), texts(*exact))
    assert (itself.low, itself.high) == (0.0, 0.0)
    few = leak(texts([0.1, 0.2, 0.3], [0.2]), texts([0.3, 0.1, 0.2], [0.2]))
    assert math.isfinite(few.value)
    assert math.isnan(few.stderr)
    assert math.isnan(few.low)
    assert math.isnan(few.high)


def test_a_p_has_no_interval() -> None:
    found = quality(facts(np.linspace(0.2, 0.8, 20)), facts(np.linspace(0.1, 0.7, 20)))
    assert math.isnan(found.stderr)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_over_seeds_the_spread_is_of_items_and_of_seeds() -> None:
    """A seed against itself twice has the interval of one seed: there is no noise between them. Two
    seeds that are apart are less sure, the more so as two tell little of others (Student's t of one
    degree: 12.7 standard errors), and no area is less than −100 % of another.
    """
    protocol = protocols("membership")["membership"]
    comparison = protocol.against_exact["privleak"]
    one, other, exact = np.random.default_rng(3).normal(size=(3, 2, 20)).tolist()
    alone = leak(texts(*one), texts(*exact))
    pair = (texts(*one), texts(*exact))
    same = spread_over_seeds(protocol, comparison, {"0": pair, "1": pair})
    assert (same.low, same.high) == (
        pytest.approx(alone.low, rel=0.1),
        pytest.approx(alone.high, rel=0.1),
    )
    apart = spread_over_seeds(
        protocol, comparison, {"0": pair, "1": (texts(*other), texts(*exact))}
    )
    assert -100.0 <= apart.low < same.low
    assert apart.high > same.high
    lacking = spread_over_seeds(protocol, comparison, {"0": pair, "1": (texts(*other), [])})
    assert math.isnan(lacking.low)


def test_missing_is_neither_forgotten_nor_remembered() -> None:
    nothing = quality(facts([0.1, 0.2]), [])
    assert math.isnan(nothing.value)
    assert nothing.n == 0
    diverged = quality(facts([math.inf, 0.2]), facts([0.1, 0.2]))
    assert math.isnan(diverged.value)
    some = quality(facts([math.nan, 0.2, 0.3]), facts([0.1, 0.2, 0.3]))
    assert (some.n, some.missing) == (2, 1)


def test_another_set_of_questions_is_refused() -> None:
    with pytest.raises(IncomparableError, match="the cell has 2 items and exact 3"):
        quality(facts([0.1, 0.2]), facts([0.1, 0.2, 0.3]))
