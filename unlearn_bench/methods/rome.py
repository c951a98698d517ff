"""ROME: write new facts into one MLP, each by an update of rank one in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.methods.closed_form import (
    ValueSearch,
    find_changes,
    rank_one,
    read_facts,
    read_keys,
    second_moments,
    share,
)
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import mlp_weights
from unlearn_bench.models.layers import decoder_layers, layer_index
from unlearn_bench.registry import method


@method(
    "rome",
    paper="arXiv:2202.05262",
    kind="edit",
    goals=("update",),
    needs=("update", "retain", "benign", "clean"),
    targets=("*.mlp.down_proj.weight",),
    zero={"steps": 0},
    search={"layer": [5, 8, 11, 14, 17], "lr": (0.02, 1.0, "log"), "steps": [10, 20]},
)
def rome(
    context: EditContext,
    *,
    layer: int | None = None,
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5,
    steps: Annotated[int, Field(ge=0)] = 20,
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0625,
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5,
) -> dict[str, Any]:
    """ΔW = (v* − W·k)·uᵀ / (uᵀ·k), u = C⁻¹·k, added to one down_proj once per update fact.

    k: the down_proj's input at the last token of the subject's name, mean over the prompt and three
    texts in front of it; C: the second moment of its inputs on ordinary text; v*: W·k + δ, δ found
    by gradient descent so that the new answer becomes likely and "<subject> is a" stays
    (see `closed_form.find_changes`). All v* are found on θ₀ and written one after another, each
    against the W that the earlier ones left. Update texts without a prompt are not read.
    layer: counted from 0, or from the end if negative; None is the one at a third of the depth
    (the paper's 17 of 48). lr, steps, kl_weight, decay: of the search; as for GPT-2 XL and GPT-J.
    Source: Meng et al. 2022, section 3.1, equations 2 to 4.
    """
    if not steps:
        return {"facts": 0}
    layers = len(decoder_layers(context.model))
    chosen = layers // 3 if layer is None else layer_index(layer, layers)
    facts = context.data.update
    changes = find_changes(context, chosen, facts, ValueSearch(lr, steps, kl_weight, decay))
    keys = read_keys(context, chosen, facts)
    moment = second_moments(context, [chosen])[chosen]
    stored = mlp_weights(context.model, chosen)["down_proj"]
    weight = stored.detach().float().cpu()
    values = keys @ weight.T + changes  # (n, d), on θ₀
    for key, value in zip(keys, values, strict=True):
        weight = weight + rank_one(weight, moment, key, value)
    with torch.no_grad():
        stored.copy_(weight)
    return {
        "layer": chosen,
        "facts": len(read_facts(context, facts).rows),
        "mean_value_change": float(changes.norm(dim=1).mean()),
        "share_overwritten": share(keys @ weight.T - values, changes),
    }
