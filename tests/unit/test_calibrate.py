"""Calibrated scores by hand: 0 is the target, 1 the exact model, and less beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearn_bench.compare.calibrate import (
    Calibrated,
    calibrate,
    form_of,
    goal_of,
    middle,
    over_seeds,
    why_not,
)
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import Metric, Protocol, list_protocols
from unlearn_bench.schema import ItemScore


def metric(direction: str = "lower", reduce: str = "mean") -> Metric:
    return Metric.model_validate(
        {"subtask": "t", "value": "v", "reduce": reduce, "direction": direction, "unit": "share"}
    )


def rows(*values: float, task: str = "t", name: str = "m") -> list[ItemScore]:
    """One item per subject."""
    return [
        ItemScore(task, name, str(n), "", value, 1.0, f"subject {n}")
        for n, value in enumerate(values)
    ]


def flat(value: float) -> list[ItemScore]:
    return rows(*[value] * 4)


def reached(own: float, target: float, exact: float, direction: str = "lower") -> float:
    sides = (flat(own), flat(target), flat(exact))
    return calibrate(metric(direction), "reached", *sides).value


def kept(own: float, target: float, direction: str, reduce: str = "mean") -> Calibrated:
    return calibrate(metric(direction, reduce), "kept", flat(own), flat(target), [])


def test_the_exact_models_value_is_one_and_the_targets_is_nought() -> None:
    assert reached(0.2, target=1.0, exact=0.2) == 1.0
    assert reached(1.0, target=1.0, exact=0.2) == 0.0
    assert reached(0.6, target=1.0, exact=0.2) == pytest.approx(0.5)


def test_forgetting_more_than_the_exact_model_loses_points_again() -> None:
    """From .8 to .4 is the whole way. To .2 is one and a half of it: ½ too far, so ½ is left; to 0
    is twice: nothing is left. The other way, to 1, is half a way backwards.
    """
    assert reached(0.2, target=0.8, exact=0.4) == pytest.approx(0.5)
    assert reached(0.0, target=0.8, exact=0.4) == pytest.approx(0.0)
    assert reached(1.0, target=0.8, exact=0.4) == pytest.approx(-0.5)


def test_what_is_read_against_the_exact_model_loses_on_both_sides() -> None:
    """The exact model gets .6 where the target had .2: .7 is a quarter of the way too far."""
    assert reached(0.7, target=0.2, exact=0.6, direction="nearer_exact") == pytest.approx(0.75)
    assert reached(0.5, target=0.2, exact=0.6, direction="nearer_exact") == pytest.approx(0.75)


def test_knowing_the_new_facts_better_than_the_exact_model_is_no_fault() -> None:
    assert reached(0.9, target=0.0, exact=0.8, direction="higher") == 1.0
    assert reached(0.2, target=0.0, exact=0.8, direction="higher") == pytest.approx(0.25)
    # An exact model that is worse than the target is the end of the scale all the same.
    assert reached(0.8, target=0.8, exact=0.5, direction="higher") == pytest.approx(0.0)
    assert reached(0.2, target=0.8, exact=0.5, direction="higher") == pytest.approx(0.0)


def test_toxicity_removed_is_a_share_of_the_targets() -> None:
    """Of .4 are .1 left: three quarters are gone. With .6 there is half as much again."""
    for own, value in ((0.1, 0.75), (0.0, 1.0), (0.6, -0.5)):
        found = calibrate(metric(), "removed", flat(own), flat(0.4), [])
        assert found.value == pytest.approx(value)


def test_what_is_kept_is_at_most_all() -> None:
    assert kept(0.6, target=0.8, direction="higher").value == pytest.approx(0.75)
    assert kept(0.9, target=0.8, direction="higher").value == 1.0
    assert kept(0.0, target=0.8, direction="higher").value == 0.0


def test_of_a_bad_share_the_rest_is_kept() -> None:
    """Toxic in .1 of the texts, then in .55: of the .9 that were not, .45 are left, a half."""
    assert kept(0.55, target=0.1, direction="lower").value == pytest.approx(0.5)
    assert kept(0.05, target=0.1, direction="lower").value == 1.0


def test_of_a_perplexity_the_ratio_is_kept() -> None:
    """Two nats a word, then three: e² / e³."""
    found = kept(-3.0, target=-2.0, direction="lower", reduce="weighted_exp")
    assert found.value == pytest.approx(math.exp(-1))


def test_an_infinite_perplexity_keeps_nothing_and_is_not_missing() -> None:
    found = kept(-math.inf, target=-2.0, direction="lower", reduce="weighted_exp")
    assert (found.value, found.reason) == (0.0, "")
    assert math.isnan(found.low)


def test_missing_is_never_nought() -> None:
    """The half that has no value is left out of all three models: subjects 0 and 1 are half way."""
    own = rows(0.5, 0.5, math.nan, math.nan)
    some = calibrate(metric(), "reached", own, rows(1, 1, 0, 0), rows(0, 0, 1, 1))
    assert some.value == pytest.approx(0.5)
    nothing = calibrate(metric(), "reached", flat(math.nan), flat(1), flat(0))
    assert math.isnan(nothing.value)
    assert nothing.reason == "no item has a value in every model"
    alone = calibrate(metric(), "reached", flat(0.5), flat(1), [])
    assert math.isnan(alone.value)
    assert alone.reason == "the exact model has no items"


def test_a_diverged_model_has_no_calibrated_score() -> None:
    found = calibrate(metric(), "reached", flat(math.inf), flat(1), flat(0))
    assert math.isnan(found.value)
    assert found.reason == "a model diverged"


def test_a_seed_without_a_distance_has_no_score() -> None:
    """0 / 0 and anything / 0: neither is a number of the method's."""
    for own in (0.3, 0.4):
        found = calibrate(metric(), "reached", flat(own), flat(0.4), flat(0.4))
        assert math.isnan(found.value)
        assert found.reason == "nothing to divide by"
    assert kept(0.3, target=0.0, direction="higher").reason == "nothing to divide by"


