"""Kinds of files that people write, how each is read, and traps that go off when one is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.compare.rules import load_rules
from unlearn_bench.config import load_config, load_suite
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.protocols.task_files import check_task_file
from unlearn_bench.runs.tuned import read_tuned

RAN: list[str] = []


def trap(*arguments: Any) -> None:
    """What a tag names that makes Python objects."""
    RAN.append("the file ran")


@dataclass(frozen=True)
class Kind:
    """One kind of file. forms: texts of which any value may stand at the %s; read: by whom."""

    forms: tuple[str, ...]
    read: Callable[[Path], Any]


def after(start: str, *ends: str) -> tuple[str, ...]:
    return tuple(f"{start}\n{end}" for end in ends)


OPTION = "{npo: {options: {lr: %s}, best: 0, median: 0, trials: 1}}"


def tuned_forms() -> tuple[str, ...]:
    """A whole file with one value left open, each in turn."""
    winner = {"options": "{lr: 0.1}", "best": "0.5", "median": "0.5", "trials": "1"}
    fields = {"format": "1", "model": "m", "model_fingerprint": "f", "suite": "quick", "seed": "0",
              "budget": "{trials: 1, seconds: 1}", "tuning_sha256": "'0'", "complete": "true",
              "methods": "{}"}  # fmt: skip

    def whole(**changes: str) -> str:
        return "".join(f"{name}: {value}\n" for name, value in (fields | changes).items())

    winners = ({**winner, name: "%s"} for name in winner)
    flow = (", ".join(f"{name}: {value}" for name, value in own.items()) for own in winners)
    return (
        *(whole(**{name: "%s"}) for name in fields),
        *(whole(budget=f"{{trials: {t}, seconds: {s}}}") for t, s in (("%s", "1"), ("1", "%s"))),
        *(whole(methods=f"{{npo: {{{own}}}}}") for own in flow),
        whole(methods=OPTION),
    )


ANY = ("%s", "%s: 1", "? %s\n: 1")
TASK = (
    *ANY,
    *(f"{name}: %s" for name in ("include", "class", "unsafe_code", "process_docs")),
    "metric_list: [{metric: %s}]",
    "dataset_kwargs: {trust_remote_code: %s}",
    "a: {b: [1, %s]}",
)
KINDS: dict[str, Kind] = {
    "suite": Kind(
        (
            *ANY,
            "name: %s\ntasks: [fur]",
            *after("name: s", "tasks: %s", "tasks: [fur, %s]"),
            *after("name: s\ntasks: [fur]", "limits: {fur: %s}", "samples_per_prompt: %s",
                   "paraphrases: %s", "part: %s", "description: %s"),
        ),
        lambda path: load_suite(str(path)),
    ),
    "configuration": Kind(
        (*ANY, *(f"{name}: %s" for name in ("methods", "tasks", "seeds", "set", "limit", "data")),
         "set: {npo: {beta: %s}}", "seeds: [1, %s]"),
        lambda path: load_config({}, file=path, environment={}),
    ),
    "rules": Kind(
        (*ANY, "level: %s\nmetrics: {a: {margin: 0}}", "metrics: %s", "metrics: {a: %s}",
         "metrics: {%s: {margin: 0}}", "metrics: {a: {margin: %s}}", "metrics: {a: {relative: %s}}",
         "metrics: {a: {margin: 0, required: %s}}"),
        load_rules,
    ),
    "tuned options": Kind((*ANY, *tuned_forms()), read_tuned),
    "task": Kind(TASK, lambda path: check_task_file(str(path), allow_code=False)),
    "task whose code is allowed": Kind(
        TASK, lambda path: check_task_file(str(path), allow_code=True)
    ),
}  # fmt: skip
TRAPS = (
    f"!!python/object/apply:{__name__}.trap []",
    f"!!python/object/new:{__name__}.trap []",
    f"!!python/name:{__name__}.trap ''",
    "!function code.run",
    "!include code.py",
)


def outcome(read: Callable[[], Any]) -> Any:
    """What is read, or how it is refused; nothing may run meanwhile."""
    RAN.clear()
    try:
        found = read()
    except UnlearnBenchError as error:
        found = error
    assert not RAN
    return found
