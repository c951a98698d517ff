"""Selective pruning: the saliency, the ratio, and what is left of a pruned neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.pair_editing import mlp_weights
from unlearn_bench.methods.run import edit_model
from unlearn_bench.methods.selective_pruning import importance, prune, saliency
from unlearn_bench.registry import find_card
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.likelihood import nll_mean

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture
def context(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tiny_data: EditData
) -> EditContext:
    return EditContext(tiny_model, tiny_tokenizer, tiny_data, 0, lambda: tiny_model)


def neurons(gate: Any, up: Any, down: Any) -> dict[str, nn.Parameter]:
    values = {"gate_proj": gate, "up_proj": up, "down_proj": down}
    return {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}


def test_saliency_by_hand() -> None:
    """Two neurons of width 2. Neuron 0: gate |1·2| + |−1·1| = 3, up |2·1| + |0·5| = 2, down's
    column (3, −1)·(1, 1): 3 + 1 = 4; together 9. Neuron 1: gate 0 + |2·2| = 4, up |1·−3| + 0 = 3,
    column (0, 2)·(7, 2): 4; together 11. Over 4 tokens: 2.25 and 2.75. Signs must not cancel:
    summed first, neuron 0 would have 1 + 2 + 2 = 5.
    """
    group = neurons([[1.0, -1.0], [0.0, 2.0]], [[2.0, 0.0], [1.0, 4.0]], [[3.0, 0.0], [-1.0, 2.0]])
    group["gate_proj"].grad = torch.tensor([[2.0, 1.0], [9.0, 2.0]])
    group["up_proj"].grad = torch.tensor([[1.0, 5.0], [-3.0, 0.0]])
    group["down_proj"].grad = torch.tensor([[1.0, 7.0], [1.0, 2.0]])
    assert saliency(group, tokens=4).tolist() == [2.25, 2.75]


def test_prune_by_hand() -> None:
    """Flat index 3 of two layers of two neurons is neuron 1 of layer 1."""
    layers = [neurons([[1.0], [2.0]], [[3.0], [4.0]], [[5.0, 6.0]]) for _ in range(2)]
    prune(layers, torch.tensor([3]))
    assert layers[0]["gate_proj"].tolist() == [[1.0], [2.0]]
    assert layers[1]["gate_proj"].tolist() == [[1.0], [0.0]]
    assert layers[1]["up_proj"].tolist() == [[3.0], [0.0]]
    assert layers[1]["down_proj"].tolist() == [[5.0, 0.0]]


def test_importance_is_that_of_the_mean_loss(context: EditContext) -> None:
    """|w·g| of NLL_m over all answer tokens, whatever the batches; gradients are cleared."""
    layers = [mlp_weights(context.model, i) for i in range(3)]
    found = importance(context, layers, context.data.forget)
    batch = collate(encode(context.tokenizer, context.data.forget), pad_id=1)
    nll_mean(context.model, batch).backward()
    expected = torch.cat([saliency(group, 1) for group in layers])
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-5)  # bf16 where hardware has it
    context.model.zero_grad()
    importance(context, layers, context.data.retain)
    assert all(p.grad is None and p.requires_grad for p in context.model.parameters())


def test_the_highest_ratios_of_all_layers_go(context: EditContext) -> None:
    """The three of 144 neurons with the highest I(forget) / I(retain), by gradients taken here. The
    ratio turned round, or the forget set's importance alone, names others.
    """
    found = {}
    for name in ("forget", "retain"):
        batch = collate(encode(context.tokenizer, getattr(context.data, name)), pad_id=1)
        context.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # as reading does where hardware has it
            nll_mean(context.model, batch).backward()
        layers = [mlp_weights(context.model, i) for i in range(3)]
        found[name] = torch.cat([saliency(group, 1) for group in layers])
    context.model.zero_grad()
    ratio = found["forget"] / found["retain"]
    first = {divmod(index, 48) for index in ratio.topk(12).indices.tolist()}
    most, least = found["forget"].topk(3).indices, ratio.topk(3, largest=False).indices
    others = {*most.tolist(), *least.tolist()}
    report = edit_model(find_card("method", "selective_pruning"), context, {"fraction": 3 / 144})
    chosen = {
        (int(layer), neuron)
        for layer, neurons in report.details["neurons_by_layer"].items()
        for neuron in neurons
    }
    assert len(chosen) == report.details["pruned"] == 3
    assert chosen <= first, "the very order may turn on rounding"
    assert not chosen <= {divmod(index, 48) for index in others}
    for layer, neuron in chosen:
        group = mlp_weights(context.model, layer)
        assert group["gate_proj"][neuron].abs().max() == 0
        assert group["up_proj"][neuron].abs().max() == 0
        assert group["down_proj"][:, neuron].abs().max() == 0
    assert sum(change.changed for change in report.changes) == 3 * 3 * 32


def test_a_pruned_neuron_says_nothing_even_with_biases(
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> None:
    model = make_tiny_model(mlp_bias=True)
    mlp = model.model.layers[0].mlp
    prune([mlp_weights(model, 0)], torch.tensor([2, 40]))
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    inner: list[torch.Tensor] = []
    hook = mlp.down_proj.register_forward_pre_hook(lambda module, inputs: inner.append(inputs[0]))
    whole = mlp(hidden)
    hook.remove()
    inner[0][:, [2, 40]] = 123.0
    torch.testing.assert_close(mlp.down_proj(inner[0]), whole)


def test_no_texts(context: EditContext) -> None:
    with pytest.raises(MissingDataError):
        importance(context, [mlp_weights(context.model, i) for i in range(3)], ())
