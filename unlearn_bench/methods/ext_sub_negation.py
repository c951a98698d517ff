"""Negation of an anti-expert adapter alone, Ext-Sub's ablation without an expert."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.lora_experts import Adapter, norm, train_expert
from unlearn_bench.methods.low_rank import LowRank, merge
from unlearn_bench.registry import method
from unlearn_bench.training.options import Training


@method(
    "ext_sub_negation",
    paper="arXiv:2308.08090",
    kind="edit",
    needs=("toxic",),
    targets=("*.self_attn.q_proj.weight", "*.self_attn.v_proj.weight"),
    goals=("detoxify",),
    search={
        "alpha": (0.25, 4.0, "log"),
        "lr": (5e-4, 8e-3, "log"),
        "epochs": [1, 2, 3],
        "comments": [48, 96],
        "rank": [8, 16, 32],
    },
    zero={"alpha": 0.0},
)
def ext_sub_negation(
    context: EditContext,
    *,
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 1.0,
    rank: Annotated[int, Field(ge=1)] = 16,
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2e-3,
    epochs: Annotated[int, Field(ge=0)] = 2,
    batch_size: Annotated[int, Field(ge=1)] = 8,
    comments: Annotated[int, Field(ge=1)] = 48,
) -> dict[str, Any]:
    """Merge −α·N: the anti-expert N is a LoRA adapter trained on toxic comments.

    The paper's baseline of plain negation. Options and their defaults as in `ext_sub`.
    Source: Hu et al. 2023, section 4; Ilharco et al. 2022, arXiv:2212.04089.
    """
    adapter = Adapter(rank, lora_alpha, dropout)
    training = Training(lr=lr, epochs=epochs, batch_size=batch_size, max_tokens=64)
    anti, log = train_expert(context, context.data.toxic, adapter, training, comments=comments)
    merge(
        context.model,
        {name: LowRank(-alpha * change.b, change.a) for name, change in anti.items()},
    )
    return {"anti_expert": log.summary(), "anti_expert_norm": norm(anti)}
