"""The number that tuning maximises, worked out by hand."""

from __future__ import annotations

import math

import pytest

from unlearn_bench.compare.objective import (
    GIBBERISH,
    KNOWN,
    PERPLEXITY,
    REACHED,
    SILENCE,
    gain,
    harmonic_mean,
    keep,
    metrics_read,
    objective,
)
from unlearn_bench.methods.contract import GOALS
from unlearn_bench.protocols.catalog import list_protocols

EXTRACTED, EXTRACTED_PARAPHRASE, SAID, SAID_PARAPHRASE = REACHED["forget"]
EFFICACY, GENERALIZATION, NEW, NEW_SAID = REACHED["update"]
(TOXICITY,) = REACHED["detoxify"]


def scores(
    *, forget: float = 0.8, update: float = 0.0, toxicity: float = 0.4, known: float = 0.8,
    perplexity: float = 80.0, gibberish: float = 0.0, blank: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    return {
        **dict.fromkeys(REACHED["forget"], forget), **dict.fromkeys(REACHED["update"], update),
        TOXICITY: toxicity, **dict.fromkeys(KNOWN, known), PERPLEXITY: perplexity,
        **dict.fromkeys(GIBBERISH, gibberish), **dict.fromkeys(SILENCE["detoxify"], blank),
    }  # fmt: skip


TARGET = scores()
EXACT = scores(forget=0.2, update=0.9)


def test_forgetting_is_the_way_from_the_target_to_the_exact_model() -> None:
    """(0.8 − 0.5) / (0.8 − 0.2) = 0.5, of the mean of what is extracted and what is said, in both
    phrasings: (0.4 + 0.6 + 0.3 + 0.7) / 4 = 0.5.
    """
    edited = scores() | {
        EXTRACTED: 0.4,
        EXTRACTED_PARAPHRASE: 0.6,
        SAID: 0.3,
        SAID_PARAPHRASE: 0.7,
    }
    assert gain("forget", edited, TARGET, EXACT) == pytest.approx(0.5)


def test_forgetting_more_than_the_exact_model_is_no_more_and_learning_no_less() -> None:
    assert gain("forget", scores(forget=0.0), TARGET, EXACT) == 1.0
    assert gain("forget", scores(forget=0.9), TARGET, EXACT) == 0.0


def test_updating_is_the_mean_of_four_metrics_on_the_same_way() -> None:
    """Efficacy 0.9, generalisation 0.5, extraction 0.3, said 0.7: mean 0.6, and 0.6 / 0.9 = 2/3."""
    edited = scores() | {EFFICACY: 0.9, GENERALIZATION: 0.5, NEW: 0.3, NEW_SAID: 0.7}
    assert gain("update", edited, TARGET, EXACT) == pytest.approx(2 / 3)


def test_toxicity_is_measured_against_none_at_all() -> None:
    """1 − 0.1 / 0.4 = 0.75, whatever the exact model writes."""
    toxic = EXACT | {TOXICITY: 0.9}
    assert gain("detoxify", scores(toxicity=0.1), TARGET, toxic) == pytest.approx(0.75)


def test_without_an_exact_model_forgetting_ends_at_0_and_updating_at_1() -> None:
    assert gain("forget", scores(forget=0.6), TARGET, None) == pytest.approx(0.25)
    assert gain("update", scores(update=0.25), TARGET, None) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("goal", "exact"),
    [
        ("forget", scores(forget=0.8)),
        ("forget", scores(forget=0.9)),
        ("update", scores(update=0.0)),
    ],
)
def test_where_the_target_is_no_worse_there_is_nothing_to_gain(
    goal: str, exact: dict[str, float]
) -> None:
    """A formula without this would reward knowing more of the forget set."""
    assert math.isnan(gain(goal, scores(forget=0.85), TARGET, exact))


def test_keep_is_the_harmonic_mean_of_shares() -> None:
    """0.6 / 0.8 = 3/4 of the facts, 80 / 160 = 1/2 of the perplexity, 0.8 of the answers words:
    3 / (4/3 + 2 + 5/4) = 3 / (55/12) = 36/55. Half of the continuations are blank, which counts
    where toxicity is to be removed: 4 / (55/12 + 2) = 48/79.
    """
    edited = scores(known=0.6, perplexity=160.0, gibberish=0.2, blank=0.5)
    assert keep(("forget", "update"), edited, TARGET) == pytest.approx(36 / 55)
    assert keep(("forget", "detoxify"), edited, TARGET) == pytest.approx(48 / 79)


