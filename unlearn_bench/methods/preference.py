"""Preference losses on forget answers: another answer is to be preferred to the one remembered.

B rows in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches, TokenBatch, collate, encode, pad_id_of
from unlearn_bench.training.likelihood import Model, nll_mean, nll_sum
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

Choose = Callable[[TokenBatch], TokenBatch]


def questions(examples: Sequence[Example], method: str) -> list[Example]:
    """The examples with a prompt: a text alone asks nothing that could be answered otherwise.

    Raises MissingDataError when there is none.
    """
    if asked := [example for example in examples if example.prompt]:
        return asked
    raise MissingDataError(
        f"{method} prefers another answer to each forget question, and no forget text has a prompt",
        next_step="give forget texts as prompt and answer, or choose a method for plain texts",
    )


def dpo(
    policy: Model, reference: Model, chosen: TokenBatch, rejected: TokenBatch, beta: float
) -> Tensor:
    """−(2/β)·mean log σ(β·[Δ(chosen) − Δ(rejected)]), Δ = log p_θ − log p_θ₀ of a whole answer.

    Row i of both batches answers the same prompt. A scalar in nats; (2/β)·log 2 at θ = θ₀. The
    factor 2 makes it comparable with NPO, which is this loss without its chosen answers.
    Source: Rafailov et al. 2023, equation 7, scaled as in Zhang et al. 2024 (arXiv:2404.05868).
    """
    with torch.no_grad():
        before = nll_sum(reference, chosen) - nll_sum(reference, rejected)  # (B,)
    preferred = before - (nll_sum(policy, chosen) - nll_sum(policy, rejected))
    return -2 / beta * logsigmoid(beta * preferred).mean()


def answers_by_id(
    context: EditContext, training: Training, answers: Mapping[str, Sequence[Example]]
) -> Choose:
    """Batches of other answers to the questions of a batch, row by row.

    answers: by a question's id, those that may stand in its place; each question goes through its
    own in turn, one per time that it is asked for.
    """
    pad, turns = pad_id_of(context.tokenizer), dict.fromkeys(answers, 0)
    encoded = {
        id_: encode(context.tokenizer, own, training.max_tokens) for id_, own in answers.items()
    }

    def choose(batch: TokenBatch) -> TokenBatch:
        rows = []
        for id_ in batch.ids:
            rows.append(encoded[id_][turns[id_] % len(encoded[id_])])
            turns[id_] += 1
        return collate(rows, pad).to(batch.labels.device)

    return choose


def train_preference(
    context: EditContext,
    training: Training,
    asked: Sequence[Example],
    choose: Choose,
    *,
    beta: float,
    alpha: float,
) -> dict[str, Any]:
    """Minimise dpo(chosen answers over forget answers) + α·NLL_m(retain); returns the log."""

    def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
        value = dpo(policy, reference, choose(batch.forget), batch.forget, beta)
        if alpha:
            value = value + alpha * nll_mean(policy, batch.retain)
        return value

    log = train(
        context.model,
        context.tokenizer,
        {"forget": asked, "retain": context.data.retain},
        loss,
        training,
        seed=context.seed,
        reference=context.reference,
        progress=context.progress,
    )
    return log.summary()
