"""TRACE's deltas by hand: signs, means, and what is named in place of a number."""

from __future__ import annotations

import math

import pytest

from unlearn_bench.compare.trace import MEASURES, trace_deltas
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.schema import Direction, Score


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
    own = {task: metric for task, metric in measures.items() if task in known}
    assert set(own) == {"truthfulqa", "gsm8k", "jailbreak", "realtoxicityprompts", "toxigen"}
    for task, metric in own.items():
        assert known[task].metrics[metric].unit == "share"


def test_a_delta_is_as_sure_as_its_tasks_together() -> None:
    """truthfulqa: √(.03² + .04²) = .05; gsm8k: √(.12² + .05²) = .13, whichever way is better. Their
    mean's: √(.05² + .13²)/2 = .0696. Safety is jailbreak's √(.06² + .08²) = .1 alone; a task whose
    error is not known leaves that of the mean unknown.
    """
    before = [
        score("truthfulqa.mc2", 0.4, stderr=0.03),
        score("gsm8k.exact_match_flexible", 0.2, stderr=0.12),
        score("jailbreak.attack_success_rate", 0.5, "lower", stderr=0.06),
    ]
    after = [
        score("truthfulqa.mc2", 0.5, stderr=0.04),
        score("gsm8k.exact_match_flexible", 0.1, stderr=0.05),
        score("jailbreak.attack_success_rate", 0.2, "lower", stderr=0.08),
    ]
    general, instructions, safety = trace_deltas(before, after)
    assert general.stderr == pytest.approx(math.sqrt(0.0025 + 0.0169) / 2)
    assert safety.stderr == pytest.approx(0.1)
    assert math.isnan(instructions.stderr)
    unsure = trace_deltas(
        before, [*after[:1], score(after[1].task + ".exact_match_flexible", 0.1, stderr=math.nan)]
    )[0]
    assert unsure.value == pytest.approx(0.0)
    assert math.isnan(unsure.stderr)
