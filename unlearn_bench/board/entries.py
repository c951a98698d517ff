"""What may become a row of a merged board, and where its numbers come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.board.collect import known_protocols
from unlearn_bench.board.naming import name_cell
from unlearn_bench.board.publish import board_protocol
from unlearn_bench.board.sources import Inputs, ReadBoard
from unlearn_bench.board.table import Row
from unlearn_bench.errors import UsageError
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.finished import StoredCell
from unlearn_bench.runs.store import canonical_json
from unlearn_bench.runs.stored_plan import Named, plan_of
from unlearn_bench.schema import SCORED

VARIANT = "#"  # between a method's name and what tells its options apart


@dataclass(frozen=True)
class Entry:
    """One cell that may become a row: from a run's folder, from a board's row, or from both.

    row: as a board has it, None where only the cell is there. rebuilt: whether its numbers are
    worked out from the cell. given: named on the command line, not there already.
    """

    named: Named
    method: str
    options: str
    seed: str
    protocol: Mapping[str, Any]
    status: str
    source: str
    given: bool
    key: str
    board: ReadBoard | None = None
    row: Row | None = None
    cell: StoredCell | None = None
    protocols: Mapping[str, Protocol] | None = None

    @property
    def rebuilt(self) -> bool:
        """Whether its numbers are worked out from its items."""
        return self.protocols is not None

    @property
    def identity(self) -> tuple[str, str, str]:
        """What a board has one row of."""
        return self.method, self.options, self.seed

    @property
    def rank(self) -> tuple[bool, bool, bool, str, str]:
        """The highest of one identity counts: scores before none, what is given before what is
        there, cells before rows, the last to finish before others.
        """
        finished = self.cell.record.finished if self.cell else ""
        return self.status in SCORED, self.given, self.cell is not None, finished, self._digest

    @property
    def _digest(self) -> str:
        told = self.cell.record if self.cell else repr(self.row)
        return hashlib.sha256(canonical_json(told)).hexdigest()


def cell_entries(inputs: Inputs, notes: list[str]) -> Iterator[Entry]:
    """The cells of runs. notes: what is left out, and why, is added to them.

    Raises UnlearnBenchError for a cell whose model neither a board nor its run names.
    """
    by_key = {
        row.provenance.get("cell_key", ""): (one, row) for one in inputs.told for row in one.rows
    }
    for cell in inputs.cells:
        label = f"{cell.method} seed {cell.seed}"
        if reason := _no_row(cell):
            notes.append(f"{label} left out: {reason}")
            continue
        beside = by_key.get(cell.record.key)
        named = name_cell(cell, beside[0] if beside else None, inputs)
        protocols, changed = known_protocols(cell.determinants)
        if cell.method not in list_cards("method"):
            changed = [f"the method {cell.method} is not installed here"]
        if changed and beside is None:
            notes.append(f"{label} left out: {changed[0]}, and no board here has its row")
            continue
        if changed:
            notes.append(f"{label} is shown as its own board has it: {changed[0]}")
        yield _of_cell(cell, named, beside, {} if changed else protocols)


def _no_row(cell: StoredCell) -> str:
    """Why a cell is no row of any board, "" for one that is."""
    facts = cell.determinants
    if cell.record.status == "started" or not facts:
        return "it was stopped before it ended"
    if "request" in facts:
        return "a stage of a sequence, which has a table of its own"
    if facts["suite"].get("part", "test") != "test":
        return "a trial of tuning, on items that no board asks"
    return ""


def _of_cell(
    cell: StoredCell,
    named: Named,
    beside: tuple[ReadBoard, Row] | None,
    protocols: Mapping[str, Protocol],
) -> Entry:
    board, row = beside or (None, None)
    if protocols:
        cards = {cell.method: list_cards("method")[cell.method]}
        plan = plan_of([cell], protocols, cards, {cell.record.key: cell.method}, named)
        protocol: Mapping[str, Any] = board_protocol(
            plan, cell.read("provenance.json").get("decoding")
        )
    else:
        assert board is not None
        protocol = board.board.protocol
    return Entry(
        named=named,
        method=cell.method,
        options=canonical_json(cell.determinants["method"]["options"]).decode(),
        seed=str(cell.seed),
        protocol=protocol,
        status=cell.record.status,
        source=str(cell.folder),
        given=True,
        key=cell.record.key,
        board=board,
        row=row,
        cell=cell,
        protocols=protocols or None,
    )


def row_entries(inputs: Inputs) -> Iterator[Entry]:
    """Rows of boards. Raises UsageError for one that names no cell."""
    for one in inputs.boards:
        for row in one.rows:
            missing = [name for name in ("cell_key", "options") if not row.provenance.get(name)]
            if missing:
                raise UsageError(
                    f"{row.method} seed {row.seed} has no {' and no '.join(missing)}: nobody can "
                    "say which cell it is",
                    where=str(one.path),
                    next_step=f"unlearn-bench board validate {one.path}",
                )
            protocol = one.board.protocol
            yield Entry(
                named=Named(one.board.model, protocol["model"], protocol.get("edit_set", "")),
                method=row.method.partition(VARIANT)[0],
                options=row.provenance["options"],
                seed=row.seed,
                protocol=protocol,
                status=row.status,
                source=str(one.path),
                given=one.given,
                key=row.provenance["cell_key"],
                board=one,
                row=row,
            )
