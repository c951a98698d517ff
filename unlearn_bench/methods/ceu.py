"""CE-U: learn what the model would say if the memorised token did not exist."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.registry import method
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import (
    Model,
    answer_lengths,
    answer_logits,
    answer_targets,
    soft_cross_entropy,
)


@method(
    "ceu",
    paper="arXiv:2503.01224",
    kind="loss",
    goals=("forget",),
    needs=("forget",),
    targets=("*",),
    training={"lr": 1.2e-4, "epochs": 1, "batch_size": 8},
    zero={"epochs": 0},
    search={"lr": (1e-5, 4e-4, "log"), "epochs": [1, 2, 3], "skip_first": [0, 1]},
)
def ceu(
    batch: SetBatches,
    policy: Model,
    reference: None,
    *,
    skip_first: Annotated[int, Field(ge=0)] = 0,
) -> Tensor:
    """CE(softmax(z with z_y = −∞), p_θ), the mean over forget answer tokens, in nats.

    z: the policy's own logits, without gradient, the answer's token y struck out. Equal to
    −log(1 − p_y) plus that target's entropy: its gradient is bounded where ascent's is not. No set
    of texts holds the rest. skip_first leaves out that many tokens of each answer (the authors'
    TOFU runs: 1); an answer that is no longer than that is not read.
    Source: Yang 2025, the CE-U loss and its footnote on training settings; open-unlearning at
    d3d7cf9, src/trainer/unlearn/ceu.py.
    """
    logits = answer_logits(policy, batch.forget)  # (N, V)
    targets = answer_targets(batch.forget)
    if skip_first:
        lengths = answer_lengths(batch.forget).tolist()
        place = torch.cat([torch.arange(length) for length in lengths]).to(logits.device)
        if not (place >= skip_first).any():
            return logits.sum() * 0.0
        logits, targets = logits[place >= skip_first], targets[place >= skip_first]
    lowest = torch.finfo(logits.dtype).min
    return soft_cross_entropy(logits.detach().scatter(1, targets[:, None], lowest), logits)
