"""From stored cells to the board that a report shows, without the plan that made them.

A method whose options differ between cells is several entrants, numbered in the order in which they
were run. Columns that only the run's own board has (what is made of all its cells together) are
taken from its JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_bench.board.own_board import OVERALL, TRACE, OwnBoards, Told, read_boards
from unlearn_bench.board.table import COSTS, MEAN, Board, Column, Role, Row, build_board
from unlearn_bench.compare.against_exact import score_against_exact
from unlearn_bench.compare.aggregate import RESAMPLES
from unlearn_bench.compare.columns import align
from unlearn_bench.compare.intervals import interval
from unlearn_bench.errors import IncomparableError
from unlearn_bench.protocols.catalog import AgainstExact, Metric, Protocol, list_protocols
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs.finished import StoredCell
from unlearn_bench.runs.plan import role_of
from unlearn_bench.runs.resolve import protocol_digest
from unlearn_bench.schema import ItemScore, Score

SHOWN_OF_UNKNOWN = 2  # metrics of a task of which no protocol says which ones are the headline


@dataclass(frozen=True, eq=False)
class Entrant:
    """One row of the report: a method with its options, and its cells by seed."""

    name: str
    method: str
    role: Role
    card: Card | None
    cells: tuple[StoredCell, ...]

    @property
    def scored(self) -> list[StoredCell]:
        """The cells with scores, by seed."""
        return [cell for cell in self.cells if cell.scored]

    @property
    def first(self) -> StoredCell:
        """The cell whose account and answers are shown: of the first seed that has scores."""
        return next(iter(self.scored), self.cells[0])

    def items(self, task: str, metric: str) -> list[list[ItemScore]]:
        """Per scored seed the rows of one metric."""
        return [
            [row for row in cell.items if (row.task, row.metric) == (task, metric)]
            for cell in self.scored
        ]


@dataclass(frozen=True)
class Collection:
    """All that a report reads: the entrants, their board, and the protocols of its tasks.

    protocols: of the tasks that are known here and are still what they were when the cells ran.
    own: what the runs' own boards say besides. notes: how it was put together.
    """

    entrants: tuple[Entrant, ...]
    board: Board
    protocols: Mapping[str, Protocol]
    own: OwnBoards
    notes: tuple[str, ...]

    def told(self, row: Row) -> Told:
        """What the run's own board says of a row; nothing where it has no such row."""
        if row.seed == MEAN:
            return self.own.means.get(row.method, Told())
        return self.own.rows.get(row.provenance["cell_key"], Told())

    def entrant(self, role: Role) -> Entrant | None:
        """The first of a role that has scores."""
        return next((one for one in self.entrants if one.role == role and one.scored), None)


def collect(cells: Sequence[StoredCell], runs: Sequence[Path], model: str) -> Collection:
    """Put cells of one setting on one board. runs: whose own boards may hold further columns."""
    entrants = name_entrants(cells)
    facts = next(cell.determinants for cell in cells if cell.scored)
    protocols, notes = known_protocols(facts)
    columns = _columns(facts, protocols, cells)
    own = read_boards(runs, {cell.record.key for cell in cells})
    exact = next((one for one in entrants if one.role == "exact" and one.scored), None)
    rows = [
        _row(entrant, cell, _all_scores(cell, exact, protocols, own, notes))
        for entrant in entrants
        for cell in entrant.cells
    ]
    names = {column.name for column in columns}
    more = [column for name, column in own.columns.items() if name not in names]
    columns = [column for column in more if column.task == OVERALL] + columns
    columns += [column for column in more if column.task != OVERALL]
    board = build_board(model, cells[0].suite, columns, rows, {})
    board = replace(
        board, rows=tuple(_with_intervals(row, entrants, protocols, own) for row in board.rows)
    )
    return Collection(tuple(entrants), board, protocols, own, tuple(dict.fromkeys(notes)))


def name_entrants(cells: Sequence[StoredCell]) -> list[Entrant]:
    """Cells grouped into entrants, in the order of their first cells."""
    cards = list_cards("method")
    groups: dict[str, dict[bytes, list[StoredCell]]] = {}
    for cell in cells:
        groups.setdefault(cell.method, {}).setdefault(cell.variant, []).append(cell)
    entrants = []
    for method, variants in groups.items():
        card = cards.get(method)
        for number, own in enumerate(variants.values(), 1):
            name = method if len(variants) == 1 else f"{method} #{number}"
            ordered = tuple(sorted(own, key=lambda cell: cell.seed))
            entrants.append(Entrant(name, method, _role(card), card, ordered))
    return entrants


