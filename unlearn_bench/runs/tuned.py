"""The file `tuned.yaml`: which options won for each method, and how they were found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from unlearn_bench.config import load_yaml
from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.methods.options import resolve_options
from unlearn_bench.registry import Card, list_cards

Facts = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Budget(BaseModel):
    """What every method may spend: trials begun, and seconds after which none is begun."""

    model_config = Facts

    trials: PositiveInt
    seconds: float


class Winner(BaseModel):
    """One method's best options, and the objectives of its trials.

    options: those that were drawn or fixed; the method's defaults stand for the rest. None where no
    trial ended well. best, median: of the trials that have an objective; trials: all of them.
    """

    model_config = Facts

    options: dict[str, Any] | None
    best: float | None
    median: float | None
    trials: NonNegativeInt


class TunedFile(BaseModel):
    """The whole file. `tuning_sha256` is that of the canonical JSON of tuning.json's content.

    complete: whether every method has spent its budget.
    """

    model_config = Facts

    format: Literal[1] = 1
    model: str
    model_fingerprint: str
    suite: str
    seed: int
    budget: Budget
    tuning_sha256: str
    complete: bool
    methods: dict[str, Winner]


@dataclass(frozen=True)
class Tuned:
    """What a run got from `--tuned`; nothing without it.

    options: the winning ones of those of the run's methods that have some.
    """

    path: Path | None = None
    file: TunedFile | None = None
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def check_model(self, fingerprint: str, label: str) -> None:
        """Raise UsageError when the options were tuned on other weights than this run's.

        The board would say of this model what was spent on another.
        """
        if self.file is not None and self.file.model_fingerprint != fingerprint:
            raise UsageError(
                f"these options were tuned on {self.file.model}, and this run's model is {label}",
                where=str(self.path),
                next_step="run unlearn-bench tune on this model, or give the options with --set",
            )

    def winners(
        self, cards: Mapping[str, Card], options: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Winner]:
        """By method, for those that run as they were tuned: not where `--set` says otherwise."""
        if self.file is None:
            return {}
        return {
            name: self.file.methods[name]
            for name in cards
            if name in self.file.methods
            and options[name] == resolve_options(cards[name], self.options.get(name, {}))
        }

    def facts(self) -> dict[str, Any]:
        """How the options were found, for the board."""
        chosen = {"suite", "seed", "budget", "tuning_sha256"}
        return self.file.model_dump(include=chosen) if self.file else {}

    def notes(
        self,
        cards: Mapping[str, Card],
        options: Mapping[str, Mapping[str, Any]],
        winners: Collection[str],
    ) -> list[str]:
        """Which contenders run with options that no tuning chose, and which controls, by --set,
        with others than the tuned method whose name they bear.
        """
        if self.file is None:
            return []
        controls = {name for name, card in cards.items() if card.facts.get("control")}
        fixed = controls | {name for name, card in cards.items() if not card.facts.get("search")}
        left = [name for name in cards if name not in (*winners, *fixed)]
        unlike = [
            f"{name} has other options than {method} as tuned"
            for name in sorted(controls)
            for method in winners
            if name.startswith(f"{method}_")
            and any(options[name].get(key) != options[method][key] for key in self.options[method])
        ]
        return [*([f"not as tuned: {', '.join(left)}"] if left else []), *unlike]


def load_tuned(path: Path | None, cards: Mapping[str, Card]) -> Tuned:
    """Read the file, if there is one, for the methods of a run.

    Raises UnknownNameError for a method that nobody knows and for an option that its method does
    not have, UsageError for a value that the option does not take and for a file that cannot be
    read.
    """
    if path is None:
        return Tuned()
    file, known, found = read_tuned(path), list_cards("method") | dict(cards), {}
    if not file.complete:
        raise UsageError(
            "the tuning was interrupted: the methods have not had the same budget",
            where=str(path),
            next_step="run the same tune command again: it goes on where it was",
        )
    try:
        for name, winner in file.methods.items():
            if name not in known:
                raise UnknownNameError("method", name, known)
            if winner.options is None:
                continue
            for card in _taking(name, cards):
                shared = {k: value for k, value in winner.options.items() if k in card.options}
                found[card.name] = winner.options if card.name == name else shared
                resolve_options(card, found[card.name])
    except UsageError as error:
        error.where, error.next_step = str(path), "tune again with this version"
        raise
    return Tuned(path, file, found)


def _taking(method: str, cards: Mapping[str, Card]) -> list[Card]:
    """Who gets the winner's options: the method, and the controls that bear its name, which are to
    differ from it in one thing only.
    """
    return [
        card
        for name, card in cards.items()
        if name == method or (card.facts.get("control") and name.startswith(f"{method}_"))
    ]


def read_tuned(path: Path) -> TunedFile:
    """Raises UsageError for a file that is not there or is no such file."""
    try:
        return TunedFile.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    except ValueError as error:
        why = f"not valid YAML: {error}"
    raise UsageError(
        f"the tuned options cannot be read: {why}",
        where=str(path),
        next_step="give the tuned.yaml that unlearn-bench tune wrote",
    )
