"""What makes two cells incomparable is refused by name; what is compared may differ."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.stored_cells import DECODING, facts
from unlearn_bench.compare.same_protocol import mismatches, notes, require_same_protocol
from unlearn_bench.errors import IncomparableError


def both(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {**facts(), "decoding": DECODING}, {**facts(**changes), "decoding": DECODING}


@pytest.mark.parametrize(
    ("field", "value", "before"),
    [
        ("suite.samples_per_prompt", 25, "4"),
        ("suite.paraphrases", None, "1"),
        ("suite.part", "validation", "test"),
        ("suite.tasks.quiz.limit", None, "40"),
        ("suite.tasks.quiz.data_sha256", "other", "d"),
        ("suite.tasks.quiz.protocol_sha256", "other", "p"),
        ("suite.tasks.quiz.definition_sha256", "new", "absent"),
        ("scorer.name", "other", "fake"),
        ("scorer.version", "2", "1"),
        ("scorer.weights_sha256", "other", "w"),
        ("engine.name", "vllm", "fake"),
        ("engine.dtype", "bfloat16", "float32"),
        ("edit_set.name", "tofu", "fur"),
        ("edit_set.sha256", "other", "e"),
        ("evaluation_code_sha256", "other", "c"),
        ("versions.lm-eval", "0.5", "0.4.13"),
        ("format", 2, "1"),
    ],
)
def test_a_protocol_field_that_differs_is_named_with_both_values(
    field: str, value: Any, before: str
) -> None:
    path = field.replace(".", "__")
    path = f"target__{path}" if field.startswith("edit_set") else path
    first, second = both(**{path: value})
    (found,) = mismatches(first, second)
    after = "all" if value is None else str(value)
    assert (found.field, found.first, found.second) == (field, before, after)
    with pytest.raises(IncomparableError, match=f"{field} is {before} in a and {after} in b"):
        require_same_protocol(first, second, ("a", "b"))


def test_another_decoding_is_refused() -> None:
    first, second = both()
    second["decoding"] = {"quiz": {"temperature": 1.0, "repeats": 1}}
    assert [one.field for one in mismatches(first, second)] == ["decoding.quiz.temperature"]


def test_method_seed_and_model_may_differ() -> None:
    first, second = both(target__fingerprint="sha256:other")
    second |= {"method": {"name": "npo"}, "seed": 7}
    assert mismatches(first, second) == []
    assert notes(first, second) == []


def test_versions_that_only_round_otherwise_are_told_and_not_refused() -> None:
    first, second = both(versions__torch="3")
    assert mismatches(first, second) == []
    assert notes(first, second) == ["versions.torch is 2 in one and 3 in the other"]


def test_only_shared_tasks_are_held_together() -> None:
    """The code's hash covers each run's own tasks, so it differs without meaning anything."""
    first, second = both(evaluation_code_sha256="other")
    second["suite"]["tasks"]["more"] = {"limit": 1, "data_sha256": "x"}
    assert mismatches(first, second) == []
    assert "only one of the two was asked more" in notes(first, second)[0]


def test_a_run_that_judged_nothing_needs_no_scorer() -> None:
    first, second = both(scorer__name="none")
    assert mismatches(first, second) == []
