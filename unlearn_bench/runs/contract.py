"""What a cell's work is made of and what comes of it: known to whoever computes or reads cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from unlearn_bench.runs import store
from unlearn_bench.runs.plan import Cell
from unlearn_bench.runs.progress import Tick
from unlearn_bench.schema import EditReport, ItemScore, Sample

SECOND = "second_items.parquet"  # what the second scorer said of the same items
Half = Literal["edit", "evaluate"]  # of a cell
SMALLEST_SHARE = 4  # of a batch, one in four, is the least that is tried where memory runs out


class Steps(Protocol):
    """The work of a cell, step by step. `runs.steps` has the real one; tests bring small ones."""

    def prepare(self, tick: Tick) -> None:
        """Make the models ready that edits start from. Called once, before the first such cell."""

    def edit(self, cell: Cell, checkpoint: Path, tick: Tick) -> EditReport:
        """Let the method change the target; save the result to `checkpoint`."""

    def identify(self) -> str:
        """The fingerprint of the checkpoint that `edit` wrote last."""

    def adopt(self, checkpoint: Path, identity: str) -> None:
        """Take over what another process has edited. Raises CorruptDataError if it is not that."""

    def evaluate(self, cell: Cell, checkpoint: Path, tick: Tick) -> tuple[list[Sample], Any]:
        """Ask the suite's items of `checkpoint`; also return what proves which model answered."""

    def start_seconds(self) -> float:
        """Those of the last evaluation's in which what answers was started; 0 where it ran."""

    def divide_batches(self, cell: Cell, half: Half, divisor: int) -> bool:
        """Read only one in `divisor` of a batch's texts at a time in this half of this cell, from
        now on. False where it has no batches that could be so small.
        """

    def division(self, cell: Cell, half: Half) -> str:
        """How the half's batches were divided, in words; "" where they are whole."""

    def score(self, samples: Sequence[Sample], tick: Tick) -> list[ItemScore]:
        """Judge the samples; NaN where the judge had no answer."""

    def score_second(self, samples: Sequence[Sample], tick: Tick) -> list[ItemScore]:
        """The judged values alone, by the plan's second scorer. Called where there is one."""

    def describe(self, checkpoint: Path) -> dict[str, Any]:
        """Identity of the checkpoint, the engine and the scorer, for the provenance file."""

    def reset(self) -> None:
        """Drop the engine: after a failure its state is not known."""

    def close(self) -> None:
        """Release everything."""


@dataclass(frozen=True)
class CellResult:
    """One cell with the record it has now and the folder that holds its files."""

    cell: Cell
    record: store.Record
    folder: Path


Keep = Callable[[CellResult], None]


@dataclass(frozen=True)
class Edited:
    """A cell whose model is edited and not yet asked: enough for another process to go on.

    identity: fingerprint of the checkpoint in the cell's folder.
    """

    identity: str
    started: str
    files: dict[str, str]
    seconds: dict[str, float]
    remark: str = ""


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
