"""What `unlearn-bench list` says. Reads syntax trees and YAML only: no torch, no transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.errors import UnknownNameError

SHOWN_METRICS = 8


@dataclass(frozen=True)
class Entry:
    """One thing that can be named on the command line, with more lines about it."""

    name: str
    summary: str
    details: tuple[str, ...] = ()


def list_entries(kind: str, files: tuple[Path, ...] = ()) -> list[Entry]:
    """The entries of `methods`, `tasks`, `suites`, `models` or `scorers`, in name order.

    files: the user's own plugin files. Raises UnknownNameError for any other kind.
    """
    if kind not in KINDS:
        error = UnknownNameError("kind", kind, KINDS)
        error.next_step = "unlearn-bench list --help"
        raise error
    return KINDS[kind](files)


def _methods(files: tuple[Path, ...]) -> list[Entry]:
    return _plugins("method", files)


def _scorers(files: tuple[Path, ...]) -> list[Entry]:
    return _plugins("scorer", files)


def _plugins(kind: str, files: tuple[Path, ...]) -> list[Entry]:
    from unlearn_bench.registry import list_cards

    entries = []
    for card in list_cards("scorer" if kind == "scorer" else "method", files).values():
        details = [f"source: {card.facts['paper']}"] if card.facts.get("paper") else []
        if card.facts.get("control"):
            details.append("a control, not a contender")
        if purpose := _purpose(card.facts):
            details.append(purpose)
        if card.options:
            written = (f"{name}={default}" for name, (_, default) in card.options.items())
            details.append(f"options: {', '.join(written)}")
        if card.facts.get("training"):
            written = (f"{name}={value!r}" for name, value in card.facts["training"].items())
            details.append(f"training: {', '.join(written)}")
        entries.append(Entry(card.name, card.summary, tuple(details)))
    return entries


def _purpose(facts: Mapping[str, Any]) -> str:
    """What a method is for and what it reads, on one line; a set that may be empty in brackets.

    Of a scorer, which says it in words, what it sees and what it needs.
    """
    if isinstance(facts.get("needs"), str):
        parts = {"sees": facts.get("measures", ""), "needs": facts["needs"]}
        return "; ".join(f"{word}: {said}" for word, said in parts.items() if said)
    optional = facts.get("optional", ())
    needs = [f"[{need}]" if need in optional else need for need in facts.get("needs", ())]
    sets = {"for": facts.get("goals", ()), "needs": needs}
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in sets.items() if names)


def _tasks(files: tuple[Path, ...]) -> list[Entry]:
    from unlearn_bench.protocols.catalog import list_protocols

    return [
        Entry(
            name,
            protocol.title,
            (
                *([protocol.description] if protocol.description else []),
                _metrics_line(protocol.headline, tuple(protocol.metrics)),
            ),
        )
        for name, protocol in sorted(list_protocols().items())
    ]


def _metrics_line(headline: tuple[str, ...], names: tuple[str, ...]) -> str:
    first = [*headline, *(name for name in names if name not in headline)]
    shown, rest = first[:SHOWN_METRICS], len(first) - SHOWN_METRICS
    return f"metrics: {', '.join(shown)}" + (f" and {rest} more" if rest > 0 else "")


def _suites(files: tuple[Path, ...]) -> list[Entry]:
    from unlearn_bench.config import list_suites

    entries = []
    for name, suite in list_suites().items():
        sizes = (f"{task} {suite.limits.get(task) or 'all'}" for task in suite.tasks)
        entries.append(Entry(name, suite.description, (f"items: {', '.join(sizes)}",)))
    return entries


def _models(files: tuple[Path, ...]) -> list[Entry]:
    from unlearn_bench.models.embedded import list_models

    return [Entry(name, summary) for name, summary in list_models().items()]


KINDS: dict[str, Callable[[tuple[Path, ...]], list[Entry]]] = {
    "methods": _methods,
    "models": _models,
    "scorers": _scorers,
    "suites": _suites,
    "tasks": _tasks,
}