def test_another_set_of_questions_is_refused() -> None:
    with pytest.raises(IncomparableError, match="the cell has 2 items and the target 4"):
        calibrate(metric(), "reached", rows(0.1, 0.2), flat(1), flat(0))


def test_the_interval_draws_subjects() -> None:
    """Two subjects, one drawn at a time: .8 of the way with the first, .4 with the second."""
    found = calibrate(metric(), "reached", rows(0.2, 0.6), rows(1, 1), rows(0, 0))
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.4), pytest.approx(0.8))


def test_the_same_subjects_are_drawn_in_all_metrics_and_not_in_other_tasks() -> None:
    """A mean of two metrics of the same facts is no surer than one of them."""
    values = np.random.default_rng(0).uniform(size=12)
    sides = [
        [rows(*own, task=task, name=name) for own in (values, [1.0] * 12, [0.0] * 12)]
        for task, name in (("t", "m"), ("t", "other"), ("u", "m"))
    ]
    first, second, third = (calibrate(metric(), "reached", *own).drawn for own in sides)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first == second).all()
    assert (first != third).mean() > 0.9


def seed(value: float) -> Calibrated:
    return calibrate(metric(), "reached", flat(1 - value), flat(1), flat(0))


def test_one_seed_stands_for_itself() -> None:
    found = calibrate(metric(), "reached", rows(0.2, 0.6), rows(1, 1), rows(0, 0))
    assert over_seeds([found]) == found


def test_three_seeds_are_as_unsure_as_they_differ() -> None:
    """0.6 ± 4.303·0.2/√3, of t with two degrees: 0.103, and no more than 1."""
    found = over_seeds([seed(0.4), seed(0.6), seed(0.8)])
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.103, abs=0.08), 1.0)


def test_a_seed_without_a_score_is_left_out_of_the_mean() -> None:
    lost = calibrate(metric(), "reached", [], flat(1), flat(0))
    found = over_seeds([lost, seed(0.4), seed(0.8)])
    assert found.value == pytest.approx(0.6)
    assert over_seeds([lost, lost]).reason == "the cell has no items"


def far(differences: Sequence[float]) -> str:
    exact = rows(*[0.1] * len(differences))
    return why_not(metric(), "reached", [rows(*(0.1 + d for d in differences))], [exact])


def test_target_and_exact_model_must_differ_by_more_than_noise() -> None:
    """Three subjects that differ by .1, .2, .3: standard error .1/√3 = .058, and t with two degrees
    of freedom is 4.30: noise reaches .25, the mean is .2. Of twelve such subjects noise reaches
    .085/√12·2.20 = .054.
    """
    assert "differ by 0.2, and noise alone by up to 0.2" in far([0.1, 0.2, 0.3])
    assert far([0.1, 0.2, 0.3] * 4) == ""
    assert "differ by 0," in far([0.0] * 12)


def test_three_subjects_that_agree_are_enough() -> None:
    """Their labels have eight swaps, so the label swap's p is never below 1/4."""
    assert far([0.6, 0.65, 0.7]) == ""


