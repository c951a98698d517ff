"""Selective pruning: remove the MLP neurons that forget texts need and retain texts do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.gate_rows import split_by_layer
from unlearn_bench.methods.pair_editing import mlp_weights, only_trainable, read_batches
from unlearn_bench.methods.sampling import draw
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.likelihood import nll_sum
from unlearn_bench.training.precision import autocast

Neurons = dict[str, nn.Parameter]  # gate_proj (d_ff, d), up_proj (d_ff, d), down_proj (d, d_ff)
TINY = 1e-12


@method(
    "selective_pruning",
    paper="arXiv:2403.01267",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*.mlp.gate_proj.weight", "*.mlp.up_proj.weight", "*.mlp.down_proj.weight"),
    gradients=True,
    zero={"fraction": 0.0},
    search={"fraction": (5e-4, 0.05, "log"), "texts": [32, 64]},
)
def selective_pruning(
    context: EditContext,
    *,
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02,
    texts: Annotated[int, Field(ge=1)] = 64,
) -> dict[str, Any]:
    """Zero the `fraction` of all MLP neurons with the highest ratio I(forget) / I(retain).

    I(D) of a neuron = Σ |w·∂NLL_m(D)/∂w| over its row of gate_proj, its row of up_proj and its
    column of down_proj: the first-order estimate of what the loss would change without it. Neurons
    of all layers compete in one list. A pruned neuron's three parts become zero.
    texts: at most so many of each set are read.
    Source: Ma et al. 2023 (LLM-Pruner, arXiv:2305.11627), the first-order importance summed over a
    group of coupled weights; Pochinkov and Schoots 2024, the ratio of two sets and the pruning.
    """
    layers = [mlp_weights(context.model, i) for i in range(len(decoder_layers(context.model)))]
    d_ff = len(layers[0]["gate_proj"])
    count = round(fraction * len(layers) * d_ff)
    if not count:
        return {"pruned": 0}
    forget = importance(context, layers, draw(context.data.forget, texts, context.seed))
    retain = importance(context, layers, draw(context.data.retain, texts, context.seed))
    ratio = forget / (retain + TINY)
    found = ratio.topk(count)
    prune(layers, found.indices)
    return {
        "pruned": count,
        "lowest_ratio": float(found.values[-1]),
        "median_ratio": float(ratio.median()),
        "neurons_by_layer": split_by_layer(found.indices, d_ff),
    }


def importance(
    context: EditContext, layers: Sequence[Neurons], examples: Sequence[Example]
) -> Tensor:
    """I of every neuron, flat index layer · d_ff + neuron. (L·d_ff,) float32 on the CPU.

    Raises MissingDataError without examples.
    """
    if not examples:
        raise MissingDataError("selective pruning compares two sets of texts, and one is empty")
    weights = [weight for neurons in layers for weight in neurons.values()]
    tokens = 0
    with only_trainable(context.model, weights):
        for batch in read_batches(context, examples):
            with autocast(context.model.device):
                nll_sum(context.model, batch).sum().backward()  # type: ignore[no-untyped-call]
            tokens += int((batch.labels[:, 1:] >= 0).sum())
            context.progress("reading", tokens, 0)
        return torch.cat([saliency(neurons, tokens) for neurons in layers])


@torch.no_grad()
def saliency(neurons: Neurons, tokens: int) -> Tensor:
    """Σ |w·g| / tokens over each neuron's group, from the weights' summed gradients. (d_ff,)."""
    total = torch.zeros(len(neurons["gate_proj"]))
    for name, weight in neurons.items():
        assert weight.grad is not None, "the backward pass reached every MLP"
        product = (weight.float() * weight.grad.float()).abs()
        total += product.sum(dim=0 if name == "down_proj" else 1).cpu()
    return total / tokens


@torch.no_grad()
def prune(layers: Sequence[Neurons], indices: Tensor) -> None:
    """Zero the three parts of the neurons with these flat indices, in place."""
    d_ff = len(layers[0]["gate_proj"])
    for layer, neurons in enumerate(layers):
        here = indices[indices // d_ff == layer] % d_ff
        neurons["gate_proj"][here] = 0
        neurons["up_proj"][here] = 0
        neurons["down_proj"][:, here] = 0
