"""Stored models paired with each other, and each pair compared on everything both were asked."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unlearn_bench.compare.differences import Difference, judge_differences, measure_difference
from unlearn_bench.compare.intervals import RESAMPLES
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.same_protocol import notes, require_same_protocol
from unlearn_bench.errors import UsageError
from unlearn_bench.runs.sides import MeasuredCell, Side, read_exact


@dataclass(frozen=True)
class Pair:
    """One comparison of two models. differences are second minus first, a verdict each; without
    any, `reason` says which model has no scores. notes: what the reader should know. left_out: how
    many metrics are no headline and were not asked for.
    """

    first: str
    second: str
    differences: tuple[Difference, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()
    left_out: int = 0


def pair_up(first: Mapping[str, Side], second: Mapping[str, Side]) -> list[tuple[Side, Side]]:
    """One model with one, or every method that both have with itself. Raises UsageError."""
    if len(first) == len(second) == 1:
        return [(next(iter(first.values())), next(iter(second.values())))]
    both = [name for name in first if name in second]
    if not both:
        raise UsageError(
            f"no method is in both: one has {', '.join(first)}, the other {', '.join(second)}",
            next_step="name one model of each, as RUN:METHOD",
        )
    return [(first[name], second[name]) for name in both]


def compare_pairs(
    pairs: Sequence[tuple[Side, Side]], patterns: Sequence[str] = (), resamples: int = RESAMPLES
) -> list[Pair]:
    """Compare every pair. Holm's adjustment is over all metrics of all of them.

    patterns: only these metrics; without any the headline metrics, since every further one makes
    it harder to see any of them. Raises IncomparableError for another protocol or
    other items, UsageError for a pattern that names nothing.
    """
    found = [_compare_pair(first, second, patterns, resamples) for first, second in pairs]
    _refuse_idle(patterns, found)
    every = [one for pair in found for one in pair.differences]
    judged = iter(judge_differences(every, resamples))
    return [
        replace(pair, differences=tuple(next(judged) for _ in pair.differences)) for pair in found
    ]


def require_comparable(first: Side, second: Side) -> list[str]:
    """Raise IncomparableError unless all cells of both were asked alike; return what to know."""
    start, *others = (*first.cells, *second.cells)
    names = [first.label] * len(first.cells) + [second.label] * len(second.cells)
    known: dict[str, None] = {}
    for cell, name in zip(others, names[1:], strict=True):
        require_same_protocol(start.facts, cell.facts, (names[0], name))
        known |= dict.fromkeys(notes(start.facts, cell.facts))
    for side in (first, second):
        if side.limited:
            known[f"{side.label} is limited: its suite was narrowed ({side.cells[0].suite})"] = None
        if side.dirty:
            known[f"{side.label} was asked by source that may not be that of its commit"] = None
    return list(known)


def _compare_pair(first: Side, second: Side, patterns: Sequence[str], resamples: int) -> Pair:
    unscored = [f"{side.label}: {side.unscored}" for side in (first, second) if side.unscored]
    if unscored:
        return Pair(first.label, second.label, reason="; ".join(unscored))
    told = require_comparable(first, second)
    exact = _exact_of(first, second)
    sides = (first.cells, second.cells, exact)
    here, there, best = ([cell.rows for cell in cells] for cells in sides)
    every = _measures(first.cells, second.cells)
    chosen = _choose(every, patterns)
    differences = [measure_difference(one, here, there, best, resamples) for one in chosen]
    left_out = 0 if patterns else len(every) - len(chosen)
    return Pair(first.label, second.label, tuple(differences), "", tuple(told), left_out)


def _choose(measures: Sequence[Measure], patterns: Sequence[str]) -> list[Measure]:
    """What was asked for; else, as on a board, the headline metrics, or all where none is one."""
    if not patterns:
        return [measure for measure in measures if measure.headline] or list(measures)
    return [
        measure
        for measure in measures
        if any(fnmatch.fnmatchcase(measure.name, part) for part in patterns)
    ]


def _measures(first: Sequence[MeasuredCell], second: Sequence[MeasuredCell]) -> list[Measure]:
    """What either has, the first one's order first; a reduction that only one knows counts."""
    found: dict[str, Measure] = {}
    for cell in (*first, *second):
        for measure in cell.measures:
            if not found.get(measure.name, measure).reduce or measure.name not in found:
                found[measure.name] = measure
    return list(found.values())


def _exact_of(first: Side, second: Side) -> tuple[MeasuredCell, ...]:
    """The exact model that both are read against: of the same target, asked the same, and neither
    of them itself.
    """
    cells = (*first.cells, *second.cells)
    targets = [cell.facts.get("target") for cell in cells]
    if any(target != targets[0] for target in targets):
        return ()
    for side in (first, second):
        exact = [cell for cell in read_exact(side.run) if cell.facts.get("target") == targets[0]]
        if {cell.key for cell in exact} & {cell.key for cell in cells}:
            return ()
        if exact:
            require_comparable(side, Side("the exact cell", tuple(exact)))
            return tuple(exact)
    return ()


def _refuse_idle(patterns: Sequence[str], pairs: Sequence[Pair]) -> None:
    names = [one.measure.name for pair in pairs for one in pair.differences]
    for pattern in patterns:
        if names and not fnmatch.filter(names, pattern):
            raise UsageError(f"no metric is called {pattern!r}", next_step=f"it has {names[0]}, …")
