"""Plain subtraction of adapters, Ext-Sub's ablation: nothing shared is kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.lora_experts import Adapter, combine_experts
from unlearn_bench.methods.low_rank import subtract
from unlearn_bench.registry import method
from unlearn_bench.training.options import Training


@method(
    "ext_sub_plain",
    paper="arXiv:2308.08090",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.self_attn.q_proj.weight", "*.self_attn.v_proj.weight"),
    goals=("detoxify",),
    search={
        "alpha": (0.25, 4.0, "log"),
        "lr": (5e-4, 8e-3, "log"),
        "epochs": [1, 2, 3],
        "comments": [48, 96],
        "rank": [8, 16, 32],
    },
    zero={"epochs": 0},
)
def ext_sub_plain(
    context: EditContext,
    *,
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 0.7161,
    rank: Annotated[int, Field(ge=1)] = 32,
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.003684,
    epochs: Annotated[int, Field(ge=0)] = 3,
    batch_size: Annotated[int, Field(ge=1)] = 8,
    comments: Annotated[int, Field(ge=1)] = 96,
) -> dict[str, Any]:
    """Merge P − α·N from two LoRA adapters: expert P on clean, anti-expert N on toxic comments.

    The paper's ablation of the extraction step. Options and their defaults as in `ext_sub`.
    Source: Hu et al. 2023, section 4.
    """
    return combine_experts(
        context,
        lambda expert, anti: subtract(expert, anti, alpha),
        Adapter(rank, lora_alpha, dropout),
        Training(lr=lr, epochs=epochs, batch_size=batch_size, max_tokens=64),
        comments=comments,
    )
