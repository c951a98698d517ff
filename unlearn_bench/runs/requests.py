"""Requests to forget or to update, as text: `forget:1/2,update,forget:2/2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unlearn_bench.compare.requests import Kind
from unlearn_bench.data.fur import FurData
from unlearn_bench.errors import UsageError
from unlearn_bench.registry import Card

READ: dict[Kind, frozenset[str]] = {  # the sets that hold a request's own texts
    "forget": frozenset({"forget"}),
    "update": frozenset({"old", "update"}),
}
REQUESTED = frozenset[str]().union(*READ.values())
LASTING = frozenset({"retain", "exact", "base"})  # what else a request bears upon
FORM = re.compile(r"(?P<kind>[a-z]+)(:(?P<part>[0-9]{1,6})/(?P<parts>[0-9]{1,6}))?")
EXAMPLE = "forget:1/2,update,forget:2/2"


@dataclass(frozen=True)
class Request:
    """One request: `name` as it was written, and the ids of its subjects and of their facts."""

    name: str
    kind: Kind
    subjects: tuple[str, ...]
    facts: tuple[str, ...]


def parse_requests(text: str, fur: FurData) -> tuple[Request, ...]:
    """The requests in `text`, in order, separated by commas: `kind` or `kind:i/n`.

    kind is forget or update; `i/n` is every n-th subject of that role from the i-th on, so that the
    n parts are alike (the file lists people first, then places, then organisations) and together
    hold every subject once. Raises UsageError for another form, for a part without a subject, and
    when a subject is in two requests.
    """
    requests = tuple(_parse(name.strip(), fur) for name in text.split(","))
    seen: dict[str, str] = {}
    for request in requests:
        for subject in request.subjects:
            if subject in seen:
                raise _refusal(f"{seen[subject]!r} and {request.name!r} overlap in {subject}")
            seen[subject] = request.name
    return requests


def _parse(name: str, fur: FurData) -> Request:
    match = FORM.fullmatch(name)
    if match is None or match["kind"] not in READ:
        raise _refusal(f"{name!r} is no request")
    kind: Kind = "forget" if match["kind"] == "forget" else "update"
    part, parts = int(match["part"] or 1), int(match["parts"] or 1)
    if not 1 <= part <= parts:
        raise _refusal(f"{name!r} is no request: part {part} of {parts} does not exist")
    known = fur.select("test", kind)
    chosen = known[part - 1 :: parts]
    if not chosen:
        raise _refusal(f"{name!r} is empty: there are {len(known)} subjects to {kind}")
    return Request(
        name,
        kind,
        subjects=tuple(subject.id for subject in chosen),
        facts=tuple(fact.id for subject in chosen for fact in subject.facts),
    )


def _refusal(what: str) -> UsageError:
    return UsageError(
        what,
        where="--requests",
        next_step=f"write kind or kind:i/n with kind forget or update, such as {EXAMPLE}",
    )


def find_obstacle(card: Card, kind: Kind) -> str:
    """Why the method cannot serve a request of this kind, or "".

    Read off its decorator: a needed set that such a request leaves empty (unless it is `optional`),
    goals among which the kind is not, or texts none of which a request bears upon. Controls that
    read nothing serve every request.
    """
    needs = set(card.facts.get("needs", ()))
    lacking = (needs & REQUESTED) - READ[kind] - set(card.facts.get("optional", ()))
    if lacking:
        return f"{card.name} needs the set {_join(sorted(lacking))}, empty in a request to {kind}"
    goals = tuple(card.facts.get("goals", ()))
    if goals and kind not in goals:
        return f"{card.name} is there to {_join(goals)}, not to {kind}"
    if needs - {"reference"} and not needs & (REQUESTED | LASTING):
        return f"{card.name} reads nothing that a request is about"
    return ""


def _join(words: Sequence[str]) -> str:
    return " and ".join(words)
