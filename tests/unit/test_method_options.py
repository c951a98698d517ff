"""Options read from a method's signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.methods.options import resolve_options, split_options
from unlearn_bench.registry import Card, find_card
from unlearn_bench.training.options import Training

EDIT = '''
from pathlib import Path
from typing import Annotated, Literal
from pydantic import Field
from unlearn_bench.registry import method

@method("shrink", kind="edit", needs=(), targets=("*",), zero={{"factor": 0.0}}{facts})
def shrink(context, {signature}):
    """Shrink."""
    return {{}}
'''
SIGNATURE = (
    '*, factor: Annotated[float, Field(ge=0, le=1)] = 0.5, mode: Literal["a", "b"] = "a", '
    "place: Path | None = None"
)


def card_of(folder: Path, signature: str = SIGNATURE, facts: str = "") -> Card:
    file = folder / "shrink.py"
    file.write_text(EDIT.format(signature=signature, facts=facts))
    return find_card("method", "shrink", (file,))


def test_defaults_and_given_values(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    assert resolve_options(card, {}) == {"factor": 0.5, "mode": "a", "place": None}
    resolved = resolve_options(card, {"factor": 1, "place": "some/file"})
    assert resolved == {"factor": 1.0, "mode": "a", "place": "some/file"}
    assert json.loads(json.dumps(resolved)) == resolved


def test_function_gets_typed_values(tmp_path: Path) -> None:
    values, training = split_options(card_of(tmp_path), {"place": "some/file"})
    assert values == {"factor": 0.5, "mode": "a", "place": Path("some/file")}
    assert training is None


@pytest.mark.parametrize(
    ("annotation", "default", "value", "words"),
    [
        ("Annotated[float, Field(ge=0, le=1)]", 0.5, 2, "a number from 0 to 1, got 2"),
        ("Annotated[float, Field(ge=0, le=1)]", 0.5, float("nan"), "a number from 0 to 1, got nan"),
        ("Annotated[float, Field(gt=0)]", 0.5, -1, "a number greater than 0, got -1"),
        ("Annotated[float, Field(gt=0, le=1)]", 0.5, 0, "a number greater than 0 and at most 1"),
        ("Annotated[float, Field(le=1e-5)]", 0, 1, "a number of at most 1e-05, got 1"),
        ("Annotated[float, Field(ge=0, allow_inf_nan=False)]", 0.5, float("inf"),
         "a finite number of at least 0, got inf"),
        ("float", 0.5, "much", "a number, got 'much'"),
        ("Annotated[int, Field(ge=1)]", 3, 2.5, "a whole number of at least 1, got 2.5"),
        ("Annotated[int, Field(ge=0)] | None", None, "x",
         "a whole number of at least 0 or null, got 'x'"),
        ("bool", True, "maybe", "true or false, got 'maybe'"),
        ("Literal['a', 'b']", "a", "c", "'a' or 'b', got 'c'"),
        ("Literal['a', 'b', 'c']", "a", 1, "'a', 'b' or 'c', got 1"),
        ("str", "", 5, "text, got 5"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_told_the_range(
    tmp_path: Path, annotation: str, default: Any, value: Any, words: str
) -> None:
    card = card_of(tmp_path, f"*, x: {annotation} = {default!r}")
    with pytest.raises(UsageError) as caught:
        resolve_options(card, {"x": value})
    assert str(caught.value).startswith(f"shrink.x: must be {words}")
    assert "--set shrink.x=VALUE" in str(caught.value)


def test_a_type_without_plain_words_keeps_pydantics(tmp_path: Path) -> None:
    card = card_of(tmp_path, "*, x: dict[str, int] = {}")
    with pytest.raises(UsageError, match=r"shrink\.x: Input should be a valid dictionary, got 3"):
        resolve_options(card, {"x": 3})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lr", -1, "a number of at least 0, got -1"),
        ("lr", float("nan"), "a finite number of at least 0, got nan"),
        ("epochs", 1.5, "a whole number of at least 0, got 1.5"),
        ("steps", -1, "a whole number of at least 0 or null, got -1"),
        ("warmup", 2, "a number from 0 to 1, got 2"),
        ("beta2", 1, "a number of at least 0 and less than 1, got 1"),
        ("schedule", "cosine", "'linear' or 'constant', got 'cosine'"),
        ("lora", "perhaps", "true or false, got 'perhaps'"),
    ],
)
def test_the_loops_options_tell_their_range_too(name: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_options(find_card("method", "npo"), {name: value})
    assert str(caught.value).startswith(f"npo.{name}: must be {words}")


def test_unknown_option_has_near_matches(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean factor"):
        resolve_options(card_of(tmp_path), {"facter": 1})


@pytest.mark.parametrize("name", ["npo", "gradient_ascent"])
def test_trained_methods_have_the_loops_options(name: str) -> None:
    card = find_card("method", name)
    resolved = resolve_options(card, {"lr": 0.5, "lora": True})
    assert set(Training.model_fields) < set(resolved)
    assert resolved["lr"] == 0.5
    for option, default in card.facts["training"].items():
        assert option == "lr" or resolved[option] == default
    own, training = split_options(card, resolved)
    assert training == Training(**(card.facts["training"] | {"lr": 0.5, "lora": True}))
    assert not set(own) & set(Training.model_fields)
    with pytest.raises(UsageError, match=r"npo.batch_size|gradient_ascent.batch_size"):
        resolve_options(card, {"batch_size": 0})


@pytest.mark.parametrize(
    ("signature", "facts", "words"),
    [
        ("*, factor: float", "", "needs a type and a default"),
        ("*, factor=1.0", "", "needs a type and a default"),
        ("training, *, lr: float = 1.0", "", "'lr' is also one of the training loop's"),
        ("training", ', training={"epoch": 3}', "did you mean 'epochs'"),
        (SIGNATURE, ', training={"epochs": 3}', "does not use the shared loop"),
    ],
)
def test_unfit_signatures_are_refused(
    tmp_path: Path, signature: str, facts: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_options(card_of(tmp_path, signature, facts), {})
