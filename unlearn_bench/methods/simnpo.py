"""SimNPO: NPO without a reference model, on likelihoods normalised by length."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, answer_lengths, nll_mean, nll_sum


@method(
    "simnpo",
    paper="arXiv:2410.07163",
    kind="loss",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*",),
    training={"lr": 0.0006675, "epochs": 3, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "beta": (1.0, 6.0),
        "gamma": (0.0625, 2.0, "log"),
    },
)
def simnpo(
    batch: SetBatches,
    policy: Model,
    reference: None,
    *,
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.644,
    delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1003,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
) -> Tensor:
    """γ·[−(2/β)·mean log σ(β·(NLL_s/|y| − δ))] on forget answers, plus α·NLL_m on retain.

    NLL_s/|y| is an answer's negative log-likelihood per token, in nats; δ is the margin that the
    paper calls γ. The forget term's gradient fades for answers whose loss is far above δ.
    Source: Fan et al. 2024, the SimNPO loss; γ, β and δ as configured for TOFU in open-unlearning
    at d3d7cf9 (configs/trainer/SimNPO.yaml).
    """
    per_token = nll_sum(policy, batch.forget) / answer_lengths(batch.forget)  # (B,)
    loss = -gamma * 2 / beta * logsigmoid(beta * (per_token - delta)).mean()
    if alpha:
        loss = loss + alpha * nll_mean(policy, batch.retain)
    return loss
