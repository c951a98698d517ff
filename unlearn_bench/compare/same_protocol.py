"""Whether two cells were asked the same questions in the same way.

Method, options, seed and the model itself are what is compared. Everything else that moves a number
has to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.errors import IncomparableError

ABSENT = "absent"
COUNTS = ("limit", "items", "paraphrases")  # where nothing means all
ASKING = "lm-eval"  # the library whose version decides what is asked; others only round otherwise


@dataclass(frozen=True)
class Mismatch:
    """One field with its two values, as text."""

    field: str
    first: str
    second: str


def require_same_protocol(
    first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]
) -> None:
    """Raise IncomparableError, naming every field and both values, unless the numbers compare.

    first, second: a cell's determinants, with what its provenance says of `decoding`.
    """
    wrong = mismatches(first, second)
    if wrong:
        listed = "; ".join(
            f"{one.field} is {one.first} in {names[0]} and {one.second} in {names[1]}"
            for one in wrong
        )
        raise IncomparableError(
            f"not under the same protocol: {listed}",
            next_step="evaluate both with the same suite, limits, data, scorer, engine and version",
        )


def mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Mismatch]:
    """Fields that make the numbers of the tasks that both have incomparable."""
    return list(_differing(_binding(first, second), _binding(second, first)))


def board_mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Mismatch]:
    """Fields that keep the rows of two boards apart. first, second: `protocol` of their JSON.

    As for two cells, and the model and the tasks as well: a board is of one model, and its overall
    score of one list of tasks. A field that only one of them has is a difference: nobody can say
    that the other was the same.
    """
    return list(_differing(_board_binding(first, second), _board_binding(second, first)))


def _board_binding(protocol: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    asked = dict(protocol.get("asked") or {})
    drawn = asked.pop("decoding", {})
    others = (other.get("asked") or {}).get("decoding", {})
    told = ("items",) if asked else ("items", "source")  # where from: by its hashes where told
    named = ("base_fingerprint", "suite", "edit_set", "samples_per_prompt", "scorer", "engine")
    return {
        **{name: protocol.get(name) for name in (*named, "second_scorer", "dtype")},
        "tasks": {
            task: {name: facts.get(name) for name in told}
            for task, facts in protocol.get("tasks", {}).items()
        },
        "versions": {ASKING: protocol.get("versions", {}).get(ASKING)},
        "asked": asked,
        "decoding": {name: drawn[name] for name in drawn if name in others},
    }


def notes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What else differs and may move a number a little, or could not be compared."""
    versions = [{"versions": facts.get("versions", {})} for facts in (first, second)]
    found = [
        f"{one.field} is {one.first} in one and {one.second} in the other"
        for one in _differing(*versions)
    ]
    if _tasks(first).keys() != _tasks(second).keys():
        only = sorted(_tasks(first).keys() ^ _tasks(second).keys())
        found.append(
            f"only one of the two was asked {', '.join(only)}; "
            "the hash of the evaluation code covers the tasks and was not compared"
        )
    return found


def _tasks(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    tasks: Mapping[str, Any] = facts.get("suite", {}).get("tasks", {})
    return tasks


def _binding(facts: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of one cell that must equal those of `other`, for the tasks that both have."""
    suite, same_tasks = facts.get("suite", {}), _tasks(facts).keys() == _tasks(other).keys()
    judges = [part.get("scorer", {}).get("name") for part in (facts, other)]
    found: dict[str, Any] = {
        "format": facts.get("format"),
        "suite": {
            **{"part": "test", **suite},
            "tasks": {name: task for name, task in _tasks(facts).items() if name in _tasks(other)},
        },
        "engine": facts.get("engine"),
        "edit_set": facts.get("target", {}).get("edit_set"),
        "versions": {ASKING: facts.get("versions", {}).get(ASKING)},
        "decoding": {
            name: settings
            for name, settings in facts.get("decoding", {}).items()
            if name in other.get("decoding", {})
        },
    }
    if "none" not in judges:  # one of the two had nothing to judge
        found["scorer"] = facts.get("scorer")
    if same_tasks:
        found["evaluation_code_sha256"] = facts.get("evaluation_code_sha256")
    return found


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Mismatch]:
    flat = dict(_flat(first)), dict(_flat(second))
    for field in dict.fromkeys((*flat[0], *flat[1])):
        one, other = (facts.get(field, ABSENT) for facts in flat)
        if one != other:
            yield Mismatch(field, one, other)


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{above}{name}.")
        elif inner is not None:
            yield f"{above}{name}", str(inner)
        else:
            yield f"{above}{name}", "all" if name in COUNTS else ABSENT
