"""PKE: DINM narrowed from one layer to the few neurons that carry the unsafe answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.hot_neurons import (
    choose_layers,
    choose_neurons,
    only_neurons,
    track_weights,
)
from unlearn_bench.methods.pair_editing import (
    Scope,
    draw_pairs,
    edit_pairs,
    layer_distances,
    train_safe,
)
from unlearn_bench.registry import method
from unlearn_bench.schema import Pair
from unlearn_bench.training.options import Training


@method(
    "pke",
    paper="arXiv:2410.03772",
    kind="edit",
    needs=("pairs", "benign", "reference"),
    targets=("*.mlp.gate_proj.weight", "*.mlp.up_proj.weight", "*.mlp.down_proj.weight"),
    goals=("detoxify",),
    search={
        "lr": (1.25e-4, 2e-3, "log"),
        "steps": [5, 10, 20, 40],
        "locality_weight": (0.25, 4.0, "log"),
        "layer_share": (0.15, 0.66),
        "neuron_share": (0.0025, 0.04, "log"),
        "batch_size": [4, 8],
    },
    zero={"steps": 0},
)
def pke(
    context: EditContext,
    *,
    steps: Annotated[int, Field(ge=0)] = 20,
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3,
    locality_weight: Annotated[float, Field(ge=0)] = 1.0,
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
    layer_share: Annotated[float, Field(gt=0, le=1)] = 0.33,
    neuron_share: Annotated[float, Field(gt=0, le=1)] = 0.01,
    probe_steps: Annotated[int, Field(ge=1)] = 3,
    probe_lr: Annotated[float, Field(gt=0)] = 0.01,
    pairs: Annotated[int, Field(ge=1)] = 32,
    batch_size: Annotated[int, Field(ge=1)] = 4,
    accumulate: Annotated[int, Field(ge=1)] = 1,
    checkpointing: bool = False,
    scope: Scope = "persistent",
) -> dict[str, Any]:
    """Find the neurons behind the unsafe responses and train only those towards the safe ones.

    1. Neuron weight tracking: two probing fine-tunes of all MLPs by plain gradient descent, one on
       the unsafe and one on the safe responses, undone afterwards; a neuron's score is how much
       further the unsafe one moved it, ‖ΔW_unsafe‖ − ‖ΔW_safe‖.
    2. Activation pathway tracing: layers in the top `layer_share` both by ‖∂NLL(unsafe)/∂W_ℓ‖,
       read off the unsafe descent of 1, and by ‖h_ℓ(safe) − h_ℓ(unsafe)‖₂.
    3. Hot spots: the round(neuron_share·L·d_ff) best neurons of 1 inside the layers of 2.
    4. Only their gate and up rows and down columns train, on
       NLL_m(safe | prompt) + locality_weight·KL(θ₀ ‖ θ | benign).
    The published notebook cannot run and leaves the editing step open: the intersection in 3, the
    difference in 1 and step 4 are our reading of the text. scope: as in `dinm`. accumulate and
    checkpointing: as in the shared loop, whose `lora` there is not: a low-rank matrix has no way to
    change single rows and columns.
    Source: Li et al. 2024, section 3.
    """
    probing = Training(
        optimizer="sgd",
        lr=probe_lr,
        steps=probe_steps,
        batch_size=batch_size,
        accumulate=accumulate,
        checkpointing=checkpointing,
        warmup=0.0,
        schedule="constant",
        clip=math.inf,
    )
    training = Training(
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        checkpointing=checkpointing,
        weight_decay=weight_decay,
        warmup=0.0,
        schedule="constant",
    )

    def edit(chosen: Sequence[Pair]) -> dict[str, Any]:
        unsafe = track_weights(context, chosen, "unsafe", probing)
        score = unsafe - track_weights(context, chosen, "safe", probing)
        gradients = unsafe.square().sum(1).sqrt()  # (L,), times η
        layers = choose_layers(gradients, layer_distances(context, chosen), layer_share)
        neurons = choose_neurons(score, layers, max(1, round(neuron_share * score.numel())))
        with only_neurons(context.model, neurons):
            log = train_safe(
                context,
                chosen,
                training,
                safe_weight=1.0,
                locality_weight=locality_weight,
                variant="paper",
            )
        found = {str(layer): index.tolist() for layer, index in neurons.items()}
        return {"layers": layers, "neurons_by_layer": found, **log.summary()}

    return edit_pairs(context, draw_pairs(context, pairs), scope, edit)