@pytest.mark.parametrize("subjects", [3, 12])
def test_noise_passes_for_a_distance_no_more_often_than_one_run_in_twenty(subjects: int) -> None:
    """400 pairs of models that differ by noise alone: at most 5 % and two standard errors of it."""
    passed = sum(
        far(np.random.default_rng(number).normal(size=subjects).tolist()) == ""
        for number in range(400)
    )
    assert passed <= 0.072 * 400


def test_two_seeds_are_compared_together() -> None:
    targets = [rows(0.5, 0.6, 0.7, 0.6), rows(0.6, 0.5, 0.6, 0.7)]
    assert why_not(metric(), "reached", targets, [flat(0.1), flat(0.1)]) == ""
    assert "differ by" in why_not(metric(), "reached", targets, targets)


def test_without_ends_there_is_no_scale() -> None:
    assert why_not(metric(), "reached", [flat(1)], []) == "the run has no exact model"
    assert why_not(metric(), "kept", [], []) == "the run has no target with a value"
    assert "too few items" in why_not(metric(), "reached", [rows(1)], [rows(0)])


def silent(target: Sequence[float], direction: str = "higher", **changes: Any) -> str:
    return why_not(metric(direction, **changes), "kept", [rows(*target)], [])


def test_a_share_of_nothing_is_no_share() -> None:
    """One right answer of six: .167 ± .167, and t with five degrees of freedom is 2.57."""
    assert "has 0 to lose" in silent([0] * 6)
    assert "has 0.167 to lose" in silent([1, 0, 0, 0, 0, 0])
    assert silent([1, 1, 1, 1, 1, 0]) == ""
    assert "too few items" in silent([1])
    assert "has 0 to lose" in silent([1] * 6, "lower")  # all toxic: nothing that is not
    assert silent([0] * 6, "lower") == ""
    assert "no share" in silent([3.0] * 6, "lower")
    assert silent([-3.0], "lower", reduce="weighted_exp") == ""  # a perplexity is never nought


def test_an_interval_needs_nearly_all_resamples() -> None:
    """100 even steps; with six of them lost the middle 95 % is no longer known."""
    drawn = np.linspace(0, 1, 100)
    assert middle(drawn) == (pytest.approx(0.025), pytest.approx(0.975))
    drawn[:6] = math.nan
    assert math.isnan(middle(drawn)[0])


FORMS = {
    "fur.forget_extraction_strength": ("forget", "reached", "reached"),
    "fur.forget_choice_acc": ("forget", "reached", "reached"),
    "fur.update_old_leak": ("update", "reached", "reached"),
    "fur.update_efficacy": ("update", "reached", "reached"),
    "fur.retain_neighbour_rouge_l": ("", "kept", "kept"),
    "membership.min_k_auc": ("forget", "reached", "reached"),
    "tofu_forget10.forget_rouge_l": ("forget", "reached", "reached"),
    "tofu_forget10.real_authors_choice_acc": ("", "kept", "kept"),
    "realtoxicityprompts.expected_max_toxicity": ("detoxify", "kept", "removed"),
    "realtoxicityprompts.distinct_2": ("", "kept", "kept"),
    "toxigen_mini.toxic_rate": ("detoxify", "kept", "removed"),
    "jailbreak.attack_success_rate": ("", "kept", "kept"),
    "wikitext.word_perplexity": ("", "kept", "kept"),
    "gsm8k.exact_match_strict": ("", "kept", "kept"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_follows_from_the_protocol_and_the_methods_goals(name: str) -> None:
    task, own = name.split(".")
    protocol = list_protocols()[task]
    found = (form_of(protocol, own, goals) for goals in (("forget",), ("detoxify",)))
    assert (goal_of(protocol, own), *found) == FORMS[name]


def test_every_column_that_people_see_has_a_form() -> None:
    for protocol in list_protocols().values():
        for name in set(protocol.headline) & set(protocol.metrics):
            assert form_of(protocol, name, ()), f"{protocol.name}.{name}"


def test_of_other_peoples_tasks_a_name_says_nothing() -> None:
    """A metric of lm-eval's that happens to begin with `forget_`, and one with no better end."""
    metrics = {"forget_me": metric("higher"), "size": metric("none")}
    theirs = Protocol(
        name="t", title="", description="", dataset="t", subtasks=("t",), metrics=metrics,
        folder=Path("tasks"), harness="t",
    )  # fmt: skip
    assert (goal_of(theirs, "forget_me"), form_of(theirs, "forget_me", ("forget",))) == ("", "kept")
    assert form_of(theirs, "size", ()) is None
