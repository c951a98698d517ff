"""Apply one method to one model and hand back its account."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from unlearn_bench.errors import DivergedError, UnlearnBenchError, UsageError
from unlearn_bench.methods.account import Account
from unlearn_bench.methods.contract import NEEDS, EditContext, EditData, Need
from unlearn_bench.methods.needs import SETS, check_names, check_sets
from unlearn_bench.methods.options import resolve_options, split_options
from unlearn_bench.registry import Card, load_function
from unlearn_bench.schema import EditReport, Example
from unlearn_bench.training.loop import train

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from unlearn_bench.training.options import Training


def edit_model(
    card: Card,
    context: EditContext,
    options: Mapping[str, Any] | None = None,
    *,
    before: Mapping[str, Tensor] | None = None,
) -> EditReport:
    """Let the method change `context.model` in place; returns what it did and what it cost.

    options: those that differ from the defaults, or all of them as resolved. before: θ₀ by
    parameter name, see `Account`. Whatever the method's `targets` do not name must be bit-identical
    afterwards. Raises UsageError or UnknownNameError
    for wrong options or needs, MissingDataError for a set that is not there, DivergedError when
    training did or a weight is not finite, UnlearnBenchError when the method left its targets.
    """
    resolved = resolve_options(card, options or {})
    own, training = split_options(card, resolved)
    function = load_function(card)
    needs = tuple(card.facts.get("needs", ()))
    check_names(card)
    check_origin(card, context)
    check_sets(card, resolved, context.data)
    account = Account(context.model, before)
    context = replace(context, reference=_watched(context.reference, account))
    with account:
        if card.facts.get("kind") == "loss":
            assert training is not None
            details = _minimise(function, context, needs, own, training)
        elif training is not None:
            details = function(context, training, **own)
        else:
            details = function(context, **own)
    report = account.report(card.name, resolved, {**context.details, **details})
    check_changes(card, report)
    return report


def check_origin(card: Card, context: EditContext) -> None:
    """Raise UsageError for a method that needs the exact model or the base where there is none."""
    given: dict[Need, Any] = {"exact": context.exact, "base": context.base}
    for need, value in given.items():
        if need in card.facts.get("needs", ()) and value is None:
            raise UsageError(
                f"{card.name} needs {NEEDS[need]}, and this target has none",
                next_step="run without --target, or leave the method out",
            )


def check_changes(card: Card, report: EditReport) -> None:
    """Raise UnlearnBenchError for a change outside the targets, DivergedError for NaN or ±inf."""
    targets = card.facts.get("targets", ())
    for change in report.changes:
        if not any(fnmatchcase(change.name, target) for target in targets):
            raise UnlearnBenchError(
                f"{card.name} changed {change.name}, which is not among its targets",
                where=str(card.file),
                next_step="declare the tensor in `targets`, or leave it alone",
            )
        if not math.isfinite(change.norm):
            steps, loss = report.details.get("steps"), report.details.get("last_loss")
            raise DivergedError(
                f"{card.name} left values in {change.name} that are not finite",
                step=steps,
                last_losses={} if loss is None else {f"step {steps}": loss},
            )


def examples_of(data: EditData, name: str) -> Sequence[Example]:
    """The set `name` as training texts; comments and refusals are texts without a prompt.

    Raises UsageError for pairs, which are no single texts.
    """
    if name == "pairs":
        raise UsageError("a loss cannot read pairs: write the method as an edit")
    if name in ("toxic", "clean", "refusals"):
        texts = getattr(data, name)
        return tuple(Example(f"{name}-{i}", "", text) for i, text in enumerate(texts))
    examples: Sequence[Example] = getattr(data, name)
    return examples


def _minimise(
    function: Callable[..., Tensor],
    context: EditContext,
    needs: Sequence[str],
    options: Mapping[str, Any],
    training: Training,
) -> dict[str, Any]:
    log = train(
        context.model,
        context.tokenizer,
        {name: examples_of(context.data, name) for name in needs if name in SETS},
        lambda batch, policy, reference: function(batch, policy, reference, **options),
        training,
        seed=context.seed,
        reference=context.reference if "reference" in needs else None,
        progress=context.progress,
    )
    return log.summary()


def _watched(
    build: Callable[[], PreTrainedModel], account: Account
) -> Callable[[], PreTrainedModel]:
    """The same builder, with the passes of what it builds on the account, and built once."""
    built: list[PreTrainedModel] = []

    def reference() -> PreTrainedModel:
        if not built:
            built.append(build())
            account.watch(built[0])
        return built[0]

    return reference
