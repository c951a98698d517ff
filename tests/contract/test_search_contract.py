"""Every method says what it is for, and what tuning may draw of it."""

from __future__ import annotations

import pytest

from unlearn_bench.methods.contract import GOALS
from unlearn_bench.methods.options import resolve_options
from unlearn_bench.methods.search import Choice, search_space
from unlearn_bench.registry import list_cards

CARDS = list_cards("method")


@pytest.mark.parametrize("name", CARDS)
def test_goals_are_known_and_only_controls_have_none(name: str) -> None:
    facts = CARDS[name].facts
    goals = facts.get("goals", ())
    assert isinstance(goals, tuple)
    assert set(goals) <= GOALS.keys()
    assert bool(goals) != bool(facts.get("control"))


@pytest.mark.parametrize("name", CARDS)
def test_every_search_entry_is_an_option_that_takes_its_bounds_and_choices(name: str) -> None:
    """`search_space` refuses all else; here its two ends run together, as tuning may draw them."""
    card = CARDS[name]
    space = search_space(card)
    assert space.keys() == card.facts.get("search", {}).keys()
    ends = [(part.values[0], part.values[-1]) if isinstance(part, Choice) else (part.low, part.high)
            for part in space.values()]  # fmt: skip
    for end in range(2):
        drawn = {option: pair[end] for option, pair in zip(space, ends, strict=True)}
        assert resolve_options(card, drawn).items() >= drawn.items()


@pytest.mark.parametrize("name", CARDS)
def test_what_others_are_compared_with_is_not_chosen_by_a_score(name: str) -> None:
    facts = CARDS[name].facts
    if name == "exact_unlearning" or facts.get("control"):
        assert not facts.get("search")
