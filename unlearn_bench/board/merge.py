"""Several runs, machines and people on one board per model and suite; docs/board.md has the rules.

A cell whose task and method are still what they were is worked out again from its items, as
`evaluate` does. Every other row is kept as the board that it came with has it. The result does not
depend on the order of the arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.board.assemble import assemble
from unlearn_bench.board.entries import VARIANT, Entry, cell_entries, row_entries
from unlearn_bench.board.publish import write_board
from unlearn_bench.board.sources import Inputs, read_inputs
from unlearn_bench.board.table import Board, other_targets
from unlearn_bench.compare.same_protocol import board_mismatches
from unlearn_bench.errors import IncomparableError, UsageError
from unlearn_bench.runs.store import inside
from unlearn_bench.schema import SCORED

DIGITS = 8  # of a protocol's hash, in the name of a board that had to be kept apart


@dataclass(frozen=True)
class Merged:
    """One board and the folder that it goes to, with what a reader of the merge should know."""

    folder: Path
    board: Board


def merge(
    paths: Sequence[Path], leaderboards: Path, *, apart: bool = False
) -> tuple[list[Merged], list[str]]:
    """The boards of all that is named, and of what stands in `leaderboards`; and notes.

    apart: rows under another protocol get a board of their own. Raises IncomparableError for these
    without `apart`, UsageError for what is no input and for rows that contradict each other.
    """
    inputs = read_inputs(paths, leaderboards)
    notes = [f"not read, because it is damaged: {line}" for line in inputs.damaged]
    entries = [*cell_entries(inputs, notes), *row_entries(inputs)]
    touched = {(one.named.slug, one.protocol["suite"]) for one in entries if one.given}
    merged = []
    for slug, suite in sorted(touched):
        own = [one for one in entries if (one.named.slug, one.protocol["suite"]) == (slug, suite)]
        groups = _by_protocol(_without_superseded(own))
        if not apart and (contending := _contending(suite, groups)):
            raise _apart_error(slug, suite, contending)
        folder = inside(leaderboards, slug)
        for name, group in zip(_names(suite, groups), groups, strict=True):
            if any(one.given for one in group):
                chosen = _choose(group, notes)
                _refuse_overwriting(folder / f"{name}.json", inputs)
                board = assemble(_with_names(chosen), name)
                notes += other_targets(board)
                merged.append(Merged(folder, board))
    if not merged:
        raise UsageError("nothing of what was named belongs on a board", next_step="; ".join(notes))
    return merged, sorted(set(notes))


def write_merged(merged: Sequence[Merged]) -> list[Path]:
    """Write every board's three files; return their paths."""
    return [path for one in merged for path in write_board(one.board, one.folder)]


def _without_superseded(entries: Sequence[Entry]) -> list[Entry]:
    """Without rows of cells that are there themselves, or that a given board has too: a cell stands
    under the protocol that is known best of it. What is given twice alike stays, to be told apart.
    """
    best: dict[str, Entry] = {}
    for one in sorted(entries, key=lambda one: one.rank):
        best[one.key] = one
    return [
        one
        for one in entries
        if one is best[one.key]
        or (one.given and (one.cell is not None or best[one.key].cell is None))
    ]


