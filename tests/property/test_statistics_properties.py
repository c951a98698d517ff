"""What holds of every number that is made of items, whatever the items are."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.property.bounds import bounded
from tests.property.columns import KINDS, SHARES, VALUES, Asked, asked, metric
from unlearn_bench.compare import overall as combined
from unlearn_bench.compare import trace
from unlearn_bench.compare.aggregate import delta, over_seeds, reduce_metric
from unlearn_bench.compare.agreement import kappa
from unlearn_bench.compare.calibrate import Calibrated, calibrate
from unlearn_bench.compare.columns import align
from unlearn_bench.compare.differences import judge_differences, measure_difference
from unlearn_bench.compare.intervals import wilson
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.nearness import nearness
from unlearn_bench.compare.objective import GIBBERISH, harmonic_mean, metrics_read, objective
from unlearn_bench.compare.overall import KEEP, overall
from unlearn_bench.compare.paired import MCNEMAR, SWAPS, compare, holm
from unlearn_bench.compare.power import minimum_detectable_effect
from unlearn_bench.compare.ranks import rank
from unlearn_bench.compare.reductions import REDUCTIONS
from unlearn_bench.compare.same_protocol import mismatches, require_same_protocol
from unlearn_bench.errors import IncomparableError
from unlearn_bench.schema import Score

CLOSE = 1e-9
EXACT = 300  # resamples; all label swaps of eight clusters or fewer are made
UNIT = st.floats(0, 1)
P_VALUES = st.lists(UNIT | st.just(math.nan), max_size=8)


def near(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=CLOSE, abs=CLOSE, nan_ok=True)


def score_of(own: Asked) -> Score:
    return reduce_metric("t", "m", own.metric, own.rows())


class TestOneValue:
    @pytest.mark.parametrize("kind", KINDS)
    @bounded(15)
    @given(data=st.data(), values=st.sampled_from((VALUES, SHARES)))
    def test_its_interval_holds_it(self, kind: str, data: st.DataObject, values: Any) -> None:
        found = score_of(data.draw(asked([kind], values=values)))
        assert math.isnan(found.low) == math.isnan(found.high)
        assert math.isnan(found.low) == math.isnan(found.stderr)
        assert math.isnan(found.low) or found.low <= found.value <= found.high

    @bounded(60)
    @given(won=st.integers(0, 50), lost=st.integers(0, 50), more=st.integers(2, 9))
    def test_a_share_of_more_items_is_surer(self, won: int, lost: int, more: int) -> None:
        size = won + lost
        assume(size)
        few, many = wilson(won / size, size), wilson(won / size, size * more)
        assert 0 <= few.low <= many.low <= won / size <= many.high <= few.high <= 1
        assert many.high - many.low < few.high - few.low

    @bounded(40)
    @given(own=asked(["mean", "weighted_exp", "bits", "macro_mean"]))
    def test_more_items_like_them_make_it_surer(self, own: Asked) -> None:
        """Nine subjects for each one: the interval is narrower, the value the same."""
        rows = [
            replace(row, item_id=f"{row.item_id} {n}", cluster=f"{row.cluster or row.item_id} {n}")
            for n in range(9)
            for row in own.rows()
        ]
        few, many = score_of(own), reduce_metric("t", "m", own.metric, rows)
        assume(not math.isnan(few.low))
        assert near(few.value, many.value)
        assert many.high - many.low <= (few.high - few.low) * (1 + CLOSE)
        assert many.stderr <= few.stderr * (1 + CLOSE)

    @bounded(60)
    @given(own=asked(), data=st.data())
    def test_the_order_of_items_changes_nothing(self, own: Asked, data: st.DataObject) -> None:
        rows = data.draw(st.permutations(own.rows()))
        found, turned = score_of(own), reduce_metric("t", "m", own.metric, rows)
        for name in ("value", "stderr", "low", "high", "n", "missing"):
            assert near(getattr(turned, name), getattr(found, name)), name

    @bounded(60)
    @given(own=asked(values=VALUES | st.just(math.nan)))
    def test_a_missing_value_is_left_out_and_counted(self, own: Asked) -> None:
        """Never nought: the number is that of the items that have a value."""
        known = [row for row in own.rows() if not math.isnan(row.value)]
        found, rest = score_of(own), reduce_metric("t", "m", own.metric, known)
        assert (found.n, found.missing) == (len(known), len(own.groups) - len(known))
        assert repr(replace(found, missing=0)) == repr(replace(rest, missing=0))
        assert known or math.isnan(found.value)

    @bounded(60)
    @given(values=st.lists(VALUES | st.just(math.nan), min_size=1, max_size=5), data=st.data())
    def test_seeds_without_a_value_are_no_noughts(
        self, values: list[float], data: st.DataObject
    ) -> None:
        seeds = [Score("t", "m", value, abs(value) / 9, 4, 0, "higher", "") for value in values]
        found = over_seeds(seeds)
        turned = over_seeds(data.draw(st.permutations(seeds)))
        known = [value for value in values if not math.isnan(value)]
        assert near(found.value, turned.value)
        assert near(found.stderr, turned.stderr)
        assert near(found.value, sum(known) / len(known) if known else math.nan)

    @bounded(40)
    @given(value=VALUES, reference=VALUES | st.just(math.nan), counted=st.booleans())
    def test_a_delta_needs_both_values_of_the_same_items(
        self, value: float, reference: float, counted: bool
    ) -> None:
        own = Score("t", "m", value, 0.1, 4, 0, "higher", "")
        other = replace(own, value=reference, n=4 if counted else 3)
        assert near(delta(own, other), value - reference if counted else math.nan)
        assert math.isnan(delta(own, None))


class TestTwoModels:
    @bounded(80)
    @given(own=asked(models=2, most=8))
    def test_the_other_way_round_it_is_the_same_difference(self, own: Asked) -> None:
        there, back = compare(own.column(0, 1), 1, EXACT), compare(own.column(1, 0), 1, EXACT)
        assert near(there.difference, -back.difference)
        assert (there.first, there.second) == (back.second, back.first)
        assert near(there.p, back.p)
        assert (there.test, there.n, there.clusters) == (back.test, back.n, back.clusters)

    @bounded(40)
    @given(own=asked())
    def test_a_model_does_not_differ_from_itself(self, own: Asked) -> None:
        found = compare(own.column(0, 0), 1, EXACT)
        assert found.difference == 0
        assert math.isnan(found.p) or (found.p, found.low, found.high) == (1, 0, 0)

    @bounded(60)
    @given(own=asked(models=2, values=VALUES | st.just(math.nan)))
    def test_only_items_that_both_have_are_compared(self, own: Asked) -> None:
        found = compare(own.column(), 1, EXACT)
        lost = [any(map(math.isnan, pair)) for pair in zip(*own.models, strict=True)]
        models = [
            [row for row, gone in zip(own.rows(n), lost, strict=True) if not gone] for n in (0, 1)
        ]
        rest = compare(align(own.kind, models, ("one", "other")), 1, EXACT)
        assert found.missing == sum(lost)
        assert repr(replace(found, missing=0)) == repr(rest)

    @bounded(60)
    @given(own=asked(models=2, most=8), data=st.data())
    def test_the_order_of_items_changes_no_test(self, own: Asked, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(own.groups))))
        turned = Asked(
            own.kind,
            tuple(tuple(model[n] for n in order) for model in own.models),
            "".join(own.groups[n] for n in order),
            "".join(own.clusters[n : n + 1] for n in order),
            tuple(own.weights[n] for n in order),
        )
        found, again = compare(own.column(), 1, EXACT), compare(turned.column(), 1, EXACT)
        assert near(found.difference, again.difference)
        assert near(found.p, again.p)

    @bounded(80)
    @given(own=asked(["mean"], models=2, values=SHARES, least=2, most=40, clustered=False))
    def test_mcnemar_is_the_binomial_test(self, own: Asked) -> None:
        """By scipy, and by hand: twice the smaller tail of a fair coin, at most 1."""
        found = compare(own.column(), 1, EXACT)
        gained, lost = (
            sum(pair == change for pair in zip(*own.models, strict=True))
            for change in ((1.0, 0.0), (0.0, 1.0))
        )
        changed = gained + lost
        tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
        assert found.test == MCNEMAR
        assert near(found.p, min(1.0, 2 * tail))
        assert not changed or near(found.p, binomtest(gained, changed).pvalue)

    @bounded(60)
    @given(own=asked(models=2, most=10))
    def test_p_is_never_below_what_so_few_clusters_can_give(self, own: Asked) -> None:
        found = compare(own.column(), 1, 1024)
        assume(found.test in (MCNEMAR, SWAPS))
        assert min(1, 2 / 2**found.clusters) <= found.p * (1 + CLOSE) <= 1 + CLOSE

    @bounded(60)
    @given(own=asked(models=2, values=VALUES | st.sampled_from((math.nan, math.inf, -math.inf))))
    def test_what_is_not_finite_has_no_p_and_no_verdict(self, own: Asked) -> None:
        first, second = ({"t.m": own.rows(n)} for n in (0, 1))
        measure = Measure("t", "m", own.kind, "higher", "")
        (found,) = judge_differences([measure_difference(measure, [first], [second], (), EXACT)])
        assert found.found is not None
        if not own.column().finite:
            assert math.isnan(found.found.p)
            assert found.verdict == "not comparable"
        if math.isnan(found.found.difference):
            assert found.verdict == "not comparable"

    @bounded(60)
    @given(own=asked(models=2, most=8), direction=st.sampled_from(("higher", "lower")))
    def test_what_is_better_one_way_is_worse_the_other(self, own: Asked, direction: Any) -> None:
        first, second = ({"t.m": own.rows(n)} for n in (0, 1))
        measure = Measure("t", "m", own.kind, direction, "")
        turned = {"better": "worse", "worse": "better"}
        there, back = (
            judge_differences([measure_difference(measure, [one], [other], (), EXACT)])[0].verdict
            for one, other in ((first, second), (second, first))
        )
        assert back == turned.get(there, there)

    @bounded(60)
    @given(own=asked(models=3, most=8))
    def test_nearness_turns_round_and_is_nought_to_itself(self, own: Asked) -> None:
        there, back = (
            nearness(own.column(*order), 1, 1, EXACT) for order in ((0, 1, 2), (1, 0, 2))
        )
        assert near(there.difference, -back.difference)
        assert near(there.p, back.p)
        itself = nearness(own.column(0, 0, 2), 1, 1, EXACT)
        assert math.isnan(itself.p) or (itself.difference, itself.p) == (0, 1)


class TestManyHypotheses:
    @bounded(100)
    @given(p=P_VALUES)
    def test_holm_is_the_formula(self, p: list[float]) -> None:
        """max over i ≤ k of min(1, (m − i + 1)·p₍ᵢ₎) in rising order; NaN is no hypothesis."""
        known = sorted(value for value in p if not math.isnan(value))
        m = len(known)
        steps = [min(1.0, (m - i) * value) for i, value in enumerate(known)]
        by_hand = {value: max(steps[: known.index(value) + known.count(value)]) for value in known}
        for raw, adjusted in zip(p, holm(p), strict=True):
            assert near(adjusted, by_hand.get(raw, math.nan))

    @bounded(60)
    @given(p=P_VALUES)
    def test_holm_keeps_the_order_and_never_helps(self, p: list[float]) -> None:
        pairs = sorted(
            (raw, adjusted) for raw, adjusted in zip(p, holm(p), strict=True) if not math.isnan(raw)
        )
        assert all(raw <= adjusted <= 1 for raw, adjusted in pairs)
        assert all(one[1] <= other[1] for one, other in pairwise(pairs))

    @bounded(60)
    @given(p=P_VALUES, data=st.data())
    def test_a_smaller_p_raises_no_other(self, p: list[float], data: st.DataObject) -> None:
        assume(p)
        index = data.draw(st.integers(0, len(p) - 1))
        assume(not math.isnan(p[index]))
        smaller = [*p[:index], p[index] / 2, *p[index + 1 :]]
        pairs = zip(holm(smaller), holm(p), strict=True)
        assert all(after <= before or math.isnan(before) for after, before in pairs)


class TestRanks:
    @bounded(60)
    @given(own=asked(models=4), direction=st.sampled_from(("higher", "lower")))
    def test_the_interval_of_a_rank_holds_its_place(self, own: Asked, direction: Any) -> None:
        column = own.column()
        found = rank(column, [range(n, n + 1) for n in range(4)], direction, EXACT)
        assert all(1 <= one.low <= one.place <= one.high <= 4 for one in found)
        assert min(one.place for one in found) == 1
        assert {one.tie for one in found} == set(range(1, max(one.tie for one in found) + 1))
        assert min(found, key=lambda one: one.place).tie == 1

    @bounded(60)
    @given(own=asked(["mean"], models=3), data=st.data())
    def test_the_order_of_models_changes_no_place(self, own: Asked, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(3)))
        sides = [range(n, n + 1) for n in range(3)]
        found = rank(own.column(), sides, "higher", 50)
        turned = rank(own.column(*order), sides, "higher", 50)
        assert [turned[order.index(n)].place for n in range(3)] == [one.place for one in found]


class TestCalibrated:
    @bounded(60)
    @given(own=asked(models=2), direction=st.sampled_from(("higher", "lower", "nearer_exact")))
    def test_the_target_is_nought_and_the_exact_model_one(self, own: Asked, direction: str) -> None:
        target, exact = own.rows(0), own.rows(1)
        ends = [calibrate(metric(own.kind, direction), "reached", rows, target, exact)
                for rows in (target, exact)]  # fmt: skip
        assume(not math.isnan(ends[0].value))
        assert [one.value for one in ends] == [0, 1]
        assert all(math.isnan(one.low) or one.low <= one.value <= one.high for one in ends)

    @bounded(60)
    @given(own=asked(["mean"], models=3), direction=st.sampled_from(("higher", "lower")))
    def test_nearer_the_exact_model_is_never_worse(self, own: Asked, direction: str) -> None:
        """Half of the way from any model to the exact one, item by item."""
        cell, target, exact = own.models
        half = [(one + best) / 2 for one, best in zip(cell, exact, strict=True)]
        before, after = (
            calibrate(
                metric("mean", direction), "reached", *map(own.rows_of, (rows, target, exact))
            ).value
            for rows in (cell, half)
        )
        assert math.isnan(before) == math.isnan(after)
        assert math.isnan(before) or before - CLOSE <= after <= 1

    @bounded(60)
    @given(
        own=asked(["mean", "weighted_exp"], models=2, values=UNIT),
        form=st.sampled_from(("removed", "kept")),
        direction=st.sampled_from(("higher", "lower")),
    )
    def test_shares_of_the_target(self, own: Asked, form: Any, direction: str) -> None:
        """The target has lost nothing of itself; what is kept is a share."""
        made = metric(own.kind, direction)
        found = calibrate(made, form, own.rows(0), own.rows(1), [])
        itself = calibrate(made, form, own.rows(1), own.rows(1), [])
        assert math.isnan(itself.value) or itself.value == (0 if form == "removed" else 1)
        assert math.isnan(found.value) or found.value <= 1
        assert form == "removed" or math.isnan(found.value) or found.value >= 0

    @bounded(60)
    @given(
        own=asked(models=3, values=VALUES | st.sampled_from((math.nan, math.inf, -math.inf))),
        form=st.sampled_from(("reached", "removed", "kept")),
        lacking=st.sets(st.integers(0, 2)),
    )
    def test_what_is_missing_is_never_a_number(
        self, own: Asked, form: Any, lacking: set[int]
    ) -> None:
        sides = [[] if n in lacking else own.rows(n) for n in range(3)]
        found = calibrate(own.metric, form, *sides)
        assert not math.isinf(found.value)
        assert math.isnan(found.value) == bool(found.reason)
        if lacking & ({0, 1, 2} if form == "reached" else {0, 1}):
            assert math.isnan(found.value)


class TestOverall:
    COLUMNS: ClassVar[Any] = {
        "forget": {"a": ("a.x", "a.y")},
        KEEP: {"b": ("b.x", "b.y"), "c": ("c.x",)},
    }
    NAMES = ("a.x", "a.y", "b.x", "b.y", "c.x")

    def overall(self, values: list[float]) -> combined.Overall:
        scores = {n: Calibrated("kept", v) for n, v in zip(self.NAMES, values, strict=True)}
        return overall(("forget",), self.COLUMNS, scores)

    @bounded(80)
    @given(
        values=st.lists(st.floats(-2, 1), min_size=5, max_size=5),
        index=st.integers(0, 4),
        more=UNIT,
    )
    def test_more_of_any_column_is_never_less(
        self, values: list[float], index: int, more: float
    ) -> None:
        better = [*values]
        better[index] = min(1.0, better[index] + more)
        before, after = self.overall(values), self.overall(better)
        assert 0 <= before.value <= after.value + CLOSE <= 1 + 2 * CLOSE
        assert min(before.gain, before.keep) - CLOSE <= before.value
        assert before.value <= max(before.gain, before.keep) + CLOSE

    @bounded(40)
    @given(values=st.lists(UNIT, min_size=5, max_size=5), index=st.integers(0, 4))
    def test_one_missing_column_makes_it_missing(self, values: list[float], index: int) -> None:
        found = self.overall([*values[:index], math.nan, *values[index + 1 :]])
        assert math.isnan(found.value)
        assert found.reason == f"{self.NAMES[index]} is missing"

    @bounded(100)
    @given(shares=st.lists(UNIT | st.just(math.nan), min_size=1, max_size=5))
    def test_harmonic_means(self, shares: list[float]) -> None:
        """Between the least and the most; 0 as soon as one is, missing as soon as one is."""
        found = harmonic_mean(shares)
        element_by_element = float(combined.harmonic_mean([np.array([s]) for s in shares])[0])
        if any(math.isnan(share) for share in shares):
            assert math.isnan(found)
            assert math.isnan(element_by_element)
            return
        assert near(found, element_by_element)
        assert (found == 0) == (not all(shares)) or min(shares) < 1e-300
        assert min(shares) * (1 - CLOSE) - 1e-300 <= found <= max(shares) * (1 + CLOSE)


class TestObjective:
    GOALS = ("forget", "update", "detoxify")

    @staticmethod
    def values(data: st.DataObject, names: tuple[str, ...]) -> dict[str, float]:
        known = data.draw(st.lists(UNIT, min_size=len(names), max_size=len(names)))
        return {
            name: 20 + 80 * value if "perplexity" in name else value
            for name, value in zip(names, known, strict=True)
        }

    @bounded(80)
    @given(data=st.data(), goals=st.sets(st.sampled_from(GOALS), min_size=1))
    def test_every_part_is_a_share_or_missing(self, data: st.DataObject, goals: set[str]) -> None:
        names = metrics_read(goals)
        found = objective(goals, *(self.values(data, names) for _ in range(3)))
        for value in (found.value, found.gain, found.keep, *found.gains.values()):
            assert math.isnan(value) or 0 <= value <= 1
        assert math.isnan(found.value) == (math.isnan(found.gain) or math.isnan(found.keep))

    @bounded(60)
    @given(data=st.data(), goals=st.sets(st.sampled_from(GOALS), min_size=1), gone=st.booleans())
    def test_a_missing_metric_is_no_bad_score(
        self, data: st.DataObject, goals: set[str], gone: bool
    ) -> None:
        names = metrics_read(goals)
        edited, target = self.values(data, names), self.values(data, names)
        lost = data.draw(st.sampled_from(names))
        edited[lost] = math.nan
        if gone:
            del edited[lost]
        keeps_nothing = lost in GIBBERISH and sum(target[name] for name in GIBBERISH) == 3
        assume(not keeps_nothing)  # what the target has nothing of cannot be lost
        if "_rouge_l" in lost and "retain" in lost:
            assume(any(target[name] for name in names if "retain" in name and "rouge" in name))
        assert math.isnan(objective(goals, edited, target, None).value)


class TestAgreement:
    PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12)

    @bounded(80)
    @given(pairs=PAIRS)
    def test_kappa(self, pairs: list[tuple[bool, bool]]) -> None:
        first, second = (np.array([pair[n] for pair in pairs], dtype=bool) for n in (0, 1))
        value, stderr = kappa(first, second)
        assert near(value, kappa(second, first)[0])
        assert near(stderr, kappa(second, first)[1])
        assert near(value, kappa(~first, ~second)[0])
        assert math.isnan(value) or (-1 - CLOSE <= value <= 1)
        assert math.isnan(value) or (value == 1) == bool((first == second).all())
        assert math.isnan(value) == (
            not pairs or (len(set(pairs)) == 1 and len(set(pairs[0])) == 1)
        )


class TestTrace:
    MEASURES: ClassVar[Any] = {"safety": {"a": "up", "b": "down"}}
    VALUES = st.lists(UNIT | st.just(math.nan), min_size=2, max_size=2)

    @staticmethod
    def scores(values: list[float]) -> list[Score]:
        ways: list[Any] = ["higher", "lower"]
        named = zip("ab", ("up", "down"), values, ways, strict=True)
        return [Score(task, name, value, 0.1, 4, 0, way, "") for task, name, value, way in named]

    @bounded(60)
    @given(before=VALUES, after=VALUES)
    def test_back_again_is_the_other_sign_and_missing_is_left_out(
        self, before: list[float], after: list[float]
    ) -> None:
        sides = self.scores(before), self.scores(after)
        (there,) = trace.trace_deltas(*sides, self.MEASURES)
        (back,) = trace.trace_deltas(*sides[::-1], self.MEASURES)
        assert near(there.value, -back.value)
        gaps = [after[0] - before[0], before[1] - after[1]]
        known = [gap for gap in gaps if not math.isnan(gap)]
        assert near(there.value, sum(known) / len(known) if known else math.nan)
        assert len(there.missing) == 2 - len(known)


class TestSameProtocol:
    LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(("a", "b", "none"))
    TASKS = st.dictionaries(
        st.sampled_from(("t", "u")),
        st.fixed_dictionaries({}, optional={"limit": LEAVES, "data_sha256": LEAVES}),
        max_size=2,
    )
    FACTS = st.fixed_dictionaries(
        {"suite": st.fixed_dictionaries({"tasks": TASKS}, optional={"part": LEAVES})},
        optional={
            "format": LEAVES,
            "engine": st.dictionaries(st.sampled_from(("name", "dtype")), LEAVES),
            "scorer": st.dictionaries(st.sampled_from(("name", "version")), LEAVES),
            "target": st.fixed_dictionaries({"edit_set": st.fixed_dictionaries({"name": LEAVES})}),
            "versions": st.dictionaries(st.sampled_from(("lm-eval", "torch")), LEAVES),
            "decoding": st.dictionaries(
                st.sampled_from(("t", "u")),
                st.dictionaries(st.sampled_from(("temperature", "repeats")), LEAVES),
            ),
            "evaluation_code_sha256": LEAVES,
        },
    )  # fmt: skip

    @bounded(100)
    @given(one=FACTS, other=FACTS)
    def test_a_mismatch_is_one_from_both_sides(self, one: Any, other: Any) -> None:
        there = {(m.field, m.first, m.second) for m in mismatches(one, other)}
        back = {(m.field, m.second, m.first) for m in mismatches(other, one)}
        assert there == back
        assert not mismatches(one, one)
        if there:
            with pytest.raises(IncomparableError):
                require_same_protocol(one, other, ("one", "other"))
        else:
            require_same_protocol(one, other, ("one", "other"))


@bounded(60)
@given(spread=UNIT, clusters=st.integers(0, 60), binary=st.booleans())
def test_more_clusters_find_smaller_differences(spread: float, clusters: int, binary: bool) -> None:
    few, many = (
        minimum_detectable_effect(spread, size, binary=binary) for size in (clusters, clusters + 1)
    )
    assert math.isnan(few) or many <= few
    assert math.isnan(few) or few >= 0
    assert minimum_detectable_effect(spread, clusters, power=0.9) >= few - 1 or math.isnan(few)


def test_every_reduction_is_drawn() -> None:
    assert set(KINDS) == {*REDUCTIONS, "auc"}
