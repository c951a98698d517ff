"""Whether a method's needs can be met, asked before any model is prepared, built or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unlearn_bench.data.behaviour import COMMENTS_FOLDER, PAIRS_FOLDER
from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.contract import NEEDS, EditData, Need
from unlearn_bench.methods.options import own_defaults
from unlearn_bench.registry import Card

SETS = tuple(field.name for field in fields(EditData) if field.name != "origins")

_FUR = "the bundled tasks/fur has them (from Python: EditData({}))"
_COMMENTS = (
    f"put both kinds into {COMMENTS_FOLDER} (columns is_offensive,text) of the --data folder, "
    "where what repeats an evaluation prompt does not count"
)
SUPPLY: dict[Need, str] = {  # how each set of `EditData` is supplied
    "forget": _FUR.format("forget=..."),
    "old": _FUR.format("old=..."),
    "update": _FUR.format("update=..."),
    "retain": _FUR.format("retain=..."),
    "toxic": _COMMENTS,
    "clean": _COMMENTS,
    "pairs": (
        f"put them into {PAIRS_FOLDER} (a list of instruction and output) of the --data folder, "
        "where what repeats an evaluation prompt does not count"
    ),
    "benign": "the bundled tasks/behaviour/mini/benign.jsonl has them",
    "refusals": "the bundled tasks/behaviour/mini/refusals.jsonl has them",
}


def check_names(card: Card) -> None:
    """Raise UsageError for a need that does not exist, or an `optional` set that is not needed."""
    needs = card.facts.get("needs", ())
    for need in needs:
        if need not in NEEDS:
            raise UsageError(
                f"method {card.name!r} needs {need!r}, which does not exist",
                where=str(card.file),
                next_step=f"choose among {', '.join(NEEDS)}",
            )
    for name in card.facts.get("optional", ()):
        if name not in needs or name not in SETS:
            raise UsageError(
                f"method {card.name!r} calls {name!r} optional, which is no set that it needs",
                where=str(card.file),
                next_step="name only sets that are also in `needs`",
            )


def check_sets(card: Card, options: Mapping[str, Any], data: EditData) -> None:
    """Raise MissingDataError for the sets that the method needs and that are empty.

    options: as resolved. Sets that the method calls `optional` may be empty. A method with one of
    its own options at 0 may leave a term out, and with it a set, which no declaration tells: then
    nothing is refused here, and the training loop refuses an empty set at its first read, before
    the first step.
    """
    if _term_is_off(card, options):
        return
    empty = missing_sets(card, data)
    if not empty:
        return
    raise MissingDataError(
        f"{card.name} needs "
        + " and ".join(f"the set {name!r} ({NEEDS[name]})" for name in empty)
        + (", and it is empty" if len(empty) == 1 else ", and they are empty"),
        next_step="; ".join(dict.fromkeys(SUPPLY[name] for name in empty))
        + "; or leave the method out",
    )


def missing_sets(card: Card, data: EditData) -> list[Need]:
    """The sets that the method needs, does not call `optional`, and that are empty."""
    optional = card.facts.get("optional", ())
    return [
        need
        for need in card.facts.get("needs", ())
        if need in SETS and need not in optional and not getattr(data, need)
    ]


def _term_is_off(card: Card, options: Mapping[str, Any]) -> bool:
    """Whether an option of the method's own is 0 that is not so by default."""
    return any(options[name] == 0 and default != 0 for name, default in own_defaults(card).items())
