"""MEMIT: write many facts at once, spread over the MLPs of several layers, in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.closed_form import (
    Facts,
    Per,
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
from unlearn_bench.training.hidden import cut_after
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
        "first": [None, 6, 9, 12],
        "count": [3, 5],
        "lr": (0.1, 2.0, "log"),
        "moment_weight": (1.0, 30_000.0, "log"),
    },
)
def memit(
    context: EditContext,
    *,
    first: Annotated[int, Field(ge=0)] | None = None,
    count: Annotated[int, Field(ge=1)] = 5,
    per: Per = "subject",
    moment_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 281.5,
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.015,
    steps: Annotated[int, Field(ge=0)] = 20,
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0625,
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5,
) -> dict[str, Any]:
    """ΔW_ℓ = R·Kᵀ·(λ·C + K·Kᵀ)⁻¹ on the down_proj of `count` layers in turn, for all facts at once.

    K: every question's key at layer ℓ, C the second moment of its inputs on ordinary text; `per`
    and the search as in `rome`. The hidden states wanted at the last of the layers are found first;
    at layer ℓ, R is what they still lack, measured on the model as edited so far, divided by the
    layers that remain. first: the lowest edited layer, from 0; None is at a tenth of the depth (the
    paper's 3 of 28, with five or six layers). moment_weight: λ, the paper's 15,000. Update texts
    without a prompt are not read.
    Source: Meng et al. 2023, equations 14, 16 and 20 and algorithm 1.
    """
    if not steps:
        return {"facts": 0}
    layers = edited_layers(len(decoder_layers(context.model)), first, count)
    facts, last = read_facts(context, context.data.update, per), layers[-1]
    changes = find_changes(context, last, facts, ValueSearch(lr, steps, kl_weight, decay))
    wanted = read_states(context, last, facts) + changes[facts.owners]  # (n, d)
    moments = second_moments(context, layers)
    for layer in layers:
        lacking = (wanted - read_states(context, last, facts)) / (last - layer + 1)
        keys = read_keys(context, layer, context.data.update)
        delta = spread(moments[layer], keys, lacking, moment_weight)
        weight = mlp_weights(context.model, layer)["down_proj"]
        with torch.no_grad():
            weight.copy_(weight.float() + delta.to(weight.device))
    missed = wanted - read_states(context, last, facts)
    return {
        "layers": layers,
        "facts": len(facts.rows),
        "memories": len(facts.names),
        "mean_value_change": float(changes.norm(dim=1).mean()),
        "share_missed": share(missed, changes[facts.owners]),
    }


def edited_layers(total: int, first: int | None, count: int) -> list[int]:
    """`count` layers, or as many as there are, from `first` or from a tenth of the depth on.

    Never the last one: nothing above it carries what it adds to an answer's position. Raises
    UsageError when no layer is left.
    """
    start = total // 10 if first is None else layer_index(first, total - 1)
    return list(range(start, min(start + count, total - 1)))


@torch.no_grad()
def read_states(context: EditContext, layer: int, facts: Facts) -> Tensor:
    """Output of `layer` at every question's subject, its last token. (n, d) float32, CPU."""
    model = context.model
    states = torch.empty(len(facts.rows), model.config.get_text_config().hidden_size)
    seen: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen[:] = [output[0] if isinstance(output, tuple) else output]

    hook = decoder_layers(model)[layer].register_forward_hook(keep)
    with hook, cut_after(model, layer):
        for chosen, batch in batches_of(context, facts.rows):
            with autocast(model.device):
                model.base_model(input_ids=batch.input_ids, use_cache=False)
            rows = torch.arange(len(chosen))
            states[chosen] = seen[0][rows, facts.positions[chosen]].float().cpu()
    return states
