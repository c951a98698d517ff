"""Task vector negation: learn the forget set better, then go as far the other way."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training


@method(
    "task_vector",
    paper="arXiv:2212.04089",
    kind="edit",
    goals=("forget",),
    needs=("forget", "reference"),
    targets=("*",),
    training={"lr": 1e-4, "epochs": 2, "batch_size": 8},
    zero={"scale": 0.0},
    search={
        "lr": (2e-5, 8e-4, "log"),
        "epochs": [1, 2, 4],
        "scale": (0.25, 8.0, "log"),
    },
)
def task_vector(
    context: EditContext,
    training: Training,
    *,
    scale: Annotated[float, Field(allow_inf_nan=False)] = 3.0,
) -> dict[str, Any]:
    """θ = θ₀ − λ·(θ_ft − θ₀), θ_ft fine-tuned from θ₀ with NLL_m on the forget set.

    scale: λ. A tensor that the training left alone is left alone. `ext_sub_negation` is the same
    idea with a low-rank anti-expert on toxic comments.
    Source: Ilharco et al. 2022, section 3 (forgetting via negation).
    """
    before = dict(context.reference().named_parameters())
    log = train(
        context.model,
        context.tokenizer,
        {"forget": context.data.forget},
        lambda batch, policy, reference: nll_mean(policy, batch.forget),
        training,
        seed=context.seed,
        progress=context.progress,
    )
    length = negate(context.model, before, scale)
    return {**log.summary(), "task_vector_norm": length}


@torch.no_grad()
def negate(model: nn.Module, before: dict[str, Tensor], scale: float) -> float:
    """θ ← θ₀ − scale·(θ − θ₀) in place, in float32; returns ‖θ − θ₀‖₂ as it was.

    Where θ = θ₀, and everywhere at scale 0, the bits of θ₀ stay. Integer tensors keep θ₀'s value.
    """
    squares = 0.0
    for name, weight in model.named_parameters():
        old = before[name].to(weight.device)
        if not weight.is_floating_point() or scale == 0:
            weight.copy_(old)
            continue
        vector = weight.float() - old.float()
        squares += float(vector.square().sum(dtype=torch.float64))
        weight.copy_(torch.where(vector == 0, old.float(), old.float() - scale * vector))
    return float(squares**0.5)
