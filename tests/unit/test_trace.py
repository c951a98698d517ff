"""TRACE's deltas by hand: signs, means, and what is named in place of a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.test_aggregate import metric
from unlearn_bench.compare.trace import (
    MEASURES,
    error_over_seeds,
    paired_error,
    trace_deltas,
)
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.schema import Direction, ItemScore, Score


def score(
    name: str,
    value: float,
    direction: Direction = "higher",
    n: int = 10,
    stderr: float = 0.1,
) -> Score:
    task, metric = name.split(".")
    return Score(task, metric, value, stderr, n, 0, direction, "share")


def test_each_kind_is_the_mean_change_of_its_tasks() -> None:
    """General: truthfulqa .40 → .46 and gsm8k .20 → .10, so (.06 − .10) / 2 = −.02.

    Safety, where lower is better: jailbreak .50 → .20 is +.30, toxigen .10 → .20 is −.10; the mean
    is +.10. Nothing was asked about instructions.
    """
    before = [
        score("truthfulqa.mc2", 0.40),
        score("truthfulqa.mc1", 0.90),  # not the measure of its task
        score("gsm8k.exact_match_flexible", 0.20),
        score("jailbreak.attack_success_rate", 0.50, "lower"),
        score("toxigen.toxic_rate", 0.10, "lower"),
    ]
    after = [
        score("truthfulqa.mc2", 0.46),
        score("truthfulqa.mc1", 0.10),
        score("gsm8k.exact_match_flexible", 0.10),
        score("jailbreak.attack_success_rate", 0.20, "lower"),
        score("toxigen.toxic_rate", 0.20, "lower"),
    ]
    general, instructions, safety = trace_deltas(before, after)
    assert general.value == pytest.approx(-0.02)
    assert general.tasks == ("truthfulqa", "gsm8k")
    assert general.missing == ("mmlu", "bbh", "boolq", "piqa", "arc_challenge", "hellaswag")
    assert safety.value == pytest.approx(0.10)
    assert safety.missing == ("realtoxicityprompts",)
    assert math.isnan(instructions.value)
    assert (instructions.tasks, instructions.missing) == ((), ("ifeval",))


@pytest.mark.parametrize(
    "after",
    [
        score("gsm8k.exact_match_flexible", math.nan),  # no value
        score("gsm8k.exact_match_flexible", 0.9, n=9),  # other items
        score("gsm8k_mini.exact_match_flexible", 0.9),  # another set
        score("gsm8k.exact_match_strict", 0.9),  # another metric
    ],
)
def test_a_task_that_cannot_be_compared_is_named_and_not_zero(after: Score) -> None:
    """With zero in its place the mean would be .05; it is truthfulqa's .10 alone."""
    before = [score("truthfulqa.mc2", 0.4), score("gsm8k.exact_match_flexible", 0.2)]
    general = trace_deltas(before, [score("truthfulqa.mc2", 0.5), after])[0]
    assert general.value == pytest.approx(0.1)
    assert "gsm8k" in general.missing


def test_mini_sets_stand_for_their_tasks() -> None:
    before = [score("gsm8k_mini.exact_match_flexible", 0.2)]
    after = [score("gsm8k_mini.exact_match_flexible", 0.5)]
    general = trace_deltas(before, after)[0]
    assert (general.value, general.tasks) == (pytest.approx(0.3), ("gsm8k",))


def test_the_target_against_itself_is_nought() -> None:
    scores = [score("gsm8k.exact_match_flexible", 0.2), score("toxigen.toxic_rate", 0.3, "lower")]
    general, _, safety = trace_deltas(scores, scores)
    assert (general.value, safety.value) == (0.0, 0.0)


def test_other_measures_can_be_given_and_need_a_better_end() -> None:
    measures = {"safety": {"fur": "forget_choice_acc"}}
    scores = [score("fur.forget_choice_acc", 0.2, "nearer_exact")]
    with pytest.raises(IncomparableError, match="nearer_exact"):
        trace_deltas(scores, scores, measures)


def test_the_measures_of_our_own_tasks_are_there() -> None:
    """A metric renamed in a protocol would silently become a missing task."""
    known = list_protocols()
    measures = {task: name for metrics in MEASURES.values() for task, name in metrics.items()}
    own = {task: name for task, name in measures.items() if task in known}
    assert set(own) == {"truthfulqa", "gsm8k", "jailbreak", "realtoxicityprompts", "toxigen"}
    for task, name in own.items():
        assert known[task].metrics[name].unit == "share"


def rows(name: str, values: NDArray[np.float64]) -> list[ItemScore]:
    task, metric = name.split(".")
    return [ItemScore(task, metric, str(n), "", float(v), 1.0) for n, v in enumerate(values)]


def test_a_delta_is_as_sure_as_the_differences_of_its_items() -> None:
    """Items that vary by 1, on which the edit moves answers by sd .1 and .3 only: standard errors
    .1/√400 and .3/√400 of the two differences, and √(.005² + .015²)/2 = .0079 of their mean. As if
    the models had been asked other items it would be .05. Lower is better in one of them.
    """
    generator = np.random.default_rng(0)
    measures = []
    for name, direction, spread in (
        ("truthfulqa.mc2", "higher", 0.1), ("jailbreak.attack_success_rate", "lower", 0.3)
    ):  # fmt: skip
        before = generator.normal(size=400)
        moved = generator.normal(0.2, spread, 400)
        sides = (rows(name, before + moved), rows(name, before))
        measures.append((metric("mean", direction), *sides))
    found = paired_error(measures)
    assert found.stderr == pytest.approx(math.hypot(0.005, 0.015) / 2, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.1)
    assert found.low < 0 < found.high  # +.2 of the one and −.2 of the other
    (alone,) = [paired_error(measures[1:])]
    assert alone.high < -0.15


def test_nothing_to_draw_is_no_certainty() -> None:
    one = (metric("mean"), rows("gsm8k.acc", np.ones(1)), rows("gsm8k.acc", np.zeros(1)))
    for found in (paired_error([one]), paired_error([]), error_over_seeds(0.0, [])):
        assert math.isnan(found.stderr)
        assert math.isnan(found.low)


def test_seeds_have_students_t() -> None:
    """Deltas of .0 and .2 whose items say nothing more: .1 ± 12.7 · .1, and shares end at 1."""
    seeds = [
        paired_error(
            [(metric("mean"), rows("gsm8k.acc", np.full(9, v)), rows("gsm8k.acc", np.zeros(9)))]
        )
        for v in (0.0, 0.2)
    ]
    assert [(one.stderr, one.low, one.high) for one in seeds] == [
        (0, 0, 0), (pytest.approx(0), pytest.approx(0.2), pytest.approx(0.2))
    ]  # fmt: skip
    found = error_over_seeds(0.1, seeds)
    assert found.low < -0.8
    assert found.high == 1.0
