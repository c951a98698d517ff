"""How long a machine takes for a token: measured on a CPU, arithmetic on a GPU.

A token costs so many operations per parameter of the model, and something that no parameter
changes: a place in a batch, a draw from the vocabulary, Python.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# train: forward and backward. score: likelihoods. read: prompts. write: texts.
Work = Literal["train", "score", "read", "write"]
# Per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, §2.1).
OPERATIONS: Mapping[Work, int] = {"train": 6, "score": 2, "read": 2, "write": 2}
REFERENCE_CORES = 2


@dataclass(frozen=True)
class Pace:
    """operations: per second. overhead: seconds per token, however small the model is."""

    operations: float
    overhead: float


# Two cores: trainings in bf16 and likelihoods in fp32 under torch, texts in bf16 with vLLM. Fitted
# by benchmarks/pace.py to models of 14 million to 1.8 billion parameters (docs/scale.md).
CPU: Mapping[Work, Pace] = {
    "train": Pace(184e9, 2.0e-4),
    "score": Pace(195e9, 2.3e-4),
    "read": Pace(432e9, 9.1e-6),
    "write": Pace(554e9, 9.2e-4),
}


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it: operations per second in bf16 with dense matrices and in
    fp32, and its memory, in bytes per second and bytes.
    """

    bf16: float
    fp32: float
    memory: float
    bytes: float


# By compute capability: A100 SXM 80 GB, RTX 3090, RTX 4090, H100 SXM, B200; from the makers' data
# sheets.
CARDS = {
    (8, 0): Card(312e12, 19.5e12, 2.0e12, 80e9),
    (8, 6): Card(71e12, 35.6e12, 0.94e12, 24e9),
    (8, 9): Card(165e12, 82.6e12, 1.0e12, 24e9),
    (9, 0): Card(989e12, 67e12, 3.35e12, 80e9),
    (10, 0): Card(2250e12, 80e12, 8.0e12, 180e9),
}
# Nothing here has been measured on a GPU. Half of the peak is what large matrices reach; trainings
# of short texts in small batches less; a step of texts reads all weights for so many texts at once.
SHARE, TRAIN_SHARE, MEMORY_SHARE = 0.5, 0.3, 0.6
TEXTS_AT_ONCE = 128
BF16_BYTES, FP32_BYTES = 2, 4
GPU_OVERHEAD: Mapping[Work, float] = {"train": 5e-5, "score": 1e-5, "read": 5e-6, "write": 1e-4}


@dataclass(frozen=True)
class Machine:
    """What an estimate assumes to run on. card: of the GPU that one cell has, if any.

    bf16: whether trainings have bf16 activations unless told otherwise.
    """

    cores: int
    card: Card | None = None
    bf16: bool = False

    @property
    def cuda(self) -> bool:
        """Whether a cell has a GPU."""
        return self.card is not None

    def seconds(self, work: Work, tokens: float, parameters: float, dtype: str = "mixed") -> float:
        """For so many tokens of one kind of work. dtype: the engine's, which only a card feels: the
        CPU's paces are those of `mixed`.
        """
        if self.card:
            per_parameter = self._on_card(self.card, work, dtype)
            return tokens * (GPU_OVERHEAD[work] + per_parameter * parameters)
        pace = CPU[work]
        per_token = pace.overhead + OPERATIONS[work] * parameters / pace.operations
        return self.on_cores(tokens * per_token)

    def on_cores(self, seconds: float) -> float:
        """What takes so long on the reference's cores; more help less the more there are."""
        return seconds / math.sqrt(max(self.cores, 1) / REFERENCE_CORES)

    def _on_card(self, card: Card, work: Work, dtype: str) -> float:
        """Seconds per token and parameter."""
        if work == "train":
            return OPERATIONS[work] / (TRAIN_SHARE * card.bf16)
        exact = dtype == "float32" or (dtype == "mixed" and work == "score")
        peak, size = (card.fp32, FP32_BYTES) if exact else (card.bf16, BF16_BYTES)
        reading = OPERATIONS[work] / (SHARE * peak)
        if work != "write":
            return reading
        return max(reading, size / (MEMORY_SHARE * card.memory) / TEXTS_AT_ONCE)


def this_machine() -> Machine:
    """Cores that this process may use, its GPU if it has one, and its number format."""
    import torch

    from unlearn_bench.training.precision import default_device, supports_bf16

    bf16 = supports_bf16(torch.device(default_device()))
    card = None
    if torch.cuda.is_available():
        found = torch.cuda.get_device_capability()
        known = max((one for one in CARDS if one <= found), default=min(CARDS))
        card = CARDS[known]
    return Machine(len(os.sched_getaffinity(0)), card, bf16)
