"""The gate, whatever the rules: what is missing is no pass, and what is worse passes no sooner."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.property.bounds import bounded
from tests.property.columns import LIKELIHOODS, SHARES, VALUES, Asked, asked
from unlearn_bench.compare import gate
from unlearn_bench.compare.gate import Judgement, exit_code, judge
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.rules import Chosen, Rule
from unlearn_bench.schema import Direction, ItemScore

RESAMPLES = 200
KINDS = ("mean", "weighted_exp", "bits", "macro_mean")
SIZES = st.floats(0, 5) | st.just(0.0)
RULES = st.builds(Rule, margin=SIZES, required=st.booleans()) | st.builds(
    Rule, relative=SIZES, required=st.booleans()
)
LEVELS = st.floats(0.001, 0.499)
DIRECTIONS: st.SearchStrategy[Direction] = st.sampled_from(("higher", "lower"))
Rows = list[ItemScore]


def judged(
    rules: Sequence[Chosen], baseline: Sequence[Rows], candidate: Sequence[Rows], level: float
) -> list[Judgement]:
    """Every rule's metric has the same rows, so each is judged of its own accord."""
    first, second = (
        [{rule.measure.name: rows for rule in rules if rows} for rows in side]
        for side in (baseline, candidate)
    )
    return judge(rules, first, second, level, RESAMPLES)


def chosen(kind: str, direction: Direction, rule: Rule, name: str = "m") -> Chosen:
    return Chosen(Measure("t", name, kind, direction, ""), rule)


def without(rows: Rows, index: int) -> Rows:
    return rows[:index] + rows[index + 1 :]


def with_value(value: float) -> Callable[[Rows, int], Rows]:
    return lambda rows, n: [*rows[:n], replace(rows[n], value=value), *rows[n + 1 :]]


HARM: dict[str, Callable[[Rows, int], Rows]] = {
    "missing": with_value(math.nan),
    "infinite": with_value(math.inf),
    "infinite the other way": with_value(-math.inf),
    "fewer": without,
    "none": lambda rows, n: [],
    "more": lambda rows, n: [*rows, replace(rows[n], item_id="another")],
    "twice": lambda rows, n: [*rows, rows[n]],
    "another": lambda rows, n: [*without(rows, n), replace(rows[n], item_id="another")],
    "another weight": lambda rows, n: [*without(rows, n), replace(rows[n], weight=99.0)],
}


@pytest.mark.parametrize("harm", HARM)
@bounded(40)
@given(
    own=asked(KINDS, models=4),
    seeds=st.integers(1, 2),
    rules=st.lists(RULES, min_size=1, max_size=3),
    direction=DIRECTIONS,
    level=LEVELS,
    data=st.data(),
)
def test_what_the_candidate_lacks_is_never_a_pass(
    harm: str,
    own: Asked,
    seeds: int,
    rules: list[Rule],
    direction: Direction,
    level: float,
    data: st.DataObject,
) -> None:
    """In one of its seeds, of one item, under any rules; only what no rule requires may be skipped,
    and only where the candidate was not asked it at all.
    """
    baseline = [own.rows(n) for n in range(seeds)]
    candidate = [own.rows(2 + n) for n in range(seeds)]
    broken = data.draw(st.integers(0, seeds - 1))
    index = data.draw(st.integers(0, len(own.groups) - 1))
    candidate[broken] = HARM[harm](candidate[broken], index)
    some = [chosen(own.kind, direction, rule, f"m{n}") for n, rule in enumerate(rules)]
    found = judged(some, baseline, candidate, level)
    for one, rule in zip(found, rules, strict=True):
        skipped = not any(candidate) and not rule.required
        assert one.outcome == ("skipped" if skipped else "incomplete")
        assert one.reason
    assert exit_code(found) == 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the infinite
@bounded(60)
@given(
    own=asked(KINDS, models=2, values=VALUES | st.sampled_from((-2e4, 2e4, -1e308, 1e308))),
    rule=RULES,
    direction=DIRECTIONS,
    level=LEVELS,
)
def test_a_number_that_is_not_finite_is_never_a_pass(
    own: Asked, rule: Rule, direction: Direction, level: float
) -> None:
    """Every item has a finite value, and what is made of them overflows."""
    (found,) = judged([chosen(own.kind, direction, rule)], [own.rows(0)], [own.rows(1)], level)
    assert found.loss is None or not math.isnan(found.loss.value)
    if found.loss is not None and not math.isfinite(found.loss.found.first):
        assert exit_code([found]) != 0


@bounded(60)
@given(
    own=asked(KINDS, models=2, values=VALUES | st.just(math.nan)),
    rule=RULES,
    direction=DIRECTIONS,
    level=LEVELS,
)
def test_a_candidate_like_its_baseline_does_not_fail(
    own: Asked, rule: Rule, direction: Direction, level: float
) -> None:
    """Nor does it pass by being as empty as that."""
    rows = own.rows()
    (found,) = judged([chosen(own.kind, direction, rule)], [rows], [rows], level)
    assert found.outcome != "regression"
    if all(math.isnan(row.value) for row in rows):
        assert found.outcome == "incomplete"


