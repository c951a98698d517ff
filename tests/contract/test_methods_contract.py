"""The contract C1 to C8 over every registered method; a new one joins by its file alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.methods.contract import METHOD_FACTS, NEEDS, EditContext, EditData
from unlearn_bench.methods.options import options_model, resolve_options
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.load import load_model, save_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs.requests import READ, REQUESTED, Kind, find_obstacle
from unlearn_bench.runs.steps import in_parts
from unlearn_bench.schema import EditReport
from unlearn_bench.training.prepare import BaseTraining, Recipe

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CARDS = list_cards("method")
# The unedited model has nothing to switch off, and the exact one is a replacement, not an edit.
WITHOUT_ZERO = {"exact_unlearning", "sisa"}
UNCHANGED = {"noop"}
# Enough work to change every target, little enough for a test. Only what a method has is set.
SMALL = {"epochs": 1, "batch_size": 2, "max_tokens": 48}
MANY_STEPS = 4


@dataclass
class Edited:
    """One finished edit."""

    card: Card
    model: LlamaForCausalLM
    before: dict[str, torch.Tensor]
    report: EditReport


@pytest.fixture(scope="module")
def edit(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Edited]:
    """Runs one method on a fresh tiny model, whose configuration `changes` may alter."""

    def run(
        name: str,
        changes: dict[str, Any] | None = None,
        data: EditData = tiny_data,
        **options: Any,
    ) -> Edited:
        card, changes = CARDS[name], changes or {}
        model = make_tiny_model(**changes)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}

        def saved(seed: int) -> Path:
            folder = tmp_path_factory.mktemp("saved") / "model"
            save_model(make_tiny_model(seed=seed, **changes), tiny_tokenizer, folder)
            return folder

        base = BaseTraining(
            OpenedModel(saved(2), "tiny", "Tiny", "sha256:tiny", ""),
            Recipe(epochs=1, batch_size=4, biography_batch=1),
            anchors=(),
            before=(*data.forget, *data.old, *data.retain),
            after=(*data.update, *data.retain, *data.forget[-1:]),
        )

        context = EditContext(
            model,
            tiny_tokenizer,
            data,
            seed=7,
            reference=lambda: make_tiny_model(**changes),
            exact=lambda: saved(1),
            base=base,
        )
        return Edited(card, model, before, edit_model(card, context, small(card) | options))

    return run


def small(card: Card) -> dict[str, Any]:
    """SMALL, as far as the method has those options, with long runs cut to a few steps."""
    fields = options_model(card).model_fields
    chosen = {name: value for name, value in SMALL.items() if name in fields}
    steps = fields["steps"].default if "steps" in fields else None
    return chosen | ({"steps": min(steps, MANY_STEPS)} if steps else {})


@pytest.fixture(scope="module", params=CARDS)
def edited(request: pytest.FixtureRequest, edit: Callable[..., Edited]) -> Edited:
    """Every method in turn, run once on the plain tiny model (tied, grouped-query attention)."""
    return edit(request.param)


def changed_names(edited: Edited) -> set[str]:
    after = dict(edited.model.named_parameters())
    assert after.keys() == edited.before.keys()
    return {n for n in after if not equal_bits(after[n].detach(), edited.before[n])}


def equal_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(2, 50).reshape(2, 24)
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("name", CARDS)
def test_card_is_complete(name: str) -> None:
    card = CARDS[name]
    assert card.file.stem == name, "method id = file name"
    assert card.facts.keys() <= METHOD_FACTS.keys()
    assert card.facts["kind"] in ("loss", "edit")
    assert set(card.facts["needs"]) <= NEEDS.keys()
    assert ("zero" in card.facts) == (name not in WITHOUT_ZERO)
    assert card.summary


def test_c1_nothing_outside_the_targets_changes(edited: Edited) -> None:
    changed, targets = changed_names(edited), edited.card.facts["targets"]
    stray = {n for n in changed if not any(fnmatchcase(n, target) for target in targets)}
    assert not stray
    assert bool(changed) == (edited.card.name not in UNCHANGED)
    for target in targets:
        assert any(fnmatchcase(n, target) for n in edited.before), f"{target} names no tensor"


@pytest.mark.parametrize("name", sorted(CARDS.keys() - WITHOUT_ZERO))
def test_c2_zero_strength_changes_no_bit(name: str, edit: Callable[..., Edited]) -> None:
    result = edit(name, **CARDS[name].facts["zero"])
    assert not changed_names(result)
    assert result.report.changes == ()


def test_c3_same_seed_same_bytes(edited: Edited, edit: Callable[..., Edited]) -> None:
    torch.rand(1)  # the caller's random state must not matter
    again = edit(edited.card.name)
    for (name, first), second in zip(
        edited.model.named_parameters(), again.model.parameters(), strict=True
    ):
        assert equal_bits(first.detach(), second.detach()), name


def test_c4_reloaded_model_gives_equal_logits(
    edited: Edited, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_model(edited.model, tiny_tokenizer, tmp_path / "saved")
    loaded, _ = load_model(tmp_path / "saved")
    assert not edited.model.training
    assert torch.equal(logits(loaded), logits(edited.model))


def test_c5_account_agrees_with_the_tensors(edited: Edited) -> None:
    report, after = edited.report, dict(edited.model.named_parameters())
    assert {change.name for change in report.changes} == changed_names(edited)
    for change in report.changes:
        delta = after[change.name].detach() - edited.before[change.name]
        assert change.elements == delta.numel()
        assert (delta != 0).sum() <= change.changed <= change.elements
        assert change.norm == pytest.approx(float(delta.double().norm()), rel=1e-4)
    assert report.seconds > 0
    assert report.peak_memory_bytes > 0
    if edited.card.facts["kind"] == "loss":
        assert report.forward_passes >= report.backward_passes > 0
    json.dumps(asdict(report), allow_nan=False)  # a record must be able to hold it


def test_c6_tied_embeddings_stay_tied(edited: Edited) -> None:
    model = edited.model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", CARDS)
def test_c7_biased_projections_and_untied_embeddings(
    name: str, edit: Callable[..., Edited]
) -> None:
    """Grouped-query attention is in every case here: 4 heads share 2 key/value heads."""
    changes = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}
    result = edit(name, changes)
    assert any(n.endswith("bias") for n in result.before)
    assert bool(changed_names(result)) == (name not in UNCHANGED)
    assert torch.isfinite(logits(result.model)).all()


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("name", [name for name in CARDS if CARDS[name].facts.get("optional")])
def test_c8_optional_sets_may_be_empty(
    name: str, kind: Kind, edit: Callable[..., Edited], tiny_data: EditData
) -> None:
    """A single request to forget or to update leaves the other's sets empty."""
    if find_obstacle(CARDS[name], kind):
        pytest.skip("the method serves no such request")
    empty = dict.fromkeys(REQUESTED - READ[kind], ())
    assert changed_names(edit(name, data=replace(tiny_data, **empty)))


@pytest.mark.parametrize("divisor", [1, 2, 4])
@pytest.mark.parametrize("name", CARDS)
def test_a_divided_step_is_of_as_many_texts(name: str, divisor: int) -> None:
    """Whatever options a method has: some batches have no passes to be divided into."""
    options = resolve_options(CARDS[name], {})
    if parts := in_parts(options, divisor):
        texts = options["batch_size"] * options["accumulate"]
        assert parts["batch_size"] * parts["accumulate"] == texts
        assert parts["batch_size"] * divisor == options["batch_size"]
    else:
        assert "accumulate" not in options or divisor > 1
