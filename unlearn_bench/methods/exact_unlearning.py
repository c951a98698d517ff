"""Exact unlearning: the model that never saw the forget set."""

from __future__ import annotations

from typing import Any

import torch

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.models.load import load_model
from unlearn_bench.registry import method
from unlearn_bench.training.prepare import read_manifest


@method(
    "exact_unlearning",
    paper="arXiv:1912.03817",
    kind="edit",
    needs=("exact",),
    targets=("*",),
    goals=("forget", "update"),
)
def exact_unlearning(context: EditContext) -> dict[str, Any]:
    """Replace θ₀ by the model trained from the base on everything but the forget set.

    The update set stands in place of the outdated texts; recipe and seed are the target's (see
    `training.prepare`). The gold reference: what other methods should come close to, not a score
    of 1. The account holds the cost of training only when the model was not cached;
    "trained_in_seconds" says it always.
    Source: Bourtoule et al. 2021, section II (retraining from scratch).
    """
    assert context.exact is not None, "edit_model has checked it"
    folder = context.exact()
    exact, _ = load_model(folder, device=str(context.model.device))
    new = dict(exact.named_parameters())
    with torch.no_grad():
        for name, weight in context.model.named_parameters():
            weight.copy_(new[name])
    manifest = read_manifest(folder)
    return {"trained_in_seconds": manifest["log"]["seconds"]} if manifest else {}