def _role(card: Card | None) -> Role:
    """A method that is not installed here, such as one from a file, is a contender."""
    return role_of(card) if card else "method"


def known_protocols(facts: Mapping[str, Any]) -> tuple[dict[str, Protocol], list[str]]:
    """The protocols of a cell's tasks, and a note on each that has changed since it ran."""
    catalog = list_protocols()
    attributes = str(facts.get("scorer", {}).get("attributes", "")).split()
    found, notes = {}, []
    for task, own in facts["suite"]["tasks"].items():
        if task not in catalog:
            notes.append(f"{task} is no task of ours: its differences have no intervals here")
            continue
        protocol = catalog[task].judged_by(attributes)
        if protocol_digest(protocol) == own.get("protocol_sha256"):
            found[task] = protocol
        else:
            notes.append(f"{task} is defined otherwise here than when it ran: shown as stored")
    return found, notes


def _columns(
    facts: Mapping[str, Any], protocols: Mapping[str, Protocol], cells: Sequence[StoredCell]
) -> list[Column]:
    """As on the run's board: the tasks' order, each with its metrics and its headline."""
    stored = {(s.task, s.metric): s for cell in cells for s in cell.scores}
    tasks = dict.fromkeys([*facts["suite"]["tasks"], *(task for task, _ in stored)])
    columns = []
    for task in tasks:
        if task in protocols:
            own = protocols[task]
            shown: dict[str, Metric | AgainstExact] = {**own.metrics, **own.against_exact}
            columns += [
                Column(task, name, metric.direction, metric.unit, name in own.headline)
                for name, metric in shown.items()
            ]
            continue
        scores = [score for (name, _), score in stored.items() if name == task]
        columns += [
            Column(task, score.metric, score.direction, score.unit, place < SHOWN_OF_UNKNOWN)
            for place, score in enumerate(scores)
        ]
    return columns


def _all_scores(
    cell: StoredCell,
    exact: Entrant | None,
    protocols: Mapping[str, Protocol],
    told: OwnBoards,
    notes: list[str],
) -> dict[str, Score]:
    """The cell's own scores, those against the exact model, and those of the run's board."""
    if not cell.scored:
        return {}
    beside: list[Score] = []
    if exact:
        twin = next((one for one in exact.scored if one.seed == cell.seed), exact.first)
        try:
            beside = score_against_exact(cell.items, twin.items, protocols)
        except IncomparableError as error:
            notes.append(f"{cell.method} cannot be set against the exact model: {error.what}")
    own = {f"{score.task}.{score.metric}": score for score in (*cell.scores, *beside)}
    return {**told.rows.get(cell.record.key, Told()).scores, **own}


def _row(entrant: Entrant, cell: StoredCell, scores: Mapping[str, Score]) -> Row:
    account = cell.read("account.json") if cell.scored else {}
    found = {**account, "edit_seconds": account.get("seconds")}
    found["evaluate_seconds"] = cell.record.seconds.get("evaluate")
    return Row(
        method=entrant.name,
        seed=str(cell.seed),
        role=entrant.role,
        status=cell.record.status,
        reason=cell.record.reason,
        scores=scores,
        costs={name: found.get(name) for name in COSTS} if account else {},
        provenance={"cell_key": cell.record.key},
    )


def _with_intervals(
    row: Row, entrants: Sequence[Entrant], protocols: Mapping[str, Protocol], own: OwnBoards
) -> Row:
    """A row of means with intervals: items and seeds drawn again together; the run's own board has
    what cannot be made of the seeds' values.
    """
    if row.seed != MEAN or not row.scores:
        return row
    entrant = next(one for one in entrants if one.name == row.method)
    scores = dict(row.scores)
    for task, protocol in protocols.items():
        for name, metric in protocol.metrics.items():
            models = entrant.items(task, name)
            if f"{task}.{name}" in scores and all(models):
                column = align(metric.reduce, models, [f"seed {n}" for n in range(len(models))])
                ends = interval(column, RESAMPLES)
                score = scores[f"{task}.{name}"]
                scores[f"{task}.{name}"] = replace(score, low=ends.low, high=ends.high)
    made = own.means.get(row.method, Told()).scores
    taken = {name: score for name, score in made.items() if _only_there(score, scores.get(name))}
    return replace(row, scores={**scores, **taken})


def _only_there(made: Score, here: Score | None) -> bool:
    """Whether only the run's own board can say it: a summary, or the interval of two models."""
    summary = made.task in (OVERALL, TRACE)
    return summary or (here is not None and math.isnan(here.low) and not math.isnan(made.low))
