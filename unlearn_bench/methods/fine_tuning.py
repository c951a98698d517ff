"""Plain fine-tuning on what should hold, in the hope that the rest fades."""

from __future__ import annotations

from typing import Any

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training


@method(
    "fine_tuning",
    paper="",
    kind="edit",
    needs=("retain", "update"),
    optional=("update",),
    targets=("*",),
    goals=("forget", "update"),
    training={"lr": 4e-4, "epochs": 2, "batch_size": 8},
    search={"lr": (5e-5, 8e-4, "log"), "epochs": [1, 2, 3], "batch_size": [4, 8]},
    zero={"epochs": 0},
)
def fine_tuning(context: EditContext, training: Training) -> dict[str, Any]:
    """Continue training θ₀ on the retain set, together with the update set when there is one.

    The forget set is not read. Both sets are mixed and every text counts once per epoch.
    Source: the usual first baseline, for example in TOFU (arXiv:2401.06121) and MUSE.
    """
    texts = (*context.data.retain, *context.data.update)
    if not texts:
        raise MissingDataError("fine_tuning has neither a retain nor an update set to train on")
    log = train(
        context.model,
        context.tokenizer,
        {"kept": texts},
        lambda batch, policy, reference: nll_mean(policy, batch.get("kept")),
        training,
        seed=context.seed,
        progress=context.progress,
    )
    return log.summary()
