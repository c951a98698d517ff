"""Every error a user can meet: what happened, where, the next command. Each has an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnlearnBenchError(Exception):
    """Base of all errors that end a command with a message instead of a traceback.

    `exit_code` follows one table for every command: 1 a regression or failed cell, 2 usage,
    3 incomplete or infrastructure, 4 unsafe artefact, 130 interrupted.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what, self.where, self.next_step = what, where, next_step
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)


class UsageError(UnlearnBenchError):
    """The command line, the environment or a configuration file asks for something impossible."""

    exit_code = 2


LISTED = ("method", "model", "scorer", "suite", "task")  # what `unlearn-bench list` knows


class UnknownNameError(UsageError):
    """A name that is in no registry; carries the near matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(choices)}"
        listed = kind if kind in LISTED else "method" if kind.startswith("option of") else ""
        super().__init__(
            f"unknown {kind} {name!r}; {hint}",
            next_step=f"unlearn-bench list {listed}s" if listed else "",
        )
        self.near = near


class MissingDataError(UnlearnBenchError):
    """A data set or model that no source could provide."""


class CorruptDataError(UnlearnBenchError):
    """A file that is there but is not what was pinned (hash, shape, duplicate ids)."""


class IncomparableError(UnlearnBenchError):
    """Two results that were not asked the same items, or not under the same protocol."""


class UnsafeArtefactError(UnlearnBenchError):
    """Pickled weights or remote code: refused without executing anything."""

    exit_code = 4


class MissingDependencyError(UnlearnBenchError):
    """An optional package that the request needs and that is not installed."""


class ScorerError(UnlearnBenchError):
    """A scorer that could not load or answer: its values are missing, never zero."""


class DivergedError(UnlearnBenchError):
    """Numbers that are not finite: a loss, a gradient, weights at an edit's end, or what the edited
    model answers.

    step: of the training, None for an edit without one. last_losses: the last good ones in nats, by
    step, the newest first; empty where there was none.
    """

    def __init__(self, what: str, *, step: int | None, last_losses: dict[str, float]) -> None:
        where = [f"step {step}"] if step is not None else []
        good = ", ".join(f"{loss:.4g} ({name})" for name, loss in last_losses.items())
        where += [f"last good losses {good}"] if good else []
        super().__init__(
            what, where="; ".join(where), next_step="lower its learning rate or strength"
        )
        self.step, self.last_losses = step, last_losses


class ReferenceMovedError(UnlearnBenchError):
    """The reference model is not the frozen θ₀ that it has to be."""


class WeightSwapError(UnlearnBenchError):
    """The engine does not hold the checkpoint it was told to load."""


class DiskFullError(UnlearnBenchError):
    """No space is left; what was finished before is intact."""


class CancelledError(UnlearnBenchError):
    """The user ended the run; finished cells are kept."""

    exit_code = 130
