"""Comparisons on shared items: against scipy, by hand, and against what they promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.unit.test_aggregate import metric
from unlearn_bench.compare.aggregate import reduce_metric, standard_error
from unlearn_bench.compare.columns import Column, align
from unlearn_bench.compare.intervals import interval, wilson
from unlearn_bench.compare.paired import MCNEMAR, compare, holm
from unlearn_bench.compare.reductions import REDUCTIONS, reduce_models
from unlearn_bench.compare.resample import draw_items, draw_swaps
from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import ItemScore

Floats = NDArray[np.float64]


def rows(
    values: Floats | list[float], groups: str = "", clusters: str = "", weight: float = 1.0
) -> list[ItemScore]:
    """Items "0", "1", ...; groups and clusters one letter per item."""
    return [
        ItemScore(
            "t", "m", str(index), groups[index : index + 1], float(value),
            weight + index, clusters[index : index + 1],
        )
        for index, value in enumerate(values)
    ]  # fmt: skip


def column(*models: Floats | list[float], reduce: str = "mean", **marks: str) -> Column:
    names = [f"model {number}" for number in range(len(models))]
    return align(reduce, [rows(values, **marks) for values in models], names)


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("kind", sorted(REDUCTIONS))
def test_a_reduction_gives_the_value_that_the_board_has(kind: str) -> None:
    """Counted once each, and in a resample in which every item is counted twice."""
    own = rows([-1.0, -2.5, -0.5, -4.0, -3.0], groups="aabbb")
    expected = reduce_metric("t", "m", metric(kind), own).value
    found = align(kind, [own], ["one"])
    assert reduce_models(found)[0] == pytest.approx(expected, rel=1e-12)
    assert reduce_models(found, np.full((3, 5), 2.0))[0] == pytest.approx([expected] * 3)


@pytest.mark.parametrize("size", [5, 40])
def test_the_spread_of_resampled_means_is_the_standard_error(size: int) -> None:
    """sd / √n with the unbiased sd: half the width of the interval is 1.96 of them when n is large,
    and the variance is right for few items too (40,000 resamples: within 3 %).
    """
    values = noise(1, size)
    own = column(values)
    drawn = np.concatenate(
        [
            reduce_models(own, counts)[0]
            for counts in draw_items(own, 40_000, np.random.default_rng(0))
        ]
    )
    assert drawn.std() == pytest.approx(values.std(ddof=1) / math.sqrt(size), rel=0.03)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.02)


def test_the_interval_agrees_with_scipy_on_many_items() -> None:
    values = noise(2, 300) ** 2
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    own = interval(column(values))
    assert (own.low, own.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_cluster_is_drawn_whole() -> None:
    """Ten copies of each of six items: the interval is that of six, not of sixty."""
    few = noise(3, 6)
    many = np.repeat(few, 10)
    letters = "".join(letter * 10 for letter in "abcdef")
    alone, copied, clustered = (
        interval(column(few)),
        interval(column(many)),
        interval(column(many, clusters=letters)),
    )
    width = alone.high - alone.low
    assert clustered.high - clustered.low == pytest.approx(width, rel=0.05)
    assert copied.high - copied.low < width / 2


def test_every_stratum_keeps_its_size_in_a_resample() -> None:
    own = column([1.0, 2.0, 3.0, 4.0, 5.0], reduce="macro_mean", groups="aabbb")
    for counts in draw_items(own, 50, np.random.default_rng(0)):
        assert (counts[:, :2].sum(axis=1) == 1).all()
        assert (counts[:, 2:].sum(axis=1) == 2).all()


def test_mcnemar_by_hand() -> None:
    """Five items gained, one lost, 14 others: 2·P(at most 1 of 6) = 2·7/64 = 0.21875."""
    one = [1.0] * 5 + [0.0] + [1.0] * 7 + [0.0] * 7
    other = [0.0] * 5 + [1.0] + [1.0] * 7 + [0.0] * 7
    found = compare(column(one, other), 1)
    assert found.test == "McNemar, exact"
    assert found.p == pytest.approx(0.21875)
    assert found.difference == pytest.approx(0.2)
    assert compare(column(one, one), 1).p == 1.0


def test_all_swaps_by_hand() -> None:
    """Differences 1, 2 and 4: of the eight sign patterns only +++ and −−− reach |7|: p = 0.25."""
    found = compare(column([1.0, 2.0, 4.0], [0.0, 0.0, 0.0]), 1)
    assert (found.test, found.p) == ("label swap", 0.25)


def test_many_swaps_agree_with_scipy() -> None:
    one, other = noise(4, 40), noise(5, 40) + 0.4
    theirs = stats.permutation_test(
        (one, other), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        n_resamples=20_000, vectorized=True, rng=1,
    ).pvalue  # fmt: skip
    assert compare(column(one, other), 1).p == pytest.approx(theirs, abs=0.01)


def test_swapping_changes_whole_clusters() -> None:
    """Eight items in three subjects: 2³ patterns, so no p below 0.25."""
    found = compare(column(np.ones(8), np.zeros(8), clusters="aaabbbcc"), 1)
    assert (found.p, found.clusters, found.n) == (0.25, 3, 8)
    assert found.test == "label swap"  # and not McNemar, which would count eight


def test_swaps_are_all_patterns_or_as_many_as_asked() -> None:
    (every,) = draw_swaps(3, 100, np.random.default_rng(0))
    assert len({tuple(pattern) for pattern in every}) == 8
    assert sum(map(len, draw_swaps(30, 1200, np.random.default_rng(0)))) == 1200


@pytest.mark.parametrize(
    ("kind", "pairs", "most"),
    [
        *((kind, 1000, 64) for kind in ("mean", "weighted_exp", "bits", "macro_mean")),
        *((kind, 1000, 64) for kind in ("group_max", "group_gap")),
        ("auc", 300, 22),  # an area takes seven times as long
    ],
)
def test_a_model_against_itself_is_no_alarm_more_often_than_declared(
    kind: str, pairs: int, most: int
) -> None:
    """Pairs of models that differ by noise alone, 30 skewed items in two groups: p ≤ 0.05 in at
    most 6.4 % of 1,000 (0.05 and two standard errors of such a share).
    """
    alarms = 0
    for seed in range(pairs):
        values = np.exp(noise(seed, 2, 30)) / 3
        own = column(*values, reduce=kind, groups="ab" * 15)
        alarms += compare(own, 1, resamples=200).p <= 0.05
    assert alarms <= most


def test_right_and_wrong_are_no_alarm_more_often_than_declared() -> None:
    """The same of 1,000 pairs whose items are 0 or 1."""
    alarms = 0
    for seed in range(1000):
        values = np.random.default_rng(seed).integers(0, 2, (2, 30)).astype(float)
        found = compare(column(*values), 1, resamples=200)
        assert found.test == MCNEMAR
        alarms += found.p <= 0.05
    assert alarms <= 64


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    """Skewed values, 30 items: of 600 intervals 92 to 97.5 % hold it."""
    held = 0
    for seed in range(600):
        one, other = np.exp(noise(seed, 2, 30))
        found = compare(column(one + 0.3, other), 1, resamples=400)
        held += found.low <= 0.3 <= found.high
    assert 0.92 <= held / 600 <= 0.975


def test_several_seeds_widen_the_interval_by_their_own_spread() -> None:
    """Two methods of three seeds that differ by a constant each (sd 0.5), items alike: the variance
    of the difference is 2·0.25/3, with 2 + 2 degrees of freedom, whose t at 95 % is 2.776.
    """
    items = noise(6, 200) / 10
    seeds = [items + shift for shift in (-0.5, 0.0, 0.5)]
    wide = compare(column(*seeds, *seeds), 3, resamples=20_000)
    assert wide.test == "bootstrap, t over seeds"
    assert wide.difference == pytest.approx(0.0)
    assert wide.high == pytest.approx(2.776 * math.sqrt(2 * 0.25 / 3), rel=0.05)
    assert wide.p > 0.5


def test_seeds_beside_a_fixed_model_have_their_own_freedom() -> None:
    """Three seeds (sd 0.5) beside three equal ones: variance 0.25/3, and t of 2 degrees, 4.303."""
    items = noise(6, 200) / 10
    seeds = [items + shift for shift in (-0.5, 0.0, 0.5)]
    found = compare(column(*seeds, items, items, items), 3, resamples=20_000)
    assert found.high == pytest.approx(4.303 * math.sqrt(0.25 / 3), rel=0.05)


def test_a_single_seed_is_taken_to_spread_as_its_opponents() -> None:
    """Three seeds (sd 0.5) beside one: variance 0.25/3 + 0.25, t of 2 degrees."""
    items = noise(6, 200) / 10
    seeds = [items + shift for shift in (-0.5, 0.0, 0.5)]
    found = compare(column(*seeds, items), 3, resamples=20_000)
    assert found.high == pytest.approx(4.303 * math.sqrt(0.25 / 3 + 0.25), rel=0.05)


def test_seeds_that_change_nothing_are_one() -> None:
    """McNemar of eight items of which five are gained: 2·(1/2)⁵ = 0.0625."""
    one, other = [1.0] * 8, [0.0] * 5 + [1.0] * 3
    found = compare(column(one, one, one, other, other), 3)
    assert (found.test, found.p) == ("McNemar, exact", pytest.approx(0.0625))


@pytest.mark.parametrize(
    ("first", "second", "spread"),
    [(2, 2, 0.5), (3, 3, 0.0), (3, 3, 2.0), (5, 5, 0.5), (3, 1, 2.0), (2, 0, 2.0), (3, 0, 2.0)],
)
def test_methods_alike_are_no_alarm_more_often_than_declared(
    first: int, second: int, spread: float
) -> None:
    """1,000 pairs of methods whose seeds differ by a constant (sd `spread`) and item by item (sd
    0.3), 30 items: p ≤ 0.05 in at most 6.4 %. second 0: three times one fixed model, as the target.
    """
    alarms = 0
    for number in range(1000):
        generator = np.random.default_rng(number)
        items = generator.normal(size=30)
        shifts = generator.normal(0, spread, (first + second, 1))
        seeds = items + shifts + generator.normal(0, 0.3, (first + second, 30))
        models = [*seeds] if second else [*seeds, items, items, items]
        alarms += compare(column(*models), first, resamples=300).p <= 0.05
    assert alarms <= 64


def test_a_loss_between_methods_of_several_seeds_is_found() -> None:
    """0.5 lost, seeds of sd 0.05: t of 2 degrees is far beyond its 95 % point."""
    items = noise(8, 60)
    good = [items + shift for shift in (-0.05, 0.0, 0.05)]
    bad = [items - 0.5 + shift for shift in (-0.05, 0.0, 0.05)]
    assert compare(column(*bad, *good), 3).p < 0.01


@pytest.mark.parametrize("kind", ["auc", "macro_mean", "group_max", "group_gap"])
def test_seeds_do_not_widen_an_interval_past_the_ends_of_the_metric(kind: str) -> None:
    """One seed tells the groups apart and one does not: t of one degree of freedom is wide."""
    apart, alike = [0.9] * 7 + [0.8] + [0.1] * 7 + [0.2], [0.9, 0.1] * 8
    found = interval(column(apart, alike, reduce=kind, groups="aaaaaaaabbbbbbbb"))
    assert 0 <= found.low < found.value < found.high <= 1


def test_more_items_do_not_hide_that_there_were_few_seeds() -> None:
    small, large = (
        interval(column(*(noise(7, size) / 10 + shift for shift in (-0.5, 0.0, 0.5))))
        for size in (50, 1000)
    )
    assert large.high - large.low > 0.8 * (small.high - small.low)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_interval_of_a_share_has_the_share_in_it(share: float) -> None:
    """Whatever rounding does: for 93 of these sizes the formula alone ends short of 0 or 1."""
    found = [wilson(share, size) for size in range(2, 200)]
    assert all(one.low <= share <= one.high for one in found)


def test_items_with_a_missing_value_are_left_out_of_both_and_counted() -> None:
    found = compare(column([1.0, math.nan, 3.0, 5.0], [0.0, 7.0, math.nan, 1.0]), 1)
    assert (found.n, found.missing, found.difference) == (2, 2, 2.5)


def test_nothing_to_compare_and_diverged_models_are_nan_and_no_pass() -> None:
    nothing = compare(column([math.nan], [1.0]), 1)
    assert nothing.n == 0
    assert math.isnan(nothing.difference)
    assert math.isnan(nothing.p)
    diverged = compare(column([math.inf, 1.0, 2.0], [1.0, 1.0, 1.0]), 1)
    assert diverged.difference == math.inf
    assert math.isnan(diverged.p)
    assert math.isnan(diverged.low)
    single = compare(column([2.0], [1.0]), 1)
    assert single.difference == 1.0
    assert math.isnan(single.p)


def test_other_items_and_other_weights_are_refused() -> None:
    one = rows([1.0, 2.0])
    with pytest.raises(IncomparableError, match=r"a has 2 items and b 1; 1 are not in both.*'1'"):
        align("mean", [one, one[:1]], ["a", "b"])
    with pytest.raises(IncomparableError, match=r"'1' of t\.m is not the same in a and b"):
        align("mean", [one, [one[0], replace(one[1], weight=9.0)]], ["a", "b"])
    with pytest.raises(IncomparableError, match=r"b has item '0' of t\.m twice"):
        align("mean", [one, [one[0], one[0]]], ["a", "b"])


def test_order_does_not_matter_and_the_same_items_give_the_same_figures() -> None:
    one, other = rows(noise(8, 25)), rows(noise(9, 25))
    straight = compare(align("mean", [one, other], ["a", "b"]), 1)
    shuffled = compare(align("mean", [one, other[::-1]], ["a", "b"]), 1)
    assert straight == shuffled


def test_holm_by_hand() -> None:
    """In order 3·0.01 = 0.03, 2·0.03 = 0.06, 1·0.04, which may not be below 0.06."""
    assert holm([0.04, 0.01, math.nan, 0.03]) == pytest.approx(
        [0.06, 0.03, math.nan, 0.06], nan_ok=True
    )
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def crossed(values: np.ndarray, reduce: str = "macro_mean") -> Column:
    """values: (models, requests, templates). Every request under every template."""
    requests, templates = values.shape[1:]
    return column(
        *values.reshape(len(values), -1),
        reduce=reduce,
        groups="uvwxyz"[:templates] * requests,
        clusters="".join(chr(ord("A") + number) * templates for number in range(requests)),
    )


def test_a_request_under_many_templates_is_one_observation() -> None:
    """Six requests, two templates, all lost: 2/2⁶, not 2/2¹²."""
    values = np.stack([np.zeros((6, 2)), np.ones((6, 2))])
    found = compare(crossed(values), 1)
    assert (found.clusters, found.n, found.p) == (6, 12, 2 / 2**6)


def test_the_error_of_a_mean_over_templates_counts_requests() -> None:
    """Both templates answer alike: the error is that of the four requests' mean, sd/√4 = 1/2·sd."""
    answers = np.array([0.0, 1.0, 1.0, 0.0])
    own = crossed(np.repeat(answers[None, :, None], 2, axis=2))
    assert standard_error(own) == pytest.approx(answers.std(ddof=1) / 2)


@pytest.mark.parametrize("kind", ["macro_mean", "group_max"])
def test_templates_of_one_request_are_no_alarm_more_often_than_declared(kind: str) -> None:
    """1,000 pairs of models that succeed with the same chance, drawn by request and model and then
    the same for six templates (as strong as it can be), 24 requests: p ≤ 0.05 in at most 6.4 %.
    """
    alarms = 0
    for seed in range(1000):
        chances = np.random.default_rng(seed).uniform(size=(2, 24, 1))
        values = np.random.default_rng(seed + 1).uniform(size=(2, 24, 6)) < chances
        alarms += compare(crossed(values.astype(float), kind), 1, resamples=200).p <= 0.05
    assert alarms <= 64
