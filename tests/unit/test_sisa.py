"""SISA: what is trained again after a request, from where, and how shards become one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.run import edit_model
from unlearn_bench.methods.sisa import divide, first_touched
from unlearn_bench.models.load import save_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example
from unlearn_bench.training.prepare import BaseTraining, Recipe

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

NAMES = [f"Subject{number}" for number in range(8)]
GONE, CHANGED = "Subject2", "Subject5"


def texts(names: Sequence[str], version: str = "old") -> list[Example]:
    return [
        Example(f"{name}-{i}:{version}", f"Where is {name} at {i}?\n", f" {version} {name}", name)
        for name in names
        for i in range(2)
    ]


BEFORE = texts(NAMES)
AFTER = [
    text
    for name in NAMES
    if name != GONE
    for text in texts([name], "new" if name == CHANGED else "old")
]


@dataclass(frozen=True)
class Recorded(BaseTraining):
    """Real training that writes down what each call was given."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def train(self, model: Any, tokenizer: Any, texts: Any, **options: Any) -> Any:
        start = model.model.layers[0].mlp.down_proj.weight.detach().clone()
        log = super().train(model, tokenizer, texts, **options)
        end = model.model.layers[0].mlp.down_proj.weight.detach().clone()
        self.calls.append({"texts": list(texts), "start": start, "end": end} | options)
        return log


@pytest.fixture
def base(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> Recorded:
    save_model(make_tiny_model(seed=2), tiny_tokenizer, tmp_path / "base")
    opened = OpenedModel(tmp_path / "base", "tiny", "Tiny", "sha256:tiny", "")
    recipe = Recipe(epochs=2, batch_size=2, precision="fp32", lr=3e-4)
    return Recorded(opened, recipe, (), tuple(BEFORE), tuple(AFTER))


def run(
    base: BaseTraining, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, **options: Any
) -> Any:
    context = EditContext(model, tokenizer, EditData(), 0, lambda: model, base=base)
    return edit_model(find_card("method", "sisa"), context, options)


# --- placement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["last", "random"])
def test_every_text_has_one_place_and_subjects_stay_together(placement: Any) -> None:
    before, after = divide(BEFORE, AFTER, 2, 2, placement, seed=0)
    flat = [text for shard in before for part in shard for text in part]
    assert sorted(text.id for text in flat) == sorted(text.id for text in BEFORE)
    for shard in before:
        for part in shard:
            assert len({text.subject for text in part}) == 2  # eight subjects in four slices
            assert len(part) == 4
    kept = [text for shard in after for part in shard for text in part]
    assert sorted(text.id for text in kept) == sorted(text.id for text in AFTER)


def test_updates_take_the_place_of_what_they_replace() -> None:
    before, after = divide(BEFORE, AFTER, 2, 2, "random", seed=1)
    for old, new in zip(before, after, strict=True):
        for one, other in zip(old, new, strict=True):
            assert {t.subject for t in other} == {t.subject for t in one} - {GONE}


def test_named_subjects_come_last() -> None:
    """Two of eight are named: they fill the last of four slices, and nothing else is touched."""
    before, after = divide(BEFORE, AFTER, 2, 2, "last", seed=0)
    assert {text.subject for text in before[1][1]} == {GONE, CHANGED}
    assert [first_touched(*pair) for pair in zip(before, after, strict=True)] == [2, 1]


def test_placement_is_seeded() -> None:
    assert divide(BEFORE, AFTER, 2, 2, "random", 0) == divide(BEFORE, AFTER, 2, 2, "random", 0)
    assert divide(BEFORE, AFTER, 2, 2, "random", 0) != divide(BEFORE, AFTER, 2, 2, "random", 3)


def test_first_touched() -> None:
    a, b = texts(["A"]), texts(["B"])
    assert first_touched([a, b], [a, b]) == 2
    assert first_touched([a, b], [a, []]) == 1
    assert first_touched([a, b], [texts(["A"], "new"), b]) == 0


# --- training -----------------------------------------------------------------------------------


def test_only_touched_stages_are_run_again(
    base: Recorded, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Shard 0 is untouched; of shard 1 the second stage reads the texts after the request. No
    forget text and no outdated one reaches any call.
    """
    report = run(base, tiny_model, tiny_tokenizer, shards=2, slices=2)
    stages = report.details["stages"]
    assert [stage["retrained"] for stage in stages] == [False, False, False, True]
    seconds = stages[3]["seconds"]
    assert report.details["retrain_seconds"] == pytest.approx(seconds, abs=1e-3)
    assert [len(call["texts"]) for call in base.calls] == [4, 8, 4, 6]
    for call in base.calls:
        assert not [t for t in call["texts"] if t.subject == GONE or t.id == f"{CHANGED}-0:old"]
    assert {t.id for t in base.calls[3]["texts"]} >= {f"{CHANGED}-0:new", f"{CHANGED}-1:new"}


def test_stages_go_on_from_one_another_and_shards_from_the_base(
    base: Recorded, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    run(base, tiny_model, tiny_tokenizer, shards=2, slices=2)
    start = base.load()[0].model.layers[0].mlp.down_proj.weight
    first, second, third, fourth = base.calls
    assert torch.equal(first["start"], start)
    assert torch.equal(third["start"], start)
    assert not torch.equal(second["start"], start)
    assert not torch.equal(fourth["start"], start)
    assert [call["seed"] for call in base.calls] == [0, 0, 1, 1]
    assert [call["share"] for call in base.calls] == pytest.approx([2 / 3] * 4)


def test_a_shard_without_forget_texts_is_byte_identical(
    base: Recorded, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Only one of two shards held the subject. The other reads the same texts from the same start
    with the same seed as it would have without the request, and so gives the same bytes.
    """
    gone = tuple(text for text in BEFORE if text.subject != GONE)
    requested, untouched = replace(base, after=gone), replace(base, after=base.before, calls=[])
    weights = []
    for training in (requested, untouched):
        run(training, tiny_model, tiny_tokenizer, shards=2, slices=1, placement="random")
        weights.append(tiny_model.model.layers[0].mlp.down_proj.weight.detach().clone())
    same = [
        mine["texts"] == theirs["texts"] and torch.equal(mine["end"], theirs["end"])
        for mine, theirs in zip(requested.calls, untouched.calls, strict=True)
    ]
    assert sorted(same) == [False, True]
    assert not torch.equal(*weights)


def test_one_shard_of_one_slice_is_training_on_the_rest(
    base: Recorded, tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Done by hand with the same texts, seed and recipe: the same weights up to the rounding of
    base + (θ − base).
    """
    run(base, tiny_model, tiny_tokenizer, shards=1, slices=1)
    other, tokenizer = base.load()
    BaseTraining.train(base, other, tokenizer, base.calls[0]["texts"], seed=0)
    for mine, theirs in zip(tiny_model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("combine", "share"), [("mean", 0.5), ("sum", 1.0)])
def test_shards_are_put_together(
    combine: str,
    share: float,
    base: Recorded,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """base + share·(change of shard 0 + change of shard 1), each trained by hand."""
    run(base, tiny_model, tiny_tokenizer, shards=2, slices=1, combine=combine)
    start = dict(base.load()[0].named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in start.items()}
    for shard, call in enumerate(list(base.calls)):
        other, tokenizer = base.load()
        BaseTraining.train(base, other, tokenizer, call["texts"], seed=shard)
        for name, weight in other.named_parameters():
            total[name] += (weight - start[name]).detach()
    for name, weight in tiny_model.named_parameters():
        torch.testing.assert_close(weight, start[name] + share * total[name], rtol=1e-5, atol=1e-6)
