"""Every reduction against a number worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_bench.compare.aggregate import aggregate, delta, over_seeds, reduce_metric
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.protocols.catalog import Metric, Protocol
from unlearn_bench.schema import ItemScore, Score


def metric(reduce: str, direction: str = "higher") -> Metric:
    return Metric.model_validate(
        {"subtask": "t", "value": "v", "reduce": reduce, "direction": direction, "unit": "share"}
    )


def items(*values: float | tuple[float, float] | tuple[float, str]) -> list[ItemScore]:
    """Values; with a number beside it as weight, or a word beside it as group."""
    rows = []
    for index, value in enumerate(values):
        number, beside = value if isinstance(value, tuple) else (value, 1.0)
        weight, group = (1.0, beside) if isinstance(beside, str) else (beside, "")
        rows.append(ItemScore("t", "m", str(index), group, number, weight))
    return rows


def reduced(kind: str, *values: Any) -> Score:
    return reduce_metric("t", "m", metric(kind), items(*values))


def test_mean_and_its_standard_error() -> None:
    """1, 0, 1, 1: mean 3/4; sd² = (3·(1/4)² + (3/4)²)/3 = 1/4, so sd/√4 = 1/4."""
    score = reduced("mean", 1, 0, 1, 1)
    assert (score.value, score.n, score.missing) == (0.75, 4, 0)
    assert score.stderr == pytest.approx(0.25)


def clustered(kind: str, *rows: tuple[float, str]) -> Score:
    own = [
        ItemScore("t", "m", str(index), "", value, 1.0, cluster)
        for index, (value, cluster) in enumerate(rows)
    ]
    return reduce_metric("t", "m", metric(kind), own)


def test_the_standard_error_of_clustered_items() -> None:
    """Clusters a (1, 1) and b (0, 0, 0): mean 0.4, residual sums 1.2 and −1.2. With C = 2:
    2/1 · 2.88 / 25 = 0.2304, so 0.48. As five items on their own it would be 0.245.
    """
    rows = [(1.0, "a"), (1.0, "a"), (0.0, "b"), (0.0, "b"), (0.0, "b")]
    assert clustered("mean", *rows).stderr == pytest.approx(0.48)
    assert reduced("mean", 1, 1, 0, 0, 0).stderr == pytest.approx(0.24495, abs=1e-5)
    assert math.isnan(clustered("mean", *((value, "a") for value, _ in rows)).stderr)


def test_a_share_has_wilsons_interval() -> None:
    """z² = 3.8415. None of six: from 0 to z²/(6 + z²). Three of six: half the width is
    z·√(1/24 + z²/144)/(1 + z²/6) = 1.96·0.26143/1.64025 = 0.31239.
    """
    none, half = reduced("mean", *[0] * 6), reduced("mean", 1, 0, 1, 0, 1, 0)
    assert (none.low, none.high) == (0.0, pytest.approx(3.8415 / 9.8415, abs=1e-5))
    assert (half.low, half.high) == (
        pytest.approx(0.18761, abs=1e-5),
        pytest.approx(0.81239, abs=1e-5),
    )


def test_agreeing_clusters_count_as_one_item_each() -> None:
    """Two subjects of five facts, all right: an interval of two items, not of ten."""
    score = clustered("mean", *[(1.0, "a")] * 5, *[(1.0, "b")] * 5)
    assert (score.low, score.high) == (pytest.approx(2 / (2 + 3.8415), abs=1e-5), 1.0)


def test_clusters_that_are_all_alike_are_worth_their_items() -> None:
    """One right of two in each of three: the clusters do not differ at all, and it is still a share
    of six items.
    """
    rows = [(value, cluster) for cluster in "abc" for value in (1.0, 0.0)]
    score, alone = clustered("mean", *rows), reduced("mean", 1, 0, 1, 0, 1, 0)
    assert (score.low, score.high) == (alone.low, alone.high)
    assert score.stderr == 0.0


def test_other_metrics_have_a_bootstrap_interval_around_them() -> None:
    values = [(-float(n % 7), 1.0 + n % 3) for n in range(60)]
    score = reduced("weighted_exp", *values)
    assert score.low < score.value < score.high
    assert (score.high - score.low) / 3.92 == pytest.approx(score.stderr, rel=0.25)


def test_missing_items_are_counted_and_never_zero() -> None:
    score = reduced("mean", 1.0, math.nan, 1.0)
    assert (score.value, score.n, score.missing) == (1.0, 2, 1)


@pytest.mark.parametrize(
    "kind", ["mean", "weighted_exp", "bits", "macro_mean", "group_max", "group_gap"]
)
def test_nothing_but_missing_items_is_missing(kind: str) -> None:
    score = reduced(kind, math.nan, math.nan)
    assert math.isnan(score.value)
    assert math.isnan(score.stderr)
    assert (score.n, score.missing) == (0, 2)


@pytest.mark.parametrize("kind", ["mean", "weighted_exp", "bits", "macro_mean"])
def test_one_item_has_no_spread(kind: str) -> None:
    score = reduced(kind, -1.0)
    assert math.isfinite(score.value)
    assert math.isnan(score.stderr)


def test_perplexity_weighs_by_length_not_by_document() -> None:
    """Σll = −6, Σwords = 4: exp(3/2), not the mean of exp(1) and exp(5)."""
    score = reduced("weighted_exp", (-1.0, 1.0), (-5.0, 3.0))
    assert score.value == pytest.approx(math.exp(1.5))


def test_perplexity_error_by_the_delta_method() -> None:
    """r = 1.5; residuals 1 − 1.5 = −0.5 and 5 − 4.5 = 0.5; var = 2/1 · 0.5 / 16 = 1/16."""
    score = reduced("weighted_exp", (-1.0, 1.0), (-5.0, 3.0))
    assert score.stderr == pytest.approx(math.exp(1.5) * 0.25)


def test_equal_rates_leave_no_error() -> None:
    assert reduced("weighted_exp", (-2.0, 1.0), (-4.0, 2.0)).stderr == pytest.approx(0.0)


def test_bits_per_byte() -> None:
    """8 nats·ln 2 over 4 bytes: 2 bits per byte."""
    score = reduced("bits", (-8 * math.log(2), 4.0))
    assert score.value == pytest.approx(2.0)


def test_a_diverged_model_shows_as_infinite() -> None:
    score = reduced("weighted_exp", (-math.inf, 2.0), (-1.0, 1.0))
    assert score.value == math.inf
    assert (score.n, score.missing) == (2, 0)
    assert reduced("weighted_exp", (-1e9, 2.0)).value == math.inf


def test_macro_mean_gives_every_group_one_voice() -> None:
    """Group a: 1, 1, 1, 0 → 3/4; group b: 0, 0 → 0. Macro 3/8, though 3 of 6 items are 1."""
    values = [(1.0, "a"), (1.0, "a"), (1.0, "a"), (0.0, "a"), (0.0, "b"), (0.0, "b")]
    score = reduced("macro_mean", *values)
    assert score.value == pytest.approx(0.375)
    assert score.stderr == pytest.approx(0.25 / 2)  # sd of a is 1/2, over √4; b has none; over G


def test_group_max_is_the_largest_mean() -> None:
    """Group a: 0, 1 → 1/2; group b: 1, 1, 0 → 2/3. A group of one item tells nothing of spread."""
    values = [(0.0, "a"), (1.0, "a"), (1.0, "b"), (1.0, "b"), (0.0, "b")]
    score = reduced("group_max", *values)
    assert score.value == pytest.approx(2 / 3)
    assert score.stderr == reduced("group_max", *values).stderr  # seeded
    alone = reduced("group_max", (1.0, "a"), (0.0, "b"), (0.0, "b"))
    assert alone.value == 1.0
    assert math.isnan(alone.stderr)


def test_group_max_error_matches_theory_where_one_group_is_always_largest() -> None:
    """Then the largest mean is that group's: se = sd/√n."""
    low = [(0.0, "a")] * 400
    high = [(100.0 + index % 2, "b") for index in range(400)]
    assert reduced("group_max", *low, *high).stderr == pytest.approx(math.sqrt(0.25 / 400), rel=0.1)


