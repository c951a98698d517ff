"""The shared loop's ways to train, over every method that offers them."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.contract.test_methods_contract import CARDS, equal_bits, logits, small
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.options import options_model
from unlearn_bench.methods.run import edit_model

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TRAINED = [name for name, card in CARDS.items() if "lora" in options_model(card).model_fields]
ASKS_ITSELF = {"task_vector"}  # computes with θ₀'s weights, whatever trained the others
Edit = Callable[..., tuple[Any, dict[str, torch.Tensor]]]


@pytest.fixture
def references() -> list[Any]:
    """Every copy of θ₀ that was built."""
    return []


@pytest.fixture
def edit(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    references: list[Any],
) -> Edit:
    """A fresh tiny model after the method, and its weights before."""

    def run(name: str, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
        model = make_tiny_model()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}

        def reference() -> Any:
            references.append(make_tiny_model())
            return references[-1]

        context = EditContext(model, tiny_tokenizer, tiny_data, seed=7, reference=reference)
        edit_model(CARDS[name], context, small(CARDS[name]) | options)
        return model, before

    return run


def require_sound(name: str, model: Any, before: dict[str, torch.Tensor]) -> set[str]:
    """C1, C6 and finite logits; the names of what changed."""
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    changed = {n for n in after if not equal_bits(after[n].detach(), before[n])}
    targets = CARDS[name].facts["targets"]
    assert changed
    assert not {n for n in changed if not any(fnmatchcase(n, target) for target in targets)}
    assert torch.isfinite(logits(model)).all()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not model.is_gradient_checkpointing
    return changed


@pytest.mark.parametrize("name", TRAINED)
def test_lora_changes_linear_layers_among_the_targets_and_is_its_own_reference(
    name: str, edit: Edit, references: list[Any]
) -> None:
    model, before = edit(name, lora=True, lr=1e-2)
    changed = require_sound(name, model, before)
    assert all("_proj.weight" in n for n in changed)
    assert not hasattr(model, "peft_config")
    assert not any("lora" in n for n, _ in model.named_modules())
    assert bool(references) == (name in ASKS_ITSELF)


@pytest.mark.parametrize("name", TRAINED)
def test_accumulated_batches_are_an_edit_like_any_other(name: str, edit: Edit) -> None:
    require_sound(name, *edit(name, accumulate=2, lr=1e-2))


@pytest.mark.parametrize("name", TRAINED)
def test_checkpointing_gives_the_same_model_up_to_rounding(name: str, edit: Edit) -> None:
    """By plain gradient descent, which shows a difference as large as it is."""
    options = {"optimizer": "sgd", "lr": 1e-2, "precision": "fp32"}
    plain, before = edit(name, **options)
    require_sound(name, plain, before)
    saving, _ = edit(name, **options, checkpointing=True)
    require_sound(name, saving, before)
    for (key, mine), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        moved = float((theirs.detach() - before[key]).abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=max(1e-6, 1e-3 * moved))
