"""Shrink and perturb: pull the weights to zero and blur what is left."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method


@method(
    "shrink_perturb",
    paper="arXiv:1910.08475",
    kind="edit",
    goals=("forget",),
    needs=(),
    targets=("*.mlp.down_proj.weight",),
    search={"shrink": (0.5, 1.0), "noise": (0.0, 0.2)},
    zero={"shrink": 1.0, "noise": 0.0},
)
def shrink_perturb(
    context: EditContext,
    *,
    shrink: Annotated[float, Field(gt=0, le=1)] = 0.95,
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02,
) -> dict[str, Any]:
    """Scale every MLP output matrix down and add Gaussian noise: W ← shrink·W + noise·σ(W)·ε.

    σ(W) is the standard deviation of W's own entries, so `noise` means the same in every layer.
    The paper treats all weights; here only `down_proj` changes, because a language model whose
    norms and embeddings shrink says nothing at all.
    Source: Ash and Adams 2020, section 4, with λ = shrink.
    """
    generator = torch.Generator().manual_seed(context.seed)
    edited = 0
    with torch.no_grad():
        for name, weight in context.model.named_parameters():
            if not name.endswith(".mlp.down_proj.weight"):
                continue
            epsilon = torch.randn(weight.shape, generator=generator).to(weight)
            spread = weight.float().std().to(weight)
            weight.mul_(shrink)
            if noise:  # adding zero would turn −0.0 into 0.0
                weight.add_(epsilon * spread, alpha=noise)
            edited += 1
    return {"matrices": edited}
