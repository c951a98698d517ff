"""MEMIT: write many facts at once, spread over the MLPs of several layers, in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.closed_form import (
    ValueSearch,
    batches_of,
    find_changes,
    read_facts,
    read_keys,
    second_moments,
    share,
    spread,
)
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import mlp_weights
from unlearn_bench.models.layers import decoder_layers, layer_index
from unlearn_bench.registry import method
from unlearn_bench.training.precision import autocast


@method(
    "memit",
    paper="arXiv:2210.07229",
    kind="edit",
    goals=("update",),
    needs=("update", "retain", "benign", "clean"),
    targets=("*.mlp.down_proj.weight",),
    zero={"steps": 0},
    search={
        "first": [2, 4, 6, 8],
        "count": [3, 5],
        "lr": (0.02, 1.0, "log"),
        "moment_weight": (3.0, 30_000.0, "log"),
    },
)
def memit(
    context: EditContext,
    *,
    first: Annotated[int, Field(ge=0)] | None = None,
    count: Annotated[int, Field(ge=1)] = 5,
    moment_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15_000.0,
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5,
    steps: Annotated[int, Field(ge=0)] = 20,
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0625,
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5,
) -> dict[str, Any]:
    """ΔW_ℓ = R·Kᵀ·(λ·C + K·Kᵀ)⁻¹ on the down_proj of `count` layers in turn, for all facts at once.

    K: every fact's key at layer ℓ, C the second moment of its inputs on ordinary text (both as in
    `rome`). The hidden states wanted at the last of the layers are found first; at layer ℓ, R is
    what they still lack, measured on the model as edited so far, divided by the layers that remain.
    first: the lowest edited layer, from 0; None is at a tenth of the depth (the paper's 3 of 28,
    with five or six layers). moment_weight: λ, the paper's 15,000. Update texts without a prompt are
    not read.
    Source: Meng et al. 2023, equations 14, 16 and 20 and algorithm 1.
    """
    if not steps:
        return {"facts": 0}
    layers = edited_layers(len(decoder_layers(context.model)), first, count)
    facts, last = context.data.update, layers[-1]
    changes = find_changes(context, last, facts, ValueSearch(lr, steps, kl_weight, decay))
    wanted = read_states(context, last) + changes
    moments = second_moments(context, layers)
    for layer in layers:
        lacking = (wanted - read_states(context, last)) / (last - layer + 1)
        delta = spread(moments[layer], read_keys(context, layer, facts), lacking, moment_weight)
        weight = mlp_weights(context.model, layer)["down_proj"]
        with torch.no_grad():
            weight.copy_(weight.float() + delta.to(weight.device))
    missed = wanted - read_states(context, last)
    return {
        "layers": layers,
        "facts": len(changes),
        "mean_value_change": float(changes.norm(dim=1).mean()),
        "share_missed": share(missed, changes),
    }


def edited_layers(total: int, first: int | None, count: int) -> list[int]:
    """`count` layers, or as many as there are, from `first` or from a tenth of the depth on.

    Never the last one: nothing above it carries what it adds to an answer's position. Raises
    UsageError when no layer is left.
    """
    start = total // 10 if first is None else layer_index(first, total - 1)
    return list(range(start, min(start + count, total - 1)))


@torch.no_grad()
def read_states(context: EditContext, layer: int) -> Tensor:
    """Output of `layer` at the last token of every update fact's subject. (n, d) float32, CPU."""
    facts = read_facts(context, context.data.update)
    width = context.model.config.get_text_config().hidden_size
    states, seen = torch.empty(len(facts.rows), width), list[Tensor]()

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen[:] = [output[0] if isinstance(output, tuple) else output]

    with decoder_layers(context.model)[layer].register_forward_hook(keep):
        for chosen, batch in batches_of(context, facts.rows):
            with autocast(context.model.device):
                context.model.base_model(input_ids=batch.input_ids, use_cache=False)
            states[chosen] = (
                seen[0][torch.arange(len(chosen)), facts.positions[chosen]].float().cpu()
            )
    return states
