"""LLM Surgery: forget, outdate, update and retain in one weighted loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import (
    Model,
    kl_to_reference,
    nll_mean,
    soft_cross_entropy_everywhere,
)

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@method(
    "llm_surgery",
    paper="arXiv:2409.13054",
    kind="loss",
    needs=("forget", "old", "update", "retain", "reference"),
    optional=("forget", "old", "update"),
    targets=("*",),
    goals=("forget", "update"),
    training={
        "lr": 0.0001643,
        "steps": 24,
        "batch_size": 8,
        "schedule": "constant",
        "warmup": 0.0,
        "beta2": 0.95,
    },
    search={
        "lr": (6e-5, 1e-3, "log"),
        "steps": [8, 16, 24, 32],
        "batch_size": [4, 8],
        "forget_weight": (0.025, 0.4, "log"),
        "old_weight": (0.025, 0.4, "log"),
        "update_weight": (0.5, 8.0, "log"),
        "retain_weight": (0.125, 2.0, "log"),
    },
    zero={"steps": 0},
)
def llm_surgery(
    batch: SetBatches,
    policy: Model,
    reference: Model,
    *,
    forget_weight: Weight = 0.05192,
    old_weight: Weight = 0.2223,
    update_weight: Weight = 0.5158,
    retain_weight: Weight = 0.1511,
    variant: Literal["paper", "released"] = "paper",
) -> Tensor:
    """−λ_f·NLL(forget) − λ_o·NLL(old) + λ_u·NLL(update) + λ_r·KL(θ₀ ‖ θ on retain), in nats.

    NLLs are means over answer tokens. A set whose weight is 0 is never read; the term of an empty
    set falls away, as where nothing is to be updated or forgotten. variant "released":
    the retain term of the authors' code, soft cross-entropy averaged over padding too, which has
    the KL's gradient and is not zero at θ = θ₀.
    Source: Veldanda et al. 2024, equation 1.
    """
    loss = tensor(0.0, device=policy.device)
    if forget_weight and batch.has("forget"):
        loss = loss - forget_weight * nll_mean(policy, batch.forget)
    if old_weight and batch.has("old"):
        loss = loss - old_weight * nll_mean(policy, batch.old)
    if update_weight and batch.has("update"):
        loss = loss + update_weight * nll_mean(policy, batch.update)
    if retain_weight:
        keep = kl_to_reference if variant == "paper" else soft_cross_entropy_everywhere
        loss = loss + retain_weight * keep(reference, policy, batch.retain)
    return loss
