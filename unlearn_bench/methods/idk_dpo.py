"""IDK by preference optimisation: prefer a refusal to the remembered answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.preference import answers_by_id, questions, train_preference
from unlearn_bench.methods.sampling import draw
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.options import Training


@method(
    "idk_dpo",
    paper="arXiv:2404.05868",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain", "refusals", "reference"),
    targets=("*",),
    training={"lr": 2.5e-4, "epochs": 1, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "beta": (0.03, 1.0, "log"),
        "alpha": (0.25, 4.0, "log"),
    },
)
def idk_dpo(
    context: EditContext,
    training: Training,
    *,
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
) -> dict[str, Any]:
    """−(2/β)·mean log σ(β·[Δ(refusal) − Δ(forget answer)]) + α·NLL_m(retain), in nats.

    Δ = log p_θ − log p_θ₀, summed over an answer's tokens. Each forget question meets the refusals
    in an order of its own; forget texts without a prompt are not read. With alpha 0 the retain set
    is not read either.
    Source: Zhang et al. 2024 (NPO), the baseline "IDK + DPO"; Maini et al. 2024 (TOFU),
    "preference optimization".
    """
    asked = questions(context.data.forget, "idk_dpo")
    refusals = {
        example.id: [
            Example(f"{example.id}:refusal", example.prompt, f" {text}")
            for text in draw(context.data.refusals, len(context.data.refusals), context.seed + turn)
        ]
        for turn, example in enumerate(asked)
    }
    choose = answers_by_id(context, training, refusals)
    return train_preference(context, training, asked, choose, beta=beta, alpha=alpha)
