"""Gradient ascent on the forget set, until it looks like text the model has never seen."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.memorization import Memorization, measure_memorization
from unlearn_bench.training.options import Training


@method(
    "gradient_ascent",
    paper="arXiv:2210.01504",
    kind="edit",
    needs=("forget", "benign"),
    targets=("*",),
    goals=("forget",),
    training={"lr": 7.5e-5, "epochs": 2, "batch_size": 8},
    search={"lr": (2e-5, 3e-4, "log"), "epochs": [1, 2, 3, 4], "batch_size": [4, 8]},
    zero={"epochs": 0},
)
def gradient_ascent(
    context: EditContext,
    training: Training,
    *,
    early_stop: bool = True,
    stop_texts: Annotated[int, Field(ge=1)] = 8,
    stop_ngram: Annotated[int, Field(ge=1)] = 2,
) -> dict[str, Any]:
    """Minimise −NLL_m(forget), checking after each epoch whether the set is forgotten.

    Forgotten: extraction likelihood (EL of `stop_ngram`-grams) and memorisation accuracy on
    `stop_texts` forget texts are both at or below θ₀'s on as many texts it has not seen. Unseen are
    the benign texts: θ₀ was trained on the retain set. The paper takes 10-grams of long documents;
    most answers here have under ten tokens.
    Source: Jang et al. 2022, section 3 and equations 1 to 3.
    """
    measured: list[Memorization] = []

    def measure(name: str) -> Memorization:
        return measure_memorization(
            context.model,
            context.tokenizer,
            getattr(context.data, name),
            count=stop_texts,
            ngram=stop_ngram,
            seed=context.seed,
        )

    unseen = measure("benign") if early_stop and training.steps != 0 and training.epochs else None

    def forgotten() -> bool:
        measured.append(measure("forget"))
        return unseen is not None and measured[-1].within(unseen)

    log = train(
        context.model,
        context.tokenizer,
        {"forget": context.data.forget},
        lambda batch, policy, reference: -nll_mean(policy, batch.forget),
        training,
        seed=context.seed,
        stop=forgotten if unseen else None,
        progress=context.progress,
    )
    if unseen is None:
        return log.summary()
    after_each_epoch = [asdict(found) for found in measured]
    return {**log.summary(), "unseen": asdict(unseen), "after_each_epoch": after_each_epoch}
