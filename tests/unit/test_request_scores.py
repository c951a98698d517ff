"""Scores of one request's own items, by hand."""

from __future__ import annotations

import math

import pytest

from unlearn_bench.compare.requests import metrics_of, score_request, score_undone
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.schema import ItemScore

FUR = find_protocol("fur")


def item(fact: str, metric: str, value: float, phrasing: str = "verbatim") -> ItemScore:
    return ItemScore("fur", metric, f"{fact}:{phrasing}", "", value, 1.0)


STRENGTH = "forget_extraction_strength"
ITEMS = [
    item("a.town", STRENGTH, 1.0),
    item("a.year", STRENGTH, 0.5),
    item("b.town", STRENGTH, 0.0),
    item("b.year", STRENGTH, 0.25),
    item("a.town", "forget_choice_acc", 1.0),
    item("a.town", "forget_paraphrase_extraction_strength", 0.75, "paraphrase1"),
    item("u.town", "update_efficacy", 1.0),
    item("a.town", "retain_neighbour_extraction_strength", 1.0),
    ItemScore("quiz", STRENGTH, "a.town:verbatim", "", 0.0, 1.0),
]


def test_only_the_requests_own_items_count() -> None:
    """(1 + 1/2) / 2 = 0.75 with sd √(2·0.25²) = 0.3536, so the standard error is that / √2 = 0.25.
    Over both subjects the mean would be 0.4375.
    """
    scores = {
        s.metric: s for s in score_request("forget:1/2", "forget", {"a.town", "a.year"}, ITEMS, FUR)
    }
    assert scores[STRENGTH].value == 0.75
    assert scores[STRENGTH].stderr == pytest.approx(0.25)
    assert scores[STRENGTH].n == 2
    assert {s.task for s in scores.values()} == {"forget:1/2"}
    assert scores["forget_paraphrase_extraction_strength"].value == 0.75
    assert scores["forget_choice_acc"].direction == "nearer_exact"
    assert set(scores) == set(metrics_of("forget", FUR))
    assert not any("update" in name or "retain" in name for name in scores)


def test_what_was_not_asked_is_missing_and_not_zero() -> None:
    scores = score_request("update", "update", {"u.town"}, ITEMS, FUR)
    found = {s.metric: s for s in scores}
    assert found["update_efficacy"].value == 1.0
    assert math.isnan(found["update_new_choice_acc"].value)
    assert found["update_new_choice_acc"].n == 0


def test_relearned_is_the_mean_of_paired_differences() -> None:
    """a.town rose by 1/2, a.year fell by 1/4: (1/2 − 1/4) / 2 = 1/8, sd = 0.5303, / √2 = 0.375.
    Unpaired errors would give √(0.25² + 0.125²) = 0.28.
    """
    then = [item("a.town", STRENGTH, 0.5), item("a.year", STRENGTH, 0.75)]
    now = [
        item("a.year", STRENGTH, 0.5),
        item("a.town", STRENGTH, 1.0),
        item("b.town", STRENGTH, 9),
    ]
    found = score_undone("forget:1/2", "forget", {"a.town", "a.year"}, then, now)
    assert (found.task, found.metric, found.direction) == ("forget:1/2", "relearned", "lower")
    assert found.value == 0.125
    assert found.stderr == pytest.approx(0.375)
    assert (found.n, found.missing) == (2, 0)


def test_a_lost_update_counts_up() -> None:
    then = [item("u.town", "update_efficacy", 1.0), item("u.year", "update_efficacy", 0.0)]
    now = [item("u.town", "update_efficacy", 0.0), item("u.year", "update_efficacy", 0.0)]
    found = score_undone("update", "update", {"u.town", "u.year"}, then, now)
    assert (found.metric, found.value) == ("lost", 0.5)


def test_an_item_without_both_values_is_missing() -> None:
    then = [item("a.town", STRENGTH, math.nan), item("a.year", STRENGTH, 0.25)]
    now = [
        item("a.town", STRENGTH, 1.0),
        item("a.year", STRENGTH, 0.25),
        item("a.new", STRENGTH, 1),
    ]
    found = score_undone("forget", "forget", {"a.town", "a.year", "a.new"}, then, now)
    assert (found.value, found.n, found.missing) == (0.0, 1, 2)
