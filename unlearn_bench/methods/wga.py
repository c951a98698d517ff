"""Weighted gradient ascent: forget tokens count by how likely the model still finds them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, answer_log_probs, nll_mean


@method(
    "wga",
    paper="arXiv:2502.19301",
    kind="loss",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*",),
    training={"lr": 4e-4, "epochs": 1, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "beta": (0.25, 4.0, "log"),
        "alpha": (0.25, 4.0, "log"),
    },
)
def wga(
    batch: SetBatches,
    policy: Model,
    reference: None,
    *,
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
) -> Tensor:
    """mean p^β·log p over forget answer tokens, plus α·NLL_m on retain; in nats.

    p is the policy's probability of the token; the weight p^β carries no gradient. A token that is
    already unlikely weighs nothing, which is what plain ascent (β = 0) lacks.
    Source: Wang et al. 2025 (G-effect), weighted gradient ascent; open-unlearning at d3d7cf9,
    src/trainer/utils.py, compute_wga_loss.
    """
    log_probs = answer_log_probs(policy, batch.forget)  # (N,)
    loss = (log_probs.detach().mul(beta).exp() * log_probs).mean()
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
