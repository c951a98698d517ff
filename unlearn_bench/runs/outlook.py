"""Before a run: which of a plan's cells are there already, and what the others will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_bench.errors import CorruptDataError
from unlearn_bench.runs.estimate import Estimate, estimate_cells, estimate_preparation
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.store import cell_folder, read_record

if TYPE_CHECKING:
    from unlearn_bench.runs.tune import Tuning


@dataclass(frozen=True)
class Expected:
    """One cell with what it costs, and whether the output folder has it already."""

    cell: Cell
    estimate: Estimate
    done: bool


@dataclass(frozen=True)
class Outlook:
    """All cells of a plan. seconds: of those that are not done. preparation: of the models that
    edits start from, where they are not cached; 0 where nothing is left to edit.
    """

    cells: tuple[Expected, ...]
    seconds: float
    preparation: float

    @property
    def done(self) -> int:
        """How many cells need not be computed."""
        return sum(one.done for one in self.cells)


def look_ahead(plan: Plan) -> Outlook:
    """The plan's cells against what its output folder has."""
    pairs = zip(plan.cells, estimate_cells(plan), strict=True)
    cells = tuple(Expected(cell, found, _is_done(plan, cell)) for cell, found in pairs)
    left = [one.estimate.seconds for one in cells if not one.done]
    return Outlook(cells, sum(left), estimate_preparation(plan) if left else 0.0)


def look_ahead_of_tuning(tuning: Tuning) -> Outlook:
    """The defaults of every method, and in `seconds` what all trials may take within the budget."""
    budget, seconds = tuning.budget, 0.0
    cells = tuple(
        Expected(cell, found, done=False)
        for cell, found in zip(tuning.plan.cells, estimate_cells(tuning.plan), strict=True)
    )
    for one in cells:
        own, whole = one.cell.method in tuning.methods, one.estimate.seconds
        seconds += min(budget.trials * whole, budget.seconds) if own else whole
    return Outlook(cells, seconds, estimate_preparation(tuning.plan))


def _is_done(plan: Plan, cell: Cell) -> bool:
    """Whether the output folder has it, whole and successful; a damaged one is computed again."""
    folder = cell_folder(plan.output, cell.key, cell.method, cell.seed)
    try:
        found = read_record(folder, cell.key)
    except CorruptDataError:
        return False
    return found is not None and found.status == "success"
