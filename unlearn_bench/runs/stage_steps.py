"""The real steps of a stage: edit what the stage before left, with the texts of one request."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.methods.contract import EditData
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.runs.plan import Cell
from unlearn_bench.runs.progress import Tick
from unlearn_bench.runs.sequence import StageCell, checkpoint_of
from unlearn_bench.runs.steps import ModelSteps
from unlearn_bench.training.prepare import BaseTraining


class StageSteps(ModelSteps):
    """ModelSteps in which a StageCell starts from its `origin`'s checkpoint and reads its request.

    The reference is then the model before the stage.
    """

    def start_of(self, cell: Cell, tick: Tick) -> Path:
        """The folder of the model before this stage, which is the one that was scored there.

        Where that checkpoint is gone, its stage is edited again, and those before it as needed.
        Raises UnlearnBenchError when the edit then gives other weights than those scored.
        """
        origin = cell.origin if isinstance(cell, StageCell) else None
        if origin is None:
            return self.target
        folder = checkpoint_of(self.plan.output, origin)
        scored = _scored_fingerprint(folder.parent)
        if folder.is_dir() and fingerprint(folder) == scored:
            return folder
        self.say(f"{origin.label}: its checkpoint is gone, editing again")
        self.edit(origin, folder, tick)
        if fingerprint(folder) != scored:
            raise UnlearnBenchError(
                f"{origin.label}, edited again, gave other weights than those that were scored",
                where=str(folder.parent),
                next_step="remove that folder and run the command again: it is then scored afresh",
            )
        return folder

    def data_of(self, cell: Cell) -> EditData:
        """The request's texts; sets of other requests are empty, the rest is as in any run."""
        if not isinstance(cell, StageCell):
            return super().data_of(cell)
        assert self.plan.fur is not None
        sets = self.plan.fur.edit_sets(requested=cell.request.subjects)
        return dataclasses.replace(
            self.plan.data, forget=sets.forget, old=sets.old, update=sets.update
        )

    def base_of(self, cell: Cell) -> BaseTraining | None:
        """As for any cell, but `before` are the texts after the earlier requests.

        What a stage before had changed already is not to be trained again.
        """
        found = super().base_of(cell)
        if found is None or not isinstance(cell, StageCell):
            return found
        assert self.plan.fur is not None
        earlier = [name for name in cell.requested or () if name not in cell.request.subjects]
        return dataclasses.replace(found, before=self.plan.fur.exact_training(earlier))


def _scored_fingerprint(folder: Path) -> str:
    facts: dict[str, Any] = json.loads((folder / "provenance.json").read_bytes())
    return str(facts["weights_fingerprint"])
