"""UNDIAL: distil the model from itself, with the logits of the memorised tokens lowered."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import (
    Model,
    answer_logits,
    answer_targets,
    nll_mean,
    soft_cross_entropy,
)


@method(
    "undial",
    paper="arXiv:2402.10052",
    kind="loss",
    goals=("forget",),
    needs=("forget", "retain", "reference"),
    targets=("*",),
    training={"lr": 0.0004112, "epochs": 3, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "beta": (2.0, 30.0, "log"),
        "alpha": [0.0, 0.25, 1.0],
    },
)
def undial(
    batch: SetBatches,
    policy: Model,
    reference: Model,
    *,
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 28.96,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
) -> Tensor:
    """CE(softmax(z_θ₀ − β·onehot(y)), p_θ), the mean over forget answer tokens, in nats.

    z_θ₀: θ₀'s logits, y: the answer's own token. What θ₀ would say instead of y is what θ learns:
    bounded below by the target's entropy, so it cannot run away as ascent does. alpha adds
    α·NLL_m on the retain set, which the paper does without; with 0 that set is not read.
    Source: Dong et al. 2024, the self-distillation loss with adjusted logits; open-unlearning at
    d3d7cf9, src/trainer/utils.py, averages over prompt and padding too and strikes a token there.
    """
    targets = answer_targets(batch.forget)
    with torch.no_grad():
        wanted = answer_logits(reference, batch.forget)  # (N, V)
        wanted[torch.arange(len(targets), device=wanted.device), targets] -= beta
    loss = soft_cross_entropy(wanted, answer_logits(policy, batch.forget))
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