@st.composite
def worsened(draw: st.DrawFn) -> tuple[Asked, Direction]:
    """Three models of which the third is the second and, in some items, worse."""
    values = draw(st.sampled_from((VALUES, SHARES)))
    own = draw(asked(KINDS, models=2, values=values, least=6, most=24))
    direction = draw(DIRECTIONS)
    size = len(own.groups)
    steps = draw(st.lists(st.integers(0, 32), min_size=size, max_size=size))
    turned = own.kind in LIKELIHOODS  # the less likely, the more of it
    sign = -1 if (direction == "higher") != turned else 1
    worse = tuple(v + sign * s / 16 for v, s in zip(own.models[1], steps, strict=True))
    return replace(own, models=(*own.models, worse)), direction


@bounded(80)
@given(case=worsened(), rule=RULES, level=LEVELS)
def test_a_worse_candidate_never_passes_what_a_better_one_failed(
    case: tuple[Asked, Direction], rule: Rule, level: float
) -> None:
    own, direction = case
    rules = [chosen(own.kind, direction, rule)]
    before, after = (judged(rules, [own.rows(0)], [own.rows(n)], level)[0] for n in (1, 2))
    assume(before.loss and after.loss)  # not where all items are of one cluster
    assert before.loss is not None
    assert after.loss is not None
    assert after.loss.value >= before.loss.value - 1e-9 * abs(before.loss.value)
    if before.outcome == "regression":
        assert after.outcome != "pass"
    if after.outcome == "pass":
        assert before.outcome == "pass"


@bounded(80)
@given(
    own=asked(KINDS, models=2, least=6, most=20),
    direction=DIRECTIONS,
    sizes=st.tuples(SIZES, SIZES),
    relative=st.booleans(),
    levels=st.tuples(LEVELS, LEVELS),
)
def test_a_wider_margin_or_a_stricter_level_never_fails_more(
    own: Asked,
    direction: Direction,
    sizes: tuple[float, float],
    relative: bool,
    levels: tuple[float, float],
) -> None:
    def failed(size: float, level: float) -> bool:
        rule = Rule(relative=size) if relative else Rule(margin=size)
        rules = [chosen(own.kind, direction, rule)]
        found = judged(rules, [own.rows(0)], [own.rows(1)], level)
        return found[0].outcome == "regression"

    (narrow, wide), (strict, loose) = sorted(sizes), sorted(levels)
    assert failed(narrow, loose) >= failed(wide, loose) >= failed(wide, strict)


@bounded(60)
@given(own=asked(KINDS, models=2, least=6), rule=RULES, direction=DIRECTIONS, level=LEVELS)
def test_more_metrics_never_fail_a_metric_that_passed(
    own: Asked, rule: Rule, direction: Direction, level: float
) -> None:
    """Holm: the same metric, alone and beside two others of any outcome."""
    rules = [chosen(own.kind, direction, rule, name) for name in ("m", "n", "o")]
    alone, beside = (
        judged(some, [own.rows(0)], [own.rows(1)], level)[0] for some in (rules[:1], rules)
    )
    assume(alone.loss)
    assert alone.loss is not None
    assert alone.loss.p <= alone.p_adjusted <= beside.p_adjusted <= 1
    assert (beside.outcome == "regression") <= (alone.outcome == "regression")


OUTCOMES = st.sampled_from(("pass", "cannot tell", "regression", "incomplete", "skipped"))


@bounded(60)
@given(outcomes=st.lists(OUTCOMES, max_size=5), more=OUTCOMES)
def test_exit_codes(outcomes: list[Any], more: Any) -> None:
    """0 only if something was judged and nothing failed or lacked; no further fault makes it 0."""
    measure = Measure("t", "m", "mean", "higher", "")
    code = exit_code([Judgement(measure, outcome) for outcome in outcomes])
    judged_well = {"pass", "cannot tell"} & set(outcomes)
    assert (code == 0) == bool(judged_well and set(outcomes) <= {*judged_well, "skipped"})
    assert (code == 1) == ("regression" in outcomes)
    assume(more in ("regression", "incomplete", "skipped") and code)
    assert exit_code([Judgement(measure, outcome) for outcome in (*outcomes, more)]) != 0


@bounded(60)
@given(own=asked(KINDS, models=2, values=VALUES | st.sampled_from((math.nan, math.inf)), least=1))
def test_what_can_be_tested_is_what_is_judged(own: Asked) -> None:
    """A metric of the baseline that is not testable against itself is none that the gate judges,
    but for what is wrong with its values.
    """
    measure = Measure("t", "m", own.kind, "higher", "")
    rows = {"t.m": own.rows(0)}
    testable = gate.testable_metrics([measure], [rows]) == ["t.m"]
    (found,) = judge([Chosen(measure, Rule(margin=0.0))], [rows], [rows], 0.05, RESAMPLES)
    if not testable:
        assert found.reason == "too few independent items to test"
    assert testable or found.outcome == "incomplete"
