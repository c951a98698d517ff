"""Ext-Sub: subtract an anti-expert's deficiency, and keep the ability it shares with an expert."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.lora_experts import Adapter, combine_experts
from unlearn_bench.methods.low_rank import extract
from unlearn_bench.registry import method
from unlearn_bench.training.options import Training


@method(
    "ext_sub",
    paper="arXiv:2308.08090",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.self_attn.q_proj.weight", "*.self_attn.v_proj.weight"),
    goals=("detoxify",),
    search={
        "alpha": (0.25, 4.0, "log"),
        "lr": (1e-3, 1.6e-2, "log"),
        "epochs": [1, 2, 3],
        "comments": [48, 96],
        "rank": [8, 16, 32],
    },
    zero={"epochs": 0},
)
def ext_sub(
    context: EditContext,
    *,
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 1.0,
    rank: Annotated[int, Field(ge=1)] = 16,
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4e-3,
    epochs: Annotated[int, Field(ge=0)] = 2,
    batch_size: Annotated[int, Field(ge=1)] = 8,
    comments: Annotated[int, Field(ge=1)] = 48,
) -> dict[str, Any]:
    """Merge P − α·(N without what it shares with P), row by row, from two LoRA adapters.

    P is trained on clean comments, N on toxic ones, both from θ₀; then per output row
        c = unit(unit(P) + unit(N));  out = P − α·N + α·(N·c)·c
    in its closed form of rank 2·`rank` (see `low_rank.extract`). α = 0 leaves the expert.
    comments: of each kind, cut at 64 tokens. The paper's lr of 2e-5 is for 7B models and thousands
    of texts; for the default see docs/design/edits.md.
    Source: Hu et al. 2023, section 3, with its own LoRA shape on q_proj and v_proj.
    """
    return combine_experts(
        context,
        lambda expert, anti: extract(expert, anti, alpha),
        Adapter(rank, lora_alpha, dropout),
        Training(lr=lr, epochs=epochs, batch_size=batch_size, max_tokens=64),
        comments=comments,
    )
