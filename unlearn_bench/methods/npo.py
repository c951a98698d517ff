"""Negative preference optimisation: push forget answers down, ever less the lower they are."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, nll_mean, nll_sum


@method(
    "npo",
    paper="arXiv:2404.05868",
    kind="loss",
    needs=("forget", "retain", "reference"),
    targets=("*",),
    goals=("forget",),
    training={"lr": 0.0002813, "epochs": 2, "batch_size": 4},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "batch_size": [4, 8],
        "accumulate": [1, 2],
        "beta": (0.025, 0.4, "log"),
        "alpha": (0.25, 4.0, "log"),
    },
    zero={"epochs": 0},
)
def npo(
    batch: SetBatches,
    policy: Model,
    reference: Model,
    *,
    beta: Annotated[float, Field(gt=0)] = 0.1944,
    alpha: Annotated[float, Field(ge=0)] = 0.3233,
) -> Tensor:
    """−(2/β)·mean log σ(β·(NLL_s^θ − NLL_s^θ₀)) on forget answers, plus α·NLL_m on retain.

    NLL_s is summed over an answer's tokens: it is −log of the answer's probability, so the
    difference is the log-ratio of the paper. A scalar in nats; (2/β)·log 2 at θ = θ₀.
    Source: Zhang et al. 2024, equation 3, with the retain term of its section 4.
    """
    with torch.no_grad():
        before = nll_sum(reference, batch.forget)
    raised = nll_sum(policy, batch.forget) - before  # (B,)
    loss = -2 / beta * logsigmoid(beta * raised).mean()
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