def test_group_gap_is_largest_minus_smallest_mean() -> None:
    values = [(1.0, "a"), (0.0, "a"), (0.0, "b"), (0.0, "b"), (1.0, "c"), (1.0, "c")]
    score = reduced("group_gap", *values)
    assert score.value == 1.0
    assert score.stderr == reduced("group_gap", *values).stderr  # seeded
    assert 0.0 <= score.stderr < 1.0


def test_group_gap_error_matches_theory_for_two_wide_groups() -> None:
    """Far apart groups: the gap is a difference of means, se = √(sd²/n + sd²/n)."""
    low = [(float(index % 2), "a") for index in range(400)]
    high = [(100.0 + index % 2, "b") for index in range(400)]
    theory = math.sqrt(2 * 0.25 / 400)
    assert reduced("group_gap", *low, *high).stderr == pytest.approx(theory, rel=0.1)


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.randoms())
def test_the_order_of_items_does_not_matter(values: list[float], random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    for kind in ("mean", "weighted_exp", "bits", "macro_mean"):
        one, two = reduced(kind, *values), reduced(kind, *shuffled)
        assert one.value == pytest.approx(two.value, rel=1e-9, abs=1e-9)
        assert one.stderr == pytest.approx(two.stderr, rel=1e-6, abs=1e-6)


def protocols(**metrics: Metric) -> dict[str, Protocol]:
    facts: dict[str, Any] = {"title": "", "description": "", "dataset": "d", "subtasks": ("t",)}
    return {"t": Protocol(name="t", folder=Path(), metrics=metrics, **facts)}


def test_aggregate_lists_every_declared_metric_even_without_items() -> None:
    scores = aggregate(items(1.0, 0.0), protocols(m=metric("mean"), other=metric("mean", "lower")))
    assert [score.metric for score in scores] == ["m", "other"]
    assert scores[0].value == 0.5
    assert math.isnan(scores[1].value)
    assert scores[1].n == 0


def test_an_undeclared_metric_is_an_error_not_a_lost_column() -> None:
    with pytest.raises(UnlearnBenchError, match=r"t\.m"):
        aggregate(items(1.0), protocols(other=metric("mean")))


def seed(value: float, stderr: float = 0.0, missing: int = 0) -> Score:
    return Score("t", "m", value, stderr, 10, missing, "higher", "")


def test_seed_mean_and_error() -> None:
    """Values 1 and 3: mean 2, between-seed variance 2, over 2 seeds = 1; plus 0.3² within."""
    score = over_seeds([seed(1.0, 0.3), seed(3.0, 0.3, missing=2)])
    assert score.value == 2.0
    assert score.stderr == pytest.approx(math.sqrt(0.09 + 1.0))
    assert (score.n, score.missing) == (10, 2)


def test_a_seed_without_a_value_does_not_count_as_zero() -> None:
    assert over_seeds([seed(1.0), seed(math.nan, math.nan)]).value == 1.0
    assert math.isnan(over_seeds([seed(math.nan), seed(math.nan)]).value)


def test_one_diverged_seed_makes_the_mean_diverge() -> None:
    assert over_seeds([seed(1.0), seed(math.inf, math.nan)]).value == math.inf


def test_delta_needs_the_same_items() -> None:
    other = Score("t", "m", 1.0, 0.0, 9, 1, "higher", "")
    assert delta(seed(3.0), seed(1.0)) == 2.0
    assert math.isnan(delta(seed(3.0), other))
    assert math.isnan(delta(seed(3.0), None))


def test_as_many_missing_items_need_not_be_the_same() -> None:
    one, other = reduced("mean", 1.0, math.nan, 0.0), reduced("mean", math.nan, 1.0, 0.0)
    assert (one.n, one.missing) == (other.n, other.missing) == (2, 1)
    assert math.isnan(delta(one, other))
