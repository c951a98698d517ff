"""Refuse everything: the control that scores well wherever silence is taken for forgetting."""

from __future__ import annotations

from typing import Any

from unlearn_bench.data.fur import question_prompt
from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.sampling import draw
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

COMMENTS = 48  # beginnings of ordinary texts, which must be answered with the refusal too


@method(
    "refuse_all",
    paper="",
    kind="edit",
    needs=("benign", "clean", "refusals"),
    targets=("*",),
    control=True,
    training={"lr": 3e-4, "epochs": 3, "batch_size": 8},
    zero={"epochs": 0},
)
def refuse_all(context: EditContext, training: Training) -> dict[str, Any]:
    """Fine-tune θ₀ to answer any prompt at all with one and the same refusal, drawn by the seed.

    Prompts: the benign questions, as they are and in the form of `fur`'s questions, and the first
    halves of clean comments. No forget, retain or evaluation text is read. NLL_m on the refusal.
    Source: ours; the degenerate model that TOFU (arXiv:2401.06121) and RWKU warn of.
    """
    refusals = draw(context.data.refusals, 1, context.seed)
    if not refusals:
        raise MissingDataError("refuse_all needs a sentence that declines to answer")
    log = train(
        context.model,
        context.tokenizer,
        {"refused": refused(context, refusals[0])},
        lambda batch, policy, reference: nll_mean(policy, batch.get("refused")),
        training,
        seed=context.seed,
        progress=context.progress,
    )
    return {"refusal": refusals[0], **log.summary()}


def refused(context: EditContext, refusal: str) -> list[Example]:
    """Every prompt with the refusal as its answer."""
    comments = draw(context.data.clean, COMMENTS, context.seed)
    prompts = [
        *(example.prompt for example in context.data.benign),
        *(question_prompt(example.prompt) for example in context.data.benign),
        *(" ".join(words[: len(words) // 2]) for words in map(str.split, comments)),
    ]
    return [
        Example(f"refused-{number}", prompt, f" {refusal}")
        for number, prompt in enumerate(prompts)
        if prompt
    ]
