"""From stored cells to the board that a report shows, without the plan that made them.

A method whose options differ between cells is several entrants, numbered in the order in which they
were run. What is made of several cells together (overall and calibrated scores, TRACE's deltas) is
worked out as on a board; where that cannot be, the run's own board is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_bench.board.own_board import (
    OVERALL,
    TRACE,
    OwnBoards,
    Told,
    add_worked_out,
    read_boards,
)
from unlearn_bench.board.summary import Cells, by_metric, with_summary
from unlearn_bench.board.table import COSTS, MEAN, Board, Column, Role, Row, build_board
from unlearn_bench.compare.against_exact import score_against_exact, spread_over_seeds
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

NAMED = 3  # entrants in one note
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
    own: what takes several cells, or only the runs' own boards say. notes: how it was put together.
    """

    entrants: tuple[Entrant, ...]
    board: Board
    protocols: Mapping[str, Protocol]
    own: OwnBoards
    notes: tuple[str, ...]

    def told(self, row: Row) -> Told:
        """What takes several cells to say of a row; nothing where nobody says it."""
        if row.seed == MEAN:
            return self.own.means.get(row.method, Told())
        return self.own.rows.get(row.provenance["cell_key"], Told())

    def entrant(self, role: Role) -> Entrant | None:
        """The first of a role that has scores."""
        return _first(self.entrants, role)


def collect(cells: Sequence[StoredCell], runs: Sequence[Path], model: str) -> Collection:
    """Put cells of one setting on one board. runs: whose own boards may hold further columns."""
    entrants = name_entrants(cells)
    facts = next(cell.determinants for cell in cells if cell.scored)
    protocols, notes = known_protocols(facts)
    columns = _columns(facts, protocols, cells)
    exact = _first(entrants, "exact")
    rows = [
        _row(entrant, cell, _own_scores(cell, exact, protocols, notes))
        for entrant in entrants
        for cell in entrant.cells
    ]
    own = read_boards(runs, {cell.record.key for cell in cells})
    plain = build_board(model, cells[0].suite, columns, rows, {})
    notes += _sum_up(own, plain, entrants, protocols, facts)
    rows = [_with_told(row, own) for row in rows]
    names = {column.name for column in columns}
    more = [column for name, column in own.columns.items() if name not in names]
    columns = [column for column in more if column.task == OVERALL] + columns
    columns += [column for column in more if column.task != OVERALL]
    board = build_board(model, cells[0].suite, columns, rows, {})
    board = replace(
        board,
        rows=tuple(_with_intervals(row, entrants, exact, protocols, own) for row in board.rows),
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


def _first(entrants: Sequence[Entrant], role: Role) -> Entrant | None:
    return next((one for one in entrants if one.role == role and one.scored), None)


def _own_scores(
    cell: StoredCell,
    exact: Entrant | None,
    protocols: Mapping[str, Protocol],
    notes: list[str],
) -> dict[str, Score]:
    """The cell's own scores, and those against the exact model."""
    if not cell.scored:
        return {}
    beside: list[Score] = []
    if exact:
        try:
            beside = score_against_exact(cell.items, _twin(cell, exact).items, protocols)
        except IncomparableError as error:
            notes.append(f"{cell.method} cannot be set against the exact model: {error.what}")
    return {f"{score.task}.{score.metric}": score for score in (*cell.scores, *beside)}


def _twin(cell: StoredCell, exact: Entrant) -> StoredCell:
    """The exact model's cell that a cell is read against: of its seed, else the first."""
    return next((one for one in exact.scored if one.seed == cell.seed), exact.first)


def _sum_up(
    own: OwnBoards,
    board: Board,
    entrants: Sequence[Entrant],
    protocols: Mapping[str, Protocol],
    facts: Mapping[str, Any],
) -> list[str]:
    """Work out what takes several cells, put it into `own`, and say in notes what cannot be had."""
    known = [one for one in entrants if one.card]
    names = {one.name for one in known}
    lacking = "a task is not what it was, or not ours"
    if protocols.keys() == facts["suite"]["tasks"].keys():
        lacking = "the method is not installed here"
        rows = tuple(row for row in board.rows if row.method in names)
        try:
            summed = with_summary(replace(board, rows=rows), _cells(known, protocols))
            add_worked_out(own, summed)
        except IncomparableError as error:
            lacking = error.what
    untold = [
        one.name
        for one in entrants
        if one.scored and not any(cell.record.key in own.rows for cell in one.scored)
    ]
    if not untold:
        return []
    more = f" and {len(untold) - NAMED} more" if len(untold) > NAMED else ""
    return [
        f"no overall and no calibrated scores of {', '.join(untold[:NAMED])}{more}: {lacking}, and "
        "no board of the run is found"
    ]


def _cells(entrants: Sequence[Entrant], protocols: Mapping[str, Protocol]) -> Cells:
    target, exact = (_first(entrants, role) for role in ("target", "exact"))
    return Cells(
        protocols=protocols,
        items={
            (one.name, str(cell.seed)): by_metric(cell.items)
            for one in entrants
            for cell in one.scored
        },
        goals={one.name: one.card.facts.get("goals", ()) for one in entrants if one.card},
        target=target.name if target else "",
        exact=exact.name if exact else "",
    )


def _with_told(row: Row, own: OwnBoards) -> Row:
    told = own.rows.get(row.provenance["cell_key"], Told())
    return replace(row, scores={**told.scores, **row.scores}) if row.scores else row


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
    row: Row,
    entrants: Sequence[Entrant],
    exact: Entrant | None,
    protocols: Mapping[str, Protocol],
    own: OwnBoards,
) -> Row:
    """A row of means with intervals: items and seeds drawn again together; what cannot be made of
    the seeds' values is as `own` has it.
    """
    if row.seed != MEAN or not row.scores:
        return row
    entrant = next(one for one in entrants if one.name == row.method)
    scores = dict(row.scores)
    if exact:
        scores |= _against_exact(row, entrant, exact, protocols)
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


def _against_exact(
    row: Row, entrant: Entrant, exact: Entrant, protocols: Mapping[str, Protocol]
) -> dict[str, Score]:
    """The scores that take the exact model, with the interval of their mean over the seeds."""
    found = {}
    for task, protocol in protocols.items():
        for name, comparison in protocol.against_exact.items():
            if score := row.scores.get(f"{task}.{name}"):
                place = (task, comparison.metric)
                pairs = {
                    f"{row.method} seed {cell.seed}": (
                        by_metric(cell.items).get(place, ()),
                        by_metric(_twin(cell, exact).items).get(place, ()),
                    )
                    for cell in entrant.scored
                }
                spread = spread_over_seeds(protocol, comparison, pairs)
                found[f"{task}.{name}"] = replace(score, low=spread.low, high=spread.high)
    return found


def _only_there(made: Score, here: Score | None) -> bool:
    """Whether it is not made of one cell's items: a summary, or the interval of two models."""
    summary = made.task in (OVERALL, TRACE)
    return summary or (here is not None and math.isnan(here.low) and not math.isnan(made.low))
