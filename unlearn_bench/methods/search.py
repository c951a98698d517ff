"""A method's tuning space, read from its decorator's `search` and checked against its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.errors import UsageError
from unlearn_bench.methods.options import resolve_options
from unlearn_bench.registry import Card


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        return value in self.values

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; `log`: evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


Space = dict[str, Choice | Range]


def search_space(card: Card, fixed: Mapping[str, Any] | None = None) -> Space:
    """What is drawn for the method, without the options that `fixed` sets.

    Empty for a method that declares no `search`. Raises UsageError for a space of another form, for
    a bound or choice that the option does not take, and for one that leaves the default out, since
    tuning starts from there; UnknownNameError for an option that the method does not have.
    """
    defaults = resolve_options(card, fixed or {})
    declared = card.facts.get("search", {})
    if not isinstance(declared, dict):
        raise _unfit(card, "*", "is no dict of options")
    space: Space = {}
    for option, written in declared.items():
        part = _read(card, option, written)
        for value in part.values if isinstance(part, Choice) else (part.low, part.high):
            resolve_options(card, {option: value})
        if option in (fixed or {}):
            continue
        if not part.holds(defaults[option]):
            raise _unfit(card, option, f"does not hold the default {defaults[option]!r}")
        space[option] = part
    return space


def _read(card: Card, option: str, written: Any) -> Choice | Range:
    if isinstance(written, list) and written:
        return Choice(tuple(written))
    if isinstance(written, tuple) and len(written) in (2, 3):
        low, high, *scale = written
        numbers = all(type(bound) in (int, float) for bound in (low, high))
        if numbers and low < high and scale in ([], ["log"]) and not (scale and low <= 0):
            return Range(low, high, log=bool(scale))
    raise _unfit(card, option, f"is {written!r}, neither a list nor (low, high) nor with 'log'")


def _unfit(card: Card, option: str, why: str) -> UsageError:
    return UsageError(
        f"the search space of {card.name}.{option} {why}",
        where=str(card.file),
        next_step="correct `search` in its decorator",
    )
