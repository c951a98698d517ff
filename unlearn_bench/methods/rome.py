"""ROME: write new facts into one MLP, each by an update of rank one in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.methods.closed_form import (
    Per,
    ValueSearch,
    directions,
    find_changes,
    mean_by_owner,
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
    search={"layer": [None, 5, 14, 18], "lr": (0.1, 2.0, "log"), "decay": [0.0, 0.5]},
)
def rome(
    context: EditContext,
    *,
    layer: int | None = None,
    per: Per = "subject",
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.204,
    steps: Annotated[int, Field(ge=0)] = 20,
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0625,
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5,
) -> dict[str, Any]:
    """ΔW = (v* − W·k)·uᵀ / (uᵀ·k), u = C⁻¹·k, added to one down_proj once per memory.

    k: the down_proj's input at the last token of a subject's name, mean over its questions and over
    two texts in front of each; C: the second moment of the inputs on ordinary text; v*: W·k + δ, δ
    found by gradient descent so that the new answers become likely and "<subject> is a" stays (see
    `closed_form.find_changes`). All v* are found on θ₀ and written one after another, each against
    the W that the earlier ones left. Update texts without a prompt are not read.
    per: "subject" writes one v* that serves all new facts of a subject; "fact" one for each, as in
    the paper, whose data have one fact per subject: keys of one subject hardly differ, and each
    write then undoes the one before. layer: counted from 0, or from the end if negative; None is
    the one at a third of the depth (the paper's 17 of 48). lr, steps, kl_weight, decay: of the
    search, as for GPT-2 XL and GPT-J.
    Source: Meng et al. 2022, section 3.1, equations 2 to 4.
    """
    if not steps:
        return {"facts": 0}
    layers = len(decoder_layers(context.model))
    chosen = layers // 3 if layer is None else layer_index(layer, layers)
    facts = read_facts(context, context.data.update, per)
    changes = find_changes(context, chosen, facts, ValueSearch(lr, steps, kl_weight, decay))
    keys = mean_by_owner(read_keys(context, chosen, context.data.update), facts.owners)
    ways = directions(second_moments(context, [chosen])[chosen], keys)
    stored = mlp_weights(context.model, chosen)["down_proj"]
    weight = stored.detach().float().cpu()
    values = keys @ weight.T + changes  # (m, d), on θ₀
    for key, way, value in zip(keys, ways, values, strict=True):
        weight = weight + rank_one(weight, way, key, value)
    with torch.no_grad():
        stored.copy_(weight)
    return {
        "layer": chosen,
        "facts": len(facts.rows),
        "memories": len(facts.names),
        "mean_value_change": float(changes.norm(dim=1).mean()),
        "share_overwritten": share(keys @ weight.T - values, changes),
    }
