"""What a method gets and what it may declare.

Two shapes, told apart by the decorator's `kind`:

* `kind="loss"`: `f(batch, policy, reference, *, option=default, ...) -> Tensor`, a scalar in nats.
  `batch` is a `training.batches.SetBatches` (one `TokenBatch` per needed set), `policy` the model
  in training, `reference` the frozen θ₀ (None unless "reference" is in `needs`). The shared loop in
  `unlearn_bench.training.loop` does the rest; its own options (`lr`, `epochs`, ...) are options of
  the method too, with the defaults given in `training`.
* `kind="edit"`: `f(context, *, option=default, ...) -> dict`, for closed-form or staged methods.
  It changes `context.model` in place and returns what it wants remembered (JSON-able). With a
  second parameter, `f(context, training, *, ...)`, the loop's options are options of the method
  too and arrive there as one `training.options.Training`.

The typed keyword-only arguments are the method's options: listed, settable with
`--set method.option=value`, validated by pydantic (use `Annotated[float, Field(ge=0)]` for ranges)
and recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearn_bench.schema import Example, Origin, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from unlearn_bench.training.prepare import BaseTraining

METHOD_FACTS = {
    "paper": "str: arXiv id or citation of the source",
    "kind": 'str: "loss" or "edit"',
    "needs": "tuple of the sets and helpers the method reads (see NEEDS)",
    "optional": "tuple of those needed sets that may be empty: what reads them then falls away",
    "targets": "tuple of fnmatch patterns: the only tensors that may change (contract C1)",
    "layers": "int: how many layers of the targets train, where not all do; estimates memory",
    "gradients": "bool: an edit without a learning rate takes gradients of its targets; estimates "
    "memory",
    "training": "dict: this method's defaults of the shared loop's options",
    "control": "bool: a control row, not a contender",
    "goals": "tuple: what the method is for, of GOALS; controls have ()",
    "search": "dict, what tuning draws: {option: [choice, ...]}, {option: (low, high)} or "
    "{option: (low, high, 'log')}; between whole numbers only whole numbers",
    "zero": "dict: the options at which the method must be a bitwise no-op (contract C2)",
}

Goal = Literal["forget", "update", "detoxify"]
GOALS: dict[Goal, str] = {
    "forget": "the forget set's facts are no longer known",
    "update": "the update set's new facts are known",
    "detoxify": "free continuations are less toxic",
}

Need = Literal[
    "forget",
    "old",
    "update",
    "retain",
    "toxic",
    "clean",
    "pairs",
    "benign",
    "refusals",
    "reference",
    "exact",
    "base",
]
NEEDS: dict[Need, str] = {
    "forget": "texts that must go",
    "old": "outdated texts of the updated subjects",
    "update": "the updated subjects' new texts",
    "retain": "texts that must stay",
    "toxic": "toxic comments",
    "clean": "clean comments",
    "pairs": "prompts with a safe and an unsafe response",
    "benign": "harmless prompts with answers, unrelated to any edit",
    "refusals": "sentences that decline to answer",
    "reference": "a frozen copy of the model before editing",
    "exact": "the model trained without the forget set",
    "base": "the model before it learned any of these texts, with the recipe of its training",
}


@dataclass(frozen=True)
class EditData:
    """All texts a method may read. Evaluation prompts are never among them (checked on loading)."""

    forget: tuple[Example, ...] = ()
    old: tuple[Example, ...] = ()
    update: tuple[Example, ...] = ()
    retain: tuple[Example, ...] = ()
    toxic: tuple[str, ...] = ()
    clean: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    benign: tuple[Example, ...] = ()
    refusals: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()


@dataclass
class EditContext:
    """Everything an edit works on.

    model: edited in place, fp32 on CPU, bf16 or fp32 on GPU. reference: builds, on its first call,
    a frozen copy of θ₀; call it before the first change. exact: folder of the exact model, trained
    on the first call if it is not cached. base: what it takes to train from the base again. Both
    are None when the user brought a target of their own.
    progress: (what, done, total).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    data: EditData
    seed: int
    reference: Callable[[], PreTrainedModel]
    exact: Callable[[], Path] | None = None
    base: BaseTraining | None = None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    details: dict[str, Any] = field(default_factory=dict)
