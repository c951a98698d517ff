"""AltPO: prefer another plausible answer, written by the model itself, to the remembered one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.preference import answers_by_id, questions, train_preference
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import encode, pad_id_of
from unlearn_bench.training.options import Training
from unlearn_bench.training.precision import autocast

MAX_NEW_TOKENS = 24
TOP_P = 0.9
ROWS = 32  # questions answered at once


@method(
    "altpo",
    paper="arXiv:2409.13474",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain", "reference"),
    targets=("*",),
    training={"lr": 0.0001122, "epochs": 2, "batch_size": 8},
    zero={"epochs": 0},
    search={
        "lr": (5e-5, 8e-4, "log"),
        "epochs": [1, 2, 3],
        "beta": (0.03, 1.0, "log"),
        "alpha": (0.25, 4.0, "log"),
    },
)
def altpo(
    context: EditContext,
    training: Training,
    *,
    alternatives: Annotated[int, Field(ge=1)] = 2,
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3415,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4176,
) -> dict[str, Any]:
    """−(2/β)·mean log σ(β·[Δ(alternative) − Δ(forget answer)]) + α·NLL_m(retain), in nats.

    Δ = log p_θ − log p_θ₀, summed over an answer's tokens. θ₀ writes `alternatives` answers to each
    forget question before training: sampled (top-p 0.9) with the remembered answer's first token
    struck out, so that a model which knows one answer by heart still gives another of its kind. The
    paper instead asks an instruction-tuned model for "an alternate answer", which models of this
    size do not follow. Forget texts without a prompt are not read.
    Source: Mekala et al. 2025, the AltPO loss with several alternative labels per question.
    """
    asked = questions(context.data.forget, "altpo")
    if training.steps == 0 or not training.epochs:
        written: dict[str, list[Example]] = {example.id: [example] for example in asked}
    else:
        written = write_alternatives(context, asked, alternatives)
    choose = answers_by_id(context, training, written)
    log = train_preference(context, training, asked, choose, beta=beta, alpha=alpha)
    first = {id_: own[0].answer for id_, own in list(written.items())[:4]}
    return {**log, "alternatives": alternatives, "first_alternatives": first}


def write_alternatives(
    context: EditContext, asked: Sequence[Example], count: int
) -> dict[str, list[Example]]:
    """`count` answers of the model as it is to each question, by the question's id.

    One line each, "…" where the model has nothing to say. Seeded; the caller's random state is left
    alone.
    """
    found: dict[str, list[Example]] = {example.id: [] for example in asked}
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        for turn in range(count):
            for start in range(0, len(asked), ROWS):
                rows = asked[start : start + ROWS]
                for example, text in zip(rows, _sample(context, rows), strict=True):
                    line = text.strip().split("\n")[0].strip() or "…"
                    name = f"{example.id}:alternative-{turn}"
                    found[example.id].append(Example(name, example.prompt, f" {line}"))
            context.progress("writing alternatives", turn + 1, count)
    return found


@torch.no_grad()
def _sample(context: EditContext, rows: Sequence[Example]) -> list[str]:
    """One sampled continuation of every prompt, its own answer's first token struck out."""
    encoded, pad = encode(context.tokenizer, rows), pad_id_of(context.tokenizer)
    device = context.model.device
    width = max(row.answer_start for row in encoded)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(encoded):
        ids[i, width - row.answer_start :] = torch.tensor(row.tokens[: row.answer_start])
        mask[i, width - row.answer_start :] = 1
    first = torch.tensor([row.tokens[row.answer_start] for row in encoded], device=device)

    def strike(tokens: Tensor, scores: Tensor) -> Tensor:
        struck = tokens.shape[1] == width
        return scores.scatter(1, first[:, None], -torch.inf) if struck else scores

    with autocast(device):
        written: Any = context.model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            do_sample=True,
            top_p=TOP_P,
            top_k=0,
            temperature=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=pad,
            logits_processor=[strike],
        )
    texts: list[str] = context.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
    return texts
