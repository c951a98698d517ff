"""RMU: steer the forget set's hidden states to a random direction, keep the retain set's."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import mlp_weights, only_trainable
from unlearn_bench.models.layers import decoder_layers, layer_index
from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.hidden import answer_states
from unlearn_bench.training.likelihood import Model
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

TRAINED_LAYERS = 3


@method(
    "rmu",
    paper="arXiv:2403.03218",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain", "reference"),
    targets=("*.mlp.down_proj.weight",),
    layers=3,
    training={"lr": 4e-3, "epochs": 2, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (1e-4, 5e-3, "log"),
        "epochs": [1, 2, 4],
        "steering": (5.0, 300.0, "log"),
        "alpha": (0.3, 300.0, "log"),
    },
)
def rmu(
    context: EditContext,
    training: Training,
    *,
    layer: int | None = None,
    steering: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 50.0,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
) -> dict[str, Any]:
    """mean ‖h_ℓ − c·u‖² on forget + α·mean ‖h_ℓ − h_ℓ^θ₀‖² on retain; means over tokens.

    h_ℓ: output of layer ℓ at the positions that predict answer tokens. u: a unit vector with
    entries drawn from U(0, 1) by the seed and then normalised. Only the down_proj of layers ℓ − 2
    to ℓ are trained. layer: ℓ, counted from 0, or from the end if negative; None is the one at a
    quarter of the depth (the paper's 7 of 32). steering: c, in the units of the hidden state; the
    authors' c = 6.5 and α = 1200 are for Zephyr-7B. Their code takes means over the hidden size
    where the formula has squared norms: another scale of the whole loss, the same minimum.
    Source: Li et al. 2024 (WMDP), section 4, the RMU loss; rmu/unlearn.py of the authors' code.
    """
    layers = len(decoder_layers(context.model))
    chosen = layers // 4 if layer is None else layer_index(layer, layers)
    trained = [
        mlp_weights(context.model, index)["down_proj"]
        for index in range(max(0, chosen - TRAINED_LAYERS + 1), chosen + 1)
    ]
    goal = steering * control_vector(trained[0].shape[0], context.seed)

    def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
        value = distance(answer_states(policy, chosen, batch.forget), goal)
        if alpha:
            with torch.no_grad():
                kept = answer_states(reference, chosen, batch.retain)
            value = value + alpha * distance(answer_states(policy, chosen, batch.retain), kept)
        return value

    with only_trainable(context.model, trained):
        log = train(
            context.model,
            context.tokenizer,
            {"forget": context.data.forget, "retain": context.data.retain},
            loss,
            training,
            seed=context.seed,
            reference=context.reference if alpha else None,
            progress=context.progress,
        )
    return {"layer": chosen, **log.summary()}


def distance(states: Tensor, goal: Tensor) -> Tensor:
    """mean ‖states − goal‖², states (N, d), goal (d,) or (N, d). A scalar in fp32."""
    gap = states.float() - goal.to(states.device).float()
    return gap.square().sum(dim=-1).mean()


def control_vector(size: int, seed: int) -> Tensor:
    """u: (size,) float32, entries from U(0, 1), of norm 1."""
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = drawn / drawn.norm()
    return unit
