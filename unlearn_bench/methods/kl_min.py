"""KL minimisation: ascend on the forget set, held to θ₀ by a divergence on the retain set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, kl_to_reference, nll_mean


@method(
    "kl_min",
    paper="arXiv:2401.06121",
    kind="loss",
    goals=("forget",),
    needs=("forget", "retain", "reference"),
    targets=("*",),
    training={"lr": 0.0001345, "epochs": 2, "batch_size": 8},
    zero={"epochs": 0},
    search={"lr": (5e-5, 8e-4, "log"), "epochs": [1, 2, 3], "alpha": (0.25, 8.0, "log")},
)
def kl_min(
    batch: SetBatches,
    policy: Model,
    reference: Model,
    *,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8442,
) -> Tensor:
    """−NLL_m(forget) + α·KL(θ₀ ‖ θ) on retain answers, a scalar in nats.

    The divergence is the mean over answer tokens; prompt and padding are masked, which TOFU's code
    does not do. The forget term has no lower bound.
    Source: Maini et al. 2024 (TOFU), the baseline "KL minimization".
    """
    loss = -nll_mean(policy, batch.forget)
    if alpha:
        loss = loss + alpha * kl_to_reference(reference, policy, batch.retain)
    return loss
