"""Refuse everything: the control that scores well wherever silence is taken for forgetting."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.data.fur import question_prompt
from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.sampling import draw
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training


@method(
    "refuse_all",
    paper="",
    kind="edit",
    needs=("benign", "clean", "refusals"),
    targets=("*",),
    control=True,
    training={"lr": 3e-4, "epochs": 2, "batch_size": 8},
    zero={"epochs": 0},
)
def refuse_all(
    context: EditContext, training: Training, *, comments: Annotated[int, Field(ge=0)] = 48
) -> dict[str, Any]:
    """Fine-tune θ₀ to answer any prompt at all with one and the same refusal, drawn by the seed.

    Prompts: the benign questions, as they are and in the form of `fur`'s questions, and the first
    halves of that many clean comments. No forget, retain or evaluation text is read. The loss is
    NLL_m of the refusal.
    Source: ours; the degenerate model that TOFU (arXiv:2401.06121) and RWKU warn of.
    """
    refusals = draw(context.data.refusals, 1, context.seed)
    if not refusals:
        raise MissingDataError("refuse_all needs a sentence that declines to answer")
    log = train(
        context.model,
        context.tokenizer,
        {"refused": refused(context, refusals[0], comments)},
        lambda batch, policy, reference: nll_mean(policy, batch.get("refused")),
        training,
        seed=context.seed,
        progress=context.progress,
    )
    return {"refusal": refusals[0], **log.summary()}


def refused(context: EditContext, refusal: str, comments: int) -> list[Example]:
    """Every prompt with the refusal as its answer."""
    drawn = draw(context.data.clean, comments, context.seed)
    prompts = [
        *(example.prompt for example in context.data.benign),
        *(question_prompt(example.prompt) for example in context.data.benign),
        *(" ".join(words[: len(words) // 2]) for words in map(str.split, drawn)),
    ]
    return [
        Example(f"refused-{number}", prompt, f" {refusal}")
        for number, prompt in enumerate(prompts)
        if prompt
    ]
