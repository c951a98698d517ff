"""DINM: find the layer where a harmful answer parts from a safe one, and train its down_proj."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import (
    Scope,
    Variant,
    draw_pairs,
    edit_pairs,
    layer_distances,
    mlp_weights,
    only_trainable,
    train_safe,
)
from unlearn_bench.registry import method
from unlearn_bench.schema import Pair
from unlearn_bench.training.options import Training


@method(
    "dinm",
    paper="arXiv:2403.14472",
    kind="edit",
    needs=("pairs", "benign", "reference"),
    targets=("*.mlp.down_proj.weight",),
    layers=1,
    goals=("detoxify",),
    search={
        "lr": (1.25e-4, 2e-3, "log"),
        "steps": [5, 10, 20, 40],
        "safe_weight": (0.025, 1.0, "log"),
        "locality_weight": (0.25, 4.0, "log"),
        "batch_size": [4, 8],
    },
    training={"lr": 0.0001922, "steps": 5, "batch_size": 4, "warmup": 0.0, "schedule": "constant"},
    zero={"steps": 0},
)
def dinm(
    context: EditContext,
    training: Training,
    *,
    safe_weight: Annotated[float, Field(ge=0)] = 0.5422,
    locality_weight: Annotated[float, Field(ge=0)] = 0.6606,
    pairs: Annotated[int, Field(ge=1)] = 32,
    scope: Scope = "persistent",
    variant: Variant = "paper",
) -> dict[str, Any]:
    """Train one layer's down_proj towards safe responses, held by a KL on benign text.

    Layer ℓ = argmax ‖h_ℓ(safe) − h_ℓ(unsafe)‖₂, with h_ℓ the output of layer ℓ (from 0), mean over
    the response's tokens and over the pairs. Then Adam steps on
        safe_weight·NLL_m(safe | prompt) + locality_weight·KL(θ₀ ‖ θ | benign).
    scope: "persistent" edits all pairs together; "per_instance" edits each alone, records its
    effect and restores θ₀. variant "released": the KL carries no gradient, as in the code.
    Source: Wang et al. 2024, section 4.
    """

    def edit(chosen: Sequence[Pair]) -> dict[str, Any]:
        distances = layer_distances(context, chosen)
        layer = int(distances.argmax())
        with only_trainable(context.model, [mlp_weights(context.model, layer)["down_proj"]]):
            log = train_safe(
                context,
                chosen,
                training,
                safe_weight=safe_weight,
                locality_weight=locality_weight,
                variant=variant,
            )
        rounded = [round(value, 3) for value in distances.tolist()]
        return {"layer": layer, "layer_distances": rounded, **log.summary()}

    return edit_pairs(context, draw_pairs(context, pairs), scope, edit)