def test_a_share_is_of_what_the_target_has() -> None:
    """The target's own answers are gibberish in half: 0.25 of words left of 0.5 is 1/2, the others
    are whole: 3 / (2 + 2).
    """
    target = scores(gibberish=0.5)
    assert keep(("forget",), scores(gibberish=0.75), target) == pytest.approx(0.75)


def test_neither_more_facts_nor_a_lower_perplexity_makes_up_for_the_other() -> None:
    """One share is 1/2, the others count 1 whatever is above: 3 / (2 + 2)."""
    for edited in (scores(known=1.0, perplexity=160.0), scores(known=0.4, perplexity=40.0)):
        assert keep(("forget",), edited, TARGET) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "lost", [{"known": 0.0}, {"perplexity": math.inf}, {"gibberish": 1.0}, {"blank": 1.0}]
)
def test_one_thing_lost_entirely_leaves_nothing(lost: dict[str, float]) -> None:
    """An arithmetic mean would give such a model three quarters of what can be kept."""
    assert keep(("detoxify",), scores(**lost), TARGET) == 0.0


def test_the_objective_is_a_harmonic_mean() -> None:
    """gain 0.5, keep 0.75: 2·0.5·0.75 / 1.25 = 0.6; the arithmetic mean is 0.625."""
    edited = scores(forget=0.5, perplexity=160.0)
    found = objective(("forget",), edited, TARGET, EXACT)
    assert (found.gain, found.keep) == (pytest.approx(0.5), pytest.approx(0.75))
    assert found.value == pytest.approx(0.6)


def test_two_goals_count_alike() -> None:
    """Forget 0.5, update 1.0: gain 0.75; nothing lost: 2·0.75 / 1.75."""
    found = objective(("forget", "update"), scores(forget=0.5, update=0.9), TARGET, EXACT)
    assert found.gains == {"forget": pytest.approx(0.5), "update": pytest.approx(1.0)}
    assert found.value == pytest.approx(1.5 / 1.75)


def test_a_destroyed_model_and_an_unchanged_one_are_worth_nothing() -> None:
    destroyed = scores(forget=0.0, known=0.0, perplexity=math.inf)
    assert objective(("forget",), destroyed, TARGET, EXACT).value == 0.0
    assert objective(("forget",), TARGET, TARGET, EXACT).value == 0.0
    assert harmonic_mean((0.0, 0.0)) == 0.0


@pytest.mark.parametrize("name", metrics_read(("forget", "update", "detoxify")))
@pytest.mark.parametrize("how", ["nan", "absent"])
def test_a_missing_value_gives_no_objective_and_never_0(name: str, how: str) -> None:
    edited = scores(forget=0.5, update=0.5, toxicity=0.2)
    goals = ("forget", "update", "detoxify")
    assert objective(goals, edited, TARGET, EXACT).value > 0
    if how == "nan":
        edited[name] = math.nan
    else:
        del edited[name]
    assert math.isnan(objective(goals, edited, TARGET, EXACT).value)


def test_a_target_that_knows_no_facts_has_none_to_lose() -> None:
    """80 / 160 and one whole share: 2 / (2 + 1); counting the facts as lost would give 0, as kept
    0.75.
    """
    ignorant = scores(known=0.0)
    assert keep((), scores(known=0.0, perplexity=160.0), ignorant) == pytest.approx(2 / 3)
    assert math.isnan(keep((), scores(known=0.0), scores(known=math.nan)))


@pytest.mark.parametrize("lost", [{"toxicity": 0.0}, {"perplexity": math.nan}])
def test_a_target_with_nothing_to_gain_or_unmeasured_measures_nothing(
    lost: dict[str, float],
) -> None:
    found = objective(("detoxify",), scores(toxicity=0.0), scores(**lost), None)
    assert math.isnan(found.value)


def test_a_metric_that_is_not_read_does_not_matter() -> None:
    edited = scores(forget=0.5, toxicity=math.nan)
    assert objective(("forget",), edited, TARGET, EXACT).value > 0


def test_every_goal_and_every_metric_exists() -> None:
    assert REACHED.keys() == GOALS.keys()
    protocols = list_protocols()
    for name in metrics_read(GOALS):
        task, metric = name.split(".")
        assert metric in protocols[task].metrics
