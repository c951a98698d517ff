"""The nouns of one run, in the order in which it makes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["higher", "lower", "nearer_exact", "none"]
Status = Literal["started", "success", "diverged", "failed", "cancelled"]
SCORED = ("success", "incomplete")  # finished, the second with missing values
FAILED = ("diverged", "failed")  # ended without scores: the training did, or the code
TASK_FILES = (".yaml", ".yml")  # how the name of a task ends that is a file's path


@dataclass(frozen=True)
class Example:
    """One training text. The loss stands on `answer` only; with an empty `prompt`, on all of it.

    subject: the name that the text is about, as it stands in it; "" where nobody knows.
    """

    id: str
    prompt: str
    answer: str
    subject: str = ""


@dataclass(frozen=True)
class Pair:
    """One prompt with a safe and an unsafe response (for dinm and pke)."""

    id: str
    prompt: str
    safe: str
    unsafe: str


@dataclass(frozen=True)
class Origin:
    """Where a data set came from. `sha256` is of the file as read; `revision` names its version."""

    dataset: str
    source: Literal["folder", "hub", "package", "mini", "bundled"]
    location: str
    revision: str
    sha256: str


@dataclass(frozen=True)
class TensorChange:
    """What one edit did to one tensor. `norm` is the Frobenius norm of the difference, in fp32."""

    name: str
    elements: int
    changed: int
    norm: float


@dataclass(frozen=True)
class EditReport:
    """A method's account of itself (contract C5). Bytes, seconds, counts are of the edit alone."""

    method: str
    options: dict[str, Any]
    changes: tuple[TensorChange, ...]
    forward_passes: int
    backward_passes: int
    seconds: float
    peak_memory_bytes: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters_touched(self) -> int:
        """Number of scalar parameters whose value changed."""
        return sum(change.changed for change in self.changes)

    @property
    def delta_norm(self) -> float:
        """‖ΔW‖₂ over all tensors."""
        return float(sum(change.norm**2 for change in self.changes) ** 0.5)


@dataclass(frozen=True)
class TokenLikelihoods:
    """One scored text token by token; all of one length, or empty where a task does not ask.

    log_probs: natural logarithms, float32 values. greedy: whether the token was the arg max.
    means, deviations: of the log-probabilities of the whole vocabulary at that place, weighted by
    the probabilities themselves (for min-k++).
    """

    log_probs: tuple[float, ...]
    greedy: tuple[bool, ...]
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One evaluated item: what the model was asked, what it said, what lm-eval made of it.

    `values` holds the per-item metrics of the task; a pair (a, b) is a sum and its weight, as for
    perplexities. `outputs` are generated texts (empty for likelihood tasks); `likelihoods` the
    summed log-probability of each option, in nats, and whether it is the greedy continuation (of a
    whole text, its total and False); `tokens` the same of every token of each option.
    `under_target` is of the first outputs their mean log-probability per token under the target θ₀,
    in nats; empty where no metric asks for it.
    """

    task: str
    item_id: str
    filter: str
    prompt: str
    outputs: tuple[str, ...]
    values: dict[str, float | tuple[float, float]]
    document: dict[str, Any]
    likelihoods: tuple[tuple[float, bool], ...] = ()
    tokens: tuple[TokenLikelihoods, ...] = ()
    under_target: tuple[float, ...] = ()


@dataclass(frozen=True)
class ItemScore:
    """One item's value of one board metric: what every aggregate is re-derived from.

    `value` is NaN when missing (a scorer failed, an empty answer set). `weight` is 1 except for
    rates per word or byte. `group` names a stratum (ToxiGen's groups), else "". Items of one
    `cluster` (a subject's facts) are not independent; "" where every item stands alone.
    """

    task: str
    metric: str
    item_id: str
    group: str
    value: float
    weight: float
    cluster: str = ""


@dataclass(frozen=True)
class Score:
    """One aggregated number of the board. `missing` items are counted, never scored zero.

    low, high: its 95 % interval.
    """

    task: str
    metric: str
    value: float
    stderr: float
    n: int
    missing: int
    direction: Direction
    unit: str
    low: float = math.nan
    high: float = math.nan
