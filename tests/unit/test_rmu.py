"""RMU: which states, towards what, and which tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from table_model import token_batch

from unlearn_bench.errors import UsageError
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.rmu import control_vector, distance
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.registry import find_card
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.hidden import answer_states

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def run(context: EditContext, **options: Any) -> Any:
    card = find_card("method", "rmu")
    return edit_model(card, context, {"precision": "fp32", "batch_size": 4, **options})


@pytest.fixture
def context(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> EditContext:
    return EditContext(tiny_model, tiny_tokenizer, tiny_data, seed=3, reference=make_tiny_model)


def test_distance_by_hand() -> None:
    """Rows (1, 0) and (3, 4) from (0, 0): squared norms 1 and 25, mean 13. A mean over the entries
    would be 6.5. From another pair of rows: row by row.
    """
    states = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert distance(states, torch.zeros(2)).item() == 13
    assert distance(states, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).item() == 12.5


def test_control_vector() -> None:
    """Entries of U(0, 1), so never negative: their mean is √3/2/√n of the unit norm."""
    u = control_vector(1000, seed=0)
    assert u.norm().item() == pytest.approx(1)
    assert (u >= 0).all()
    assert u.mean().item() == pytest.approx(math.sqrt(3) / 2 / math.sqrt(1000), rel=0.05)
    assert torch.equal(u, control_vector(1000, seed=0))
    assert not torch.equal(u, control_vector(1000, seed=1))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_states_are_the_layers_own_at_predicting_positions(
    layer: int, tiny_model: LlamaForCausalLM
) -> None:
    """Rows "a b | c d" and "a | b": what predicts c, d and b stands at positions 1, 2 and 0.

    transformers' hidden_states[i + 1] is the output of layer i, but for the last, which has passed
    the final norm there.
    """
    batch = token_batch(([5, 6, 7, 8], 2), ([9, 10], 1), width=6)
    found = answer_states(tiny_model, layer, batch)
    kept: list[torch.Tensor] = []
    hook = decoder_layers(tiny_model)[layer].register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    tiny_model(input_ids=batch.input_ids)
    hook.remove()
    expected = torch.stack([kept[0][0, 1], kept[0][0, 2], kept[0][1, 0]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_layers_above_are_not_computed_and_come_back(tiny_model: LlamaForCausalLM) -> None:
    ran: list[int] = []
    for index, layer in enumerate(decoder_layers(tiny_model)):
        layer.register_forward_hook(lambda module, inputs, output, i=index: ran.append(i))
    stack = tiny_model.model.layers
    answer_states(tiny_model, 1, token_batch(([5, 6, 7], 1)))
    assert ran == [0, 1]
    assert tiny_model.model.layers is stack
    assert len(stack) == 3


@pytest.mark.parametrize(
    ("layer", "trained"), [(None, {0}), (0, {0}), (1, {0, 1}), (2, {0, 1, 2}), (-1, {0, 1, 2})]
)
def test_only_three_down_projections_are_trained(
    layer: int | None, trained: set[int], context: EditContext
) -> None:
    """ℓ − 2 to ℓ; the default layer of three is 3 // 4 = 0."""
    report = run(context, steps=1, layer=layer, lr=1e-3)
    assert {change.name for change in report.changes} == {
        f"model.layers.{index}.mlp.down_proj.weight" for index in trained
    }


def test_a_layer_that_is_not_there(context: EditContext) -> None:
    with pytest.raises(UsageError, match="no layer 3 in a model of 3"):
        run(context, steps=1, layer=3)


def test_forget_states_go_to_the_vector_and_retain_states_stay(context: EditContext) -> None:
    """c·u of norm 8; with α = 0 nothing holds the retain states, which then drift further."""
    goal = 8.0 * control_vector(32, context.seed)
    forget, retain = (
        collate(encode(context.tokenizer, texts), pad_id=1)
        for texts in (context.data.forget, context.data.retain)
    )
    theirs = context.reference()
    with torch.no_grad():
        before = distance(answer_states(theirs, 1, forget), goal).item()
        held = answer_states(theirs, 1, retain)
    drift = {}
    for alpha in (0.0, 30.0):
        own = EditContext(context.reference(), context.tokenizer, context.data, 3,
                          context.reference)  # fmt: skip
        run(own, steps=25, layer=1, lr=2e-2, steering=8.0, alpha=alpha)
        with torch.no_grad():
            after = distance(answer_states(own.model, 1, forget), goal).item()
            drift[alpha] = distance(answer_states(own.model, 1, retain), held).item()
        assert after < (0.5 if alpha == 0 else 0.95) * before
    assert drift[30.0] < 0.25 * drift[0.0]
