"""What a request may look like, which subjects it means, and which methods can serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlearn_bench.config import RunConfig
from unlearn_bench.data.fur import FurData, load_fur
from unlearn_bench.errors import UsageError
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs.requests import find_obstacle, parse_requests


@pytest.fixture(scope="module")
def fur() -> FurData:
    return load_fur()


def ids(fur: FurData, role: Any) -> list[str]:
    return [subject.id for subject in fur.select("test", role)]


def test_the_default_is_half_of_what_must_go_then_all_updates_then_the_rest(fur: FurData) -> None:
    first, second, third = parse_requests(RunConfig.model_fields["requests"].default, fur)
    assert [r.kind for r in (first, second, third)] == ["forget", "update", "forget"]
    assert len(first.subjects) == len(third.subjects) == 8
    assert list(second.subjects) == ids(fur, "update")
    assert sorted(first.subjects + third.subjects) == sorted(ids(fur, "forget"))


@pytest.mark.parametrize("kind", ["forget", "update"])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7, 12])
def test_parts_hold_every_subject_exactly_once(fur: FurData, kind: str, parts: int) -> None:
    text = ",".join(f"{kind}:{part}/{parts}" for part in range(1, parts + 1))
    requests = parse_requests(text, fur)
    assert sorted(s for request in requests for s in request.subjects) == sorted(ids(fur, kind))
    sizes = [len(request.subjects) for request in requests]
    assert max(sizes) - min(sizes) <= 1


def test_halves_are_alike_in_kind(fur: FurData) -> None:
    """The file lists ten people, then three places, then three organisations: 5 + 5 people."""
    kinds = {subject.id: subject.kind for subject in fur.subjects}
    first, second = parse_requests("forget:1/2, forget:2/2", fur)
    assert [kinds[s] for s in first.subjects].count("person") == 5
    assert [kinds[s] for s in second.subjects].count("person") == 5


def test_a_request_knows_the_facts_of_its_subjects_and_no_other(fur: FurData) -> None:
    (request,) = parse_requests("update:2/3", fur)
    facts = {fact.id for s in fur.subjects if s.id in request.subjects for fact in s.facts}
    assert set(request.facts) == facts
    assert len(request.facts) == 5 * len(request.subjects)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no request"),
        ("forget,", "no request"),
        ("retain", "no request"),
        ("holdout:1/2", "no request"),
        ("forget:1", "no request"),
        ("forget:a/b", "no request"),
        ("forget:-1/2", "no request"),
        ("forget 1/2", "no request"),
        ("FORGET", "no request"),
        ("forget:0/2", "part 0 of 2"),
        ("forget:3/2", "part 3 of 2"),
        ("forget:1/0", "part 1 of 0"),
        ("forget:17/17", "empty: there are 16 subjects to forget"),
        ("update:13/100000", "empty: there are 12 subjects to update"),
        ("forget,forget", "overlap in forget-person-01"),
        ("forget:1/2,update,forget", "overlap in forget-person-01"),
        ("forget:1/2,forget:1/3", "overlap"),
        ("forget:1/2,forget:1/4", "overlap"),
    ],
)
def test_anything_else_is_refused_and_the_message_names_the_form(
    fur: FurData, text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_requests(text, fur)
    assert "kind:i/n" in str(caught.value)
    assert caught.value.exit_code == 2


def card(name: str = "mine", **facts: Any) -> Card:
    return Card("method", name, Path("mine.py"), "", facts)


def test_a_method_serves_what_its_sets_and_goals_allow() -> None:
    assert not find_obstacle(card(needs=("forget", "retain")), "forget")
    assert "the set forget" in find_obstacle(card(needs=("forget", "retain")), "update")
    assert "old and update" in find_obstacle(card(needs=("old", "update")), "forget")
    every = {"needs": ("forget", "old", "update"), "optional": ("forget", "old", "update")}
    assert not find_obstacle(card(**every), "forget")
    assert not find_obstacle(card(**every), "update")
    assert "is there to update" in find_obstacle(card(**every, goals=("update",)), "forget")
    assert not find_obstacle(card(needs=("exact",)), "update")
    assert not find_obstacle(card(needs=(), control=True, goals=()), "forget")
    assert "nothing that a request" in find_obstacle(card(needs=("toxic", "clean")), "forget")


def test_which_of_the_shipped_methods_serve_which_request() -> None:
    cards = list_cards("method")
    both = ("llm_surgery", "exact_unlearning", "fine_tuning", "random_noise")
    for name in (*both, "grad_diff", "npo", "gradient_ascent"):
        assert not find_obstacle(cards[name], "forget"), name
        assert bool(find_obstacle(cards[name], "update")) == (name not in both), name
    for name in ("model_surgery", "model_surgery_random_probe", "dinm", "pke", "ext_sub"):
        assert find_obstacle(cards[name], "forget"), name
        assert find_obstacle(cards[name], "update"), name
    for name in ("rome", "memit"):
        assert "the set update" in find_obstacle(cards[name], "forget")
        assert not find_obstacle(cards[name], "update"), name
