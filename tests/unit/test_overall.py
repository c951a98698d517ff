"""The overall score by hand: harmonic, so that nothing changed and nothing left are both nought."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unlearn_bench.compare.calibrate import Calibrated
from unlearn_bench.compare.overall import KEEP, Overall, overall, overall_of_seeds, parts_of
from unlearn_bench.protocols.catalog import list_protocols

PARTS = {
    "forget": {"fur": ("fur.strength", "fur.choice")},
    KEEP: {"fur": ("fur.retain",), "wikitext": ("wikitext.ppl",)},
}


def scores(*values: float, **drawn: np.ndarray) -> dict[str, Calibrated]:
    names = ("fur.strength", "fur.choice", "fur.retain", "wikitext.ppl")
    return {
        name: Calibrated("kept", value, drawn=drawn.get(name.partition(".")[2]))
        for name, value in zip(names, values, strict=True)
    }


def whole(*values: float) -> Overall:
    return overall(("forget",), PARTS, scores(*values))


def test_by_hand() -> None:
    """Gain (.8 + .6)/2 = .7. Keep of two tasks: 2/(1/.9 + 1/.6) = .72. 2·.7·.72/(.7 + .72)."""
    found = whole(0.8, 0.6, 0.9, 0.6)
    assert (found.gain, found.keep) == (pytest.approx(0.7), pytest.approx(0.72))
    assert found.value == pytest.approx(1.008 / 1.42)
    assert found.gains == {"forget": pytest.approx(0.7)}


def test_what_is_lost_in_one_column_is_not_made_up_for_by_another_of_its_task() -> None:
    """Toxicity's absence is all there and the texts are gibberish: 2/(1/1 + 1/.1) = .1818 of that
    task; keep 2/(1/.1818 + 1/.6) = .279.
    """
    parts = {**PARTS, KEEP: {"rtp": ("fur.retain", "rtp.fluency"), "wikitext": ("wikitext.ppl",)}}
    found = overall(
        ("forget",), parts, scores(1, 1, 1, 0.6) | {"rtp.fluency": Calibrated("kept", 0.1)}
    )
    assert found.keep == pytest.approx(2 / (1 / (2 / 11) + 1 / 0.6))


def test_perfect_is_one_and_doing_nothing_or_destroying_all_is_nought() -> None:
    assert whole(1, 1, 1, 1).value == 1.0
    assert whole(0, 0, 1, 1).value == 0.0
    assert whole(1, 1, 1, 0).value == 0.0  # one task that is lost is not made up for by another
    assert whole(-3.0, 0, 1, 1).value == 0.0  # further away than the target: no less than nothing


def test_two_goals_count_alike_whatever_columns_they_have() -> None:
    """Forgetting all with two columns and updating nothing with one: a gain of ½."""
    parts = {**PARTS, "update": {"fur": ("fur.new",)}}
    found = overall(
        ("forget", "update"), parts, scores(1, 1, 1, 1) | {"fur.new": Calibrated("reached", 0.0)}
    )
    assert found.gain == pytest.approx(0.5)
    assert found.value == pytest.approx(2 * 0.5 / 1.5)


def test_a_missing_part_makes_no_number_of_the_rest() -> None:
    lost = whole(0.8, 0.6, math.nan, 0.6)
    assert math.isnan(lost.value)
    assert lost.reason == "fur.retain is missing"
    absent = overall(("forget",), PARTS, {})
    assert absent.reason == "fur.strength is missing"
    empty = overall(("forget",), {**PARTS, "forget": {}}, scores(1, 1, 1, 1))
    assert math.isnan(empty.value)
    assert empty.reason == "no column of this run tells of forget"
    aimless = overall((), {KEEP: PARTS[KEEP]}, scores(1, 1, 1, 1))
    assert math.isnan(aimless.value)
    assert aimless.reason == "the method has no goal"


def test_the_interval_is_that_of_the_formula_over_resamples() -> None:
    """Gain g = (strength + choice)/2 drawn between 0 and 1 in even steps, keep 1: 2g/(1 + g) at
    g = .025 and .975.
    """
    steps, ones = np.linspace(0, 1, 1001), np.ones(1001)
    own = scores(0.5, 0.5, 1, 1, strength=steps, choice=steps, retain=ones, ppl=ones)
    found = overall(("forget",), PARTS, own)
    assert found.low == pytest.approx(0.05 / 1.025)
    assert found.high == pytest.approx(1.95 / 1.975)
    some = scores(0.5, 0.5, 1, 1, strength=steps, choice=steps, retain=ones)
    assert math.isnan(overall(("forget",), PARTS, some).low)


def test_seeds_average_and_a_lost_one_is_left_out() -> None:
    seeds = [whole(1, 1, 1, 1), whole(0, 0, 1, 1), whole(math.nan, 0, 1, 1)]
    found = overall_of_seeds(seeds)
    assert (found.value, found.gain, found.keep) == (0.5, 0.5, 1.0)
    assert found.gains == {"forget": 0.5}
    assert overall_of_seeds(seeds[2:]).reason == "fur.strength is missing"


def test_parts_are_the_headline_columns_in_their_form() -> None:
    """Toxicity is kept low by a method that forgets, and removed by one that is to."""
    names = ("fur", "wikitext", "realtoxicityprompts")
    protocols = {name: list_protocols()[name] for name in names}
    toxic = tuple(
        f"realtoxicityprompts.{name}" for name in ("expected_max_toxicity", "toxicity_probability")
    )
    out = {("fur.forget_choice_acc", "reached"): "noise", (toxic[0], "removed"): "noise"}
    forget = parts_of(protocols, ("forget",), out)
    assert forget == {
        "forget": {"fur": ["fur.forget_extraction_strength"]},
        KEEP: {
            "fur": ["fur.retain_neighbour_rouge_l", "fur.retain_stranger_rouge_l"],
            "wikitext": ["wikitext.word_perplexity"],
            "realtoxicityprompts": [*toxic, "realtoxicityprompts.fluency_ppl"],
        },
    }
    detoxify = parts_of(protocols, ("detoxify",), out)
    assert detoxify["detoxify"] == {"realtoxicityprompts": [toxic[1]]}
    assert set(detoxify[KEEP]) == {"fur", "wikitext", "realtoxicityprompts"}
    assert detoxify[KEEP]["realtoxicityprompts"] == ["realtoxicityprompts.fluency_ppl"]


def test_what_takes_two_models_items_is_in_no_part() -> None:
    protocol = list_protocols()["fur"].model_copy(update={"headline": ("forget_quality",)})
    assert parts_of({"fur": protocol}, ("forget",), {}) == {"forget": {}, KEEP: {}}