def _by_protocol(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries that may share columns, in an order that the arguments do not change."""
    groups: list[list[Entry]] = []
    for one in sorted(entries, key=lambda one: (one.given, one.identity, one.rank)):
        for group in groups:
            if not board_mismatches(group[0].protocol, one.protocol):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _contending(suite: str, groups: Sequence[Sequence[Entry]]) -> list[Sequence[Entry]]:
    """Groups of which more than one would be the suite's board: the one that is, and what is given
    and has no board yet.
    """
    named = [(group, _existing_name(group)) for group in groups]
    found = [group for group, name in named if name == suite]
    found += [group for group, name in named if name is None]
    return found if len(found) > 1 else []


def _apart_error(slug: str, suite: str, groups: Sequence[Sequence[Entry]]) -> IncomparableError:
    first, second = groups[0][0], groups[1][0]
    listed = "; ".join(
        f"{one.field} is {one.first} in {first.source} and {one.second} in {second.source}"
        for one in board_mismatches(first.protocol, second.protocol)
    )
    return IncomparableError(
        f"{len(groups)} protocols for {slug}, suite {suite}, cannot share columns: {listed}",
        next_step="add --apart for a board of each, or leave one side out",
    )


def _names(suite: str, groups: Sequence[Sequence[Entry]]) -> list[str]:
    """The suite name of each group's board: that of the board that is there already under its
    protocol; of others the plain name if nobody has or contends for it.
    """
    taken = [_existing_name(group) for group in groups]
    free = suite not in taken and sum(name is None for name in taken) == 1
    return [
        name or (suite if free else f"{suite}-{_protocol_digest(group[0].protocol)}")
        for name, group in zip(taken, groups, strict=True)
    ]


def _existing_name(group: Sequence[Entry]) -> str | None:
    """The suite name of the board that these rows are on already; None where they are on none."""
    boards = [one.board for one in group if one.cell is None and one.board is not None]
    names = [board.board.suite for board in boards if board.existing]
    return min(names, key=lambda name: (len(name), name)) if names else None


def _protocol_digest(protocol: Mapping[str, Any]) -> str:
    """Of what keeps it apart from every other protocol."""
    own = [(one.field, one.first) for one in board_mismatches(protocol, {})]
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:DIGITS]


def _choose(group: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """One entry per method, options and seed. Raises UsageError where rows contradict each other
    and no cell can tell which is right.
    """
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for one in group:
        found.setdefault(one.identity, []).append(one)
    chosen = []
    for entries in found.values():
        best, *others = sorted(entries, key=lambda one: one.rank, reverse=True)
        for other in others:
            _refuse_contradiction(best, other)
            if other.given and _says_otherwise(best, other):
                notes.append(
                    f"{other.method} seed {other.seed} is there twice: "
                    f"{best.source} counts, {other.source} does not"
                )
        chosen.append(best)
    return chosen


def _says_otherwise(best: Entry, other: Entry) -> bool:
    """Whether leaving one of the two out loses anything: it is another cell, or the same cell with
    other numbers.
    """
    if best.key != other.key:
        return True
    told = [
        one.cell.record.files.get("items.parquet") if one.cell else None for one in (best, other)
    ]
    return told[0] != told[1]


def _refuse_contradiction(best: Entry, other: Entry) -> None:
    """Two given rows without cells must say the same."""
    if best.cell or other.cell or not other.given or other.status not in SCORED:
        return
    assert best.row is not None
    assert other.row is not None
    ours, theirs = best.row.scores, other.row.scores
    wrong = [
        name
        for name in ours.keys() & theirs.keys()
        if repr(ours[name].value) != repr(theirs[name].value) or ours[name].n != theirs[name].n
    ]
    if wrong:
        raise UsageError(
            f"{best.method} seed {best.seed} has two values of {min(wrong)}: "
            f"{ours[min(wrong)].value} in {best.source}, {theirs[min(wrong)].value} in "
            f"{other.source}",
            next_step="name the runs' folders, whose cells can be told apart, or leave one out",
        )


def _with_names(chosen: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    """Entries by the name and seed of their rows: a method that is there with several options gets
    a mark made of them behind its name.
    """
    options: dict[str, set[str]] = {}
    for one in chosen:
        options.setdefault(one.method, set()).add(one.options)
    return {
        (_row_name(one, options[one.method]), one.seed): one
        for one in sorted(chosen, key=lambda one: one.identity)
    }


def _row_name(entry: Entry, options: set[str]) -> str:
    if len(options) == 1:
        return entry.method
    return f"{entry.method}{VARIANT}{hashlib.sha256(entry.options.encode()).hexdigest()[:4]}"


def _refuse_overwriting(path: Path, inputs: Inputs) -> None:
    """Never replace a file that could not be read as a board: its rows would be lost."""
    known = {one.path.resolve() for one in inputs.boards if one.existing}
    if path.exists() and path.resolve() not in known:
        raise UsageError(
            "the file that would be written is there and is no board",
            where=str(path),
            next_step="move it away, or choose another folder with --output",
        )
