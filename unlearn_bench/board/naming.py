"""What the model and the edit set of a stored cell are called on a board.

A board that has the cell, or others of the same weights, decides: what is merged joins it. Else the
cell says it itself. Cells from before they did are called as the command was given the model, if it
was given a name.
"""

from __future__ import annotations

from collections.abc import Sequence

from unlearn_bench.board.sources import Inputs, ReadBoard
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.models.open import called
from unlearn_bench.runs.finished import StoredCell
from unlearn_bench.runs.plan import version_text
from unlearn_bench.runs.settings import read_settings
from unlearn_bench.runs.stored_plan import Named, named_by
from unlearn_bench.schema import Origin


def name_cell(cell: StoredCell, beside: ReadBoard | None, inputs: Inputs) -> Named:
    """How the cell's model and edit set are called. beside: the board that has the cell, if one
    has. Raises UnlearnBenchError where nobody says it.
    """
    boards = [beside] if beside else [one for one in inputs.told if _is_of(one, cell)]
    for one in boards:
        protocol = one.board.protocol
        return Named(one.board.model, protocol["model"], protocol.get("edit_set", ""))
    for other in (cell, *inputs.cells):
        if _edited(other) == _edited(cell) and (named := named_by(other)):
            return named
    return _as_commanded(cell, inputs.cells)


def _is_of(one: ReadBoard, cell: StoredCell) -> bool:
    """Whether a board is of the cell's weights and edit set."""
    fingerprint, edit_set = _edited(cell)
    protocol = one.board.protocol
    ends = protocol.get("edit_set", "").endswith(edit_set[:12])
    return bool(protocol["base_fingerprint"] == fingerprint and ends)


def _edited(cell: StoredCell) -> tuple[str, str]:
    """The weights that its run began with, and the hash of what they learned."""
    target = cell.determinants.get("target", {})
    return str(target.get("fingerprint", "")), str(target.get("edit_set", {}).get("sha256", ""))


def _as_commanded(cell: StoredCell, cells: Sequence[StoredCell]) -> Named:
    """As the last command of the cell's run had it, whose cells must all be of one model then."""
    run = cell.folder.parent.parent
    own = [one for one in cells if one.folder.parent.parent == run]
    why = "its run has cells of several models"
    if len({_edited(one)[0] for one in own}) == 1:
        try:
            settings = read_settings(run)
            spec = str(settings.get("target") or settings.get("model"))
            if found := called(spec):
                return Named(*found, _edit_set(cell, own))
            why = f"the run's command had it at {spec}, which is a place and no name"
        except UnlearnBenchError as error:
            why = error.what
    raise UnlearnBenchError(
        f"no board here says how the model of {cell.method} seed {cell.seed} is called, nor does "
        f"its run: {why}",
        where=str(cell.folder),
        next_step="name the JSON file of the board that its run wrote as well, or run the same "
        "evaluate command again: it computes nothing twice and writes the board",
    )


def _edit_set(cell: StoredCell, cells: Sequence[StoredCell]) -> str:
    """As `runs.plan.Plan.edit_set` has it, where a cell that was asked says where it came from."""
    sha256 = _edited(cell)[1]
    for one in cells if sha256 else ():
        for origin in one.read("provenance.json").get("data", ()):
            if origin.get("sha256") == sha256:
                return f"{origin['dataset']} {version_text(Origin(**origin))}"
    name = cell.determinants["target"].get("edit_set", {}).get("name", "")
    return f"{name} {sha256[:12]}".strip()
