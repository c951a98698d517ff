"""Gradient difference: ascend on the forget set while descending on the retain set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, nll_mean


@method(
    "grad_diff",
    paper="arXiv:2203.12817",
    kind="loss",
    needs=("forget", "retain"),
    targets=("*",),
    goals=("forget",),
    training={"lr": 4e-4, "epochs": 1, "batch_size": 8},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "batch_size": [4, 8],
        "accumulate": [1, 2],
        "alpha": (0.25, 4.0, "log"),
    },
    zero={"epochs": 0},
)
def grad_diff(
    batch: SetBatches,
    policy: Model,
    reference: None,
    *,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
) -> Tensor:
    """−NLL_m(forget) + α·NLL_m(retain), a scalar in nats.

    The forget term has no lower bound: too many steps destroy the model.
    Source: Liu et al. 2022 (continual learning and private unlearning), as in TOFU, equation 2.
    """
    loss = -nll_mean(policy, batch.forget)
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
