"""SatImp: ascent weighted by saturation (is it still known?) and importance (is it hard?)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, answer_log_probs, nll_mean


@method(
    "satimp",
    paper="arXiv:2505.11953",
    kind="loss",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*",),
    training={"lr": 0.0002163, "epochs": 3, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "saturation": (0.5, 8.0, "log"),
        "gamma": (0.1, 10.0, "log"),
    },
)
def satimp(
    batch: SetBatches,
    policy: Model,
    reference: None,
    *,
    saturation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.037,
    importance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.538,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
) -> Tensor:
    """γ·mean p^β₁·(1 − p)^β₂·log p over forget answer tokens, plus α·NLL_m on retain; in nats.

    p is the policy's probability of the token; the weights carry no gradient. saturation is β₁,
    importance β₂. Tokens that are
    unlikely already (saturated), or certain (p near 1), weigh little.
    Source: Yang et al. 2025, the SatImp weights; open-unlearning at d3d7cf9, src/trainer/utils.py,
    compute_satimp_loss. Its class has γ = 1 and α = 0.1, its configuration γ = 0.1 and α = 1.
    """
    log_probs = answer_log_probs(policy, batch.forget)  # (N,)
    known = log_probs.detach().exp()
    loss = gamma * (known**saturation * (1 - known) ** importance * log_probs).mean()
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
