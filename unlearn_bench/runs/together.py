"""`evaluate` in several processes, as `accelerate launch` or torchrun starts them.

First all of them edit: trainings are shared (training/parallel.py), everything else each does
alike, and the main process saves what came of it. Then the main process evaluates, judges and
writes alone, as in any run, and the others have ended: vLLM works inside the main process and
cannot stand beside a process group.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list, gather_object

from unlearn_bench.errors import CorruptDataError, UnlearnBenchError
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import SMALLEST_SHARE, Half
from unlearn_bench.runs.memory import is_out_of_memory, return_memory
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.progress import Reporter, Tick
from unlearn_bench.runs.steps import ModelSteps
from unlearn_bench.schema import SCORED, EditReport
from unlearn_bench.training.parallel import (
    OtherProcessError,
    check_shards,
    is_main,
    shards_wanted,
    wait,
)
from unlearn_bench.training.precision import default_device

PATIENCE = timedelta(hours=2)  # while the main process downloads, or another is slower
FOLDER = "edits"  # of the output folder, while edits wait to be evaluated
# What the launcher told this process: vLLM and accelerate would still believe it afterwards.
LAUNCHER = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_FSDP",
)  # fmt: skip


@dataclass(frozen=True)
class _Edited:
    """One edit that waits for its evaluation, or why there is none."""

    report: EditReport | None
    fingerprint: str
    error: Exception | None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it failed only because another process did."""
        return isinstance(self.error, OtherProcessError)

    def knowing(self, reasons: Sequence[str]) -> _Edited:
        """The same, unless it fell elsewhere alone. reasons: of all processes where it fell."""
        if not reasons or (self.error is not None and not self.is_elsewhere):
            return self
        return replace(self, error=UnlearnBenchError(f"another process failed: {reasons[0]}"))


class SharedSteps(ModelSteps):
    """ModelSteps whose edits were all made before, by every process, in `edit_all`."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        super().__init__(plan, say)
        self._edited: dict[str, _Edited] = {}

    def prepare(self, tick: Tick) -> None:
        """Nothing: `edit_all` has prepared the models that edits start from."""

    def edit_all(self, cells: list[Cell], reporter: Reporter) -> None:
        """Prepare the models and edit for every cell, together.

        What fails is kept, to be raised in the cell's turn.
        """
        if cells:
            with reporter.step("prepare the models") as tick:
                super().prepare(tick)
        for number, cell in enumerate(cells, 1):
            with reporter.step(f"edit {number}/{len(cells)} {cell.label}") as tick:
                self._edited[cell.key] = self._edit_one(cell, tick, reporter.say)

    def _edit_one(self, cell: Cell, tick: Tick, say: Callable[[str], None]) -> _Edited:
        """Edit; where memory runs out in any process, all again with smaller batches.

        Raises UnlearnBenchError where it runs out among shards: the other processes wait inside
        torch for this one, and only the launcher can end them.
        """
        divisor = 1
        while True:
            made = self._try(cell, tick)
            short = is_out_of_memory(made.error) if made.error else False
            if short and shards_wanted():
                raise UnlearnBenchError(
                    f"memory ran out at the edit of {cell.label}: {made.error}",
                    next_step=f"--set {cell.method}.batch_size=..., and as many times more of "
                    f"{cell.method}.accumulate; or leave {cell.method} out",
                )
            told = [] if made.error is None else [(str(made.error), short, made.is_elsewhere)]
            raised = gather_object(told)
            divisor *= 2
            scarce = [why for why, out_of_memory, _ in raised if out_of_memory]
            again = scarce and divisor <= SMALLEST_SHARE
            if not again or not super().divide_batches(cell, "edit", divisor):
                return made.knowing([why for why, _, elsewhere in raised if not elsewhere])
            del made
            return_memory()
            say(f"{cell.label}: edit again with smaller batches: {scarce[0]}")

    def _try(self, cell: Cell, tick: Tick) -> _Edited:
        try:
            report = super().edit(cell, self._place(cell), tick)
        except Exception as raised:
            raised.add_note("".join(traceback.format_exception(raised)))
            return _Edited(None, "", raised.with_traceback(None))  # whose frames keep the model
        return _Edited(report, self._saved, None)

    def edit(self, cell: Cell, checkpoint: Path, tick: Tick) -> EditReport:
        """Hand out the edit made for this cell. Raises what it raised."""
        made = self._edited.pop(cell.key)
        if made.error is not None or made.report is None:
            raise made.error or UnlearnBenchError(f"{cell.label} was not edited")
        os.replace(self._place(cell), checkpoint)
        self._saved = made.fingerprint
        return made.report

    def divide_batches(self, cell: Cell, half: Half, divisor: int) -> bool:
        """As ModelSteps; nothing of the edit, which was made by all processes and is over."""
        return half != "edit" and super().divide_batches(cell, half, divisor)

    def close(self) -> None:
        """Release everything, edits that nobody evaluated among it."""
        super().close()
        shutil.rmtree(self.plan.output / FOLDER, ignore_errors=True)

    def _place(self, cell: Cell) -> Path:
        return store.inside(self.plan.output, FOLDER, cell.key[:16])


def edit_together(resolve: Callable[[], Plan], reporter: Reporter) -> SharedSteps | None:
    """Make every missing edit of the plan with all processes; the main one gets the steps.

    The others get None, and nothing is left for them to do. Raises what `resolve` raises, and
    UsageError for an FSDP configuration that cannot serve.
    """
    check_shards()
    PartialState(cpu=default_device() == "cpu", timeout=PATIENCE)
    plan = _main_first(resolve)
    steps = SharedSteps(plan, reporter.say)
    missing = set(broadcast_object_list([[cell.key for cell in _unedited(plan)]])[0])
    main = is_main()
    with store.exclusive(plan.output) if main else contextlib.nullcontext():
        steps.edit_all([cell for cell in plan.cells if cell.key in missing], reporter)
    _part()
    return steps if main else None


def _main_first(resolve: Callable[[], Plan]) -> Plan:
    """The plan, made by the main process first: what it downloads the others find."""
    plan = resolve() if is_main() else None
    wait()
    return plan or resolve()


def _unedited(plan: Plan) -> list[Cell]:
    """Cells whose record, if there is one, does not say that they were edited."""
    found = []
    for cell in plan.cells:
        folder = store.cell_folder(plan.output, cell.key, cell.method, cell.seed)
        try:
            record = store.read_record(folder, cell.key)
        except CorruptDataError:
            record = None
        if record is None or record.status not in SCORED:
            found.append(cell)
    return found


def _part() -> None:
    """End the process group; this process is one alone from here on."""
    wait()
    torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
    for name in LAUNCHER:
        os.environ.pop(name, None)
