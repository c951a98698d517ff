"""PDU: flatten the logits on forget answers, under a constraint on the retain loss."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, answer_logits, nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training


@method(
    "pdu",
    paper="arXiv:2506.05314",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*",),
    training={"lr": 0.00017, "epochs": 3, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "alpha": (1.0, 100.0, "log"),
        "dual_step": (0.1, 30.0, "log"),
    },
)
def pdu(
    context: EditContext,
    training: Training,
    *,
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 35.1,
    dual_step: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.392,
) -> dict[str, Any]:
    """Minimise flatness(forget) + α·(NLL_m(retain) − ε), with α itself in training.

    flatness = mean (max z − mean z)² over forget answer tokens, z their logits: zero exactly for a
    uniform guess. Before each step's gradient is used, α ← max(0, α + dual_step·(NLL_m − ε)): the
    price of the constraint NLL_m(retain) ≤ ε, in nats per token, which rises while it is broken.
    alpha is its first value. The authors hold it for five of ten epochs before the first update.
    Source: Entesari et al. 2025, the logit-margin flattening loss and its primal-dual algorithm;
    open-unlearning at d3d7cf9, src/trainer/unlearn/pdu.py, whose mask stands one token late.
    """
    prices = [alpha]

    def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
        excess = nll_mean(policy, batch.retain) - epsilon
        value = flatness(answer_logits(policy, batch.forget)) + prices[-1] * excess
        step = dual_step / training.accumulate  # one update per optimiser step, in its parts
        prices.append(max(0.0, prices[-1] + step * float(excess.detach())))
        return value

    log = train(
        context.model,
        context.tokenizer,
        {"forget": context.data.forget, "retain": context.data.retain},
        loss,
        training,
        seed=context.seed,
        progress=context.progress,
    )
    return {**log.summary(), "last_price": prices[-1], "highest_price": max(prices)}


def flatness(logits: Tensor) -> Tensor:
    """mean (max z − mean z)² over rows of logits (N, V). A scalar, 0 for uniform rows."""
    wide = logits.float()
    return (wide.amax(dim=1) - wide.mean(dim=1)).square().mean()
