"""Cells as the folders of runs hold them, read back without the plan that made them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.errors import CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.runs.store import (
    RECORD,
    Record,
    canonical_json,
    read_items,
    read_record,
    read_samples,
    read_scores,
)
from unlearn_bench.schema import SCORED, ItemScore, Sample, Score

# What two cells may differ in and still stand on one page: who was edited how, and by which code.
OWN = ("method", "seed", "versions", "evaluation_code_sha256", "format")


@dataclass(frozen=True)
class StoredCell:
    """One cell whose record and files are what they were when it ended.

    suite, determinants, named: of its plan.json; empty where it was stopped before that was
    written. named: how model and edit set are called, empty in a cell of an earlier version.
    """

    folder: Path
    record: Record
    suite: str
    determinants: Mapping[str, Any]
    named: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Id of the method."""
        return self.record.method

    @property
    def seed(self) -> int:
        """Of training and sampling."""
        return self.record.seed

    @property
    def scored(self) -> bool:
        """Whether it ended with scores, missing ones among them."""
        return self.record.status in SCORED

    @property
    def setting(self) -> bytes:
        """What it was measured under: cells of one setting can be compared."""
        facts = {name: value for name, value in self.determinants.items() if name not in OWN}
        return canonical_json({"suite name": self.suite, **facts})

    @property
    def variant(self) -> bytes:
        """All but the seed: cells of one variant are one method's repetitions."""
        facts = {name: value for name, value in self.determinants.items() if name != "seed"}
        return canonical_json([self.method, facts])

    def read(self, name: str) -> dict[str, Any]:
        """One of the cell's JSON objects; empty where it came to none."""
        if name not in self.record.files:
            return {}
        content: dict[str, Any] = json.loads((self.folder / name).read_bytes())
        return content

    @functools.cached_property
    def scores(self) -> list[Score]:
        """The metrics; none of a cell without scores."""
        return read_scores(self.folder / "scores.json") if self.scored else []

    @functools.cached_property
    def items(self) -> list[ItemScore]:
        """Every item's value of every metric."""
        return read_items(self.folder / "items.parquet") if self.scored else []

    @functools.cached_property
    def samples(self) -> list[Sample]:
        """Every item asked and every answer given; also of a cell that was asked and not judged."""
        found = "samples.parquet" in self.record.files
        return read_samples(self.folder / "samples.parquet") if found else []


@dataclass(frozen=True)
class Found:
    """The cells of some runs, the earlier begun first, and a line on each that cannot be read."""

    cells: tuple[StoredCell, ...]
    damaged: tuple[str, ...]


def read_cells(runs: Sequence[Path]) -> Found:
    """The cells of all runs; one that lies in two of them counts once.

    Raises UsageError for what is no folder, UnlearnBenchError where no run has a cell.
    """
    for run in runs:
        if not run.is_dir():
            raise UsageError(
                f"there is no folder {str(run)!r}",
                next_step="name the output folder of a run, which has a folder `cells`",
            )
    folders = sorted(path.parent for run in runs for path in run.glob(f"cells/*/{RECORD}"))
    if not folders:
        raise UnlearnBenchError(
            "there is no finished cell to show",
            where=", ".join(map(str, runs)),
            next_step=f"unlearn-bench evaluate --methods npo --output {runs[0]}",
        )
    cells: dict[str, StoredCell] = {}
    damaged = []
    for folder in folders:
        try:
            cell = open_cell(folder)
            cells.setdefault(cell.record.key, cell)
        except CorruptDataError as error:
            damaged.append(f"{folder.name}: {error.what}")
    ordered = sorted(cells.values(), key=lambda cell: (cell.record.started, cell.folder.name))
    return Found(tuple(ordered), tuple(damaged))


def open_cell(folder: Path) -> StoredCell:
    """The cell of a folder, its files checked against its record. Raises CorruptDataError."""
    record = read_record(folder, outline(folder)[2])
    assert record is not None  # its outline was just read
    if record.status in SCORED and not {"items.parquet", "scores.json"} <= record.files.keys():
        raise CorruptDataError("the record names no scores", where=str(folder))
    plan = read_object(folder / "plan.json") if (folder / "plan.json").exists() else {}
    determinants, named = plan.get("determinants", {}), plan.get("named", {})
    if not isinstance(determinants, dict) or not isinstance(named, dict):
        raise CorruptDataError("plan.json is not what a run writes", where=str(folder))
    return StoredCell(folder, record, str(plan.get("suite", "")), determinants, named)


def outline(folder: Path) -> tuple[str, int, str]:
    """Method, seed and key as a cell's record says them; nothing is checked."""
    record = read_object(folder / RECORD)
    try:
        return str(record["method"]), int(record["seed"]), str(record["key"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptDataError(f"the record is damaged: {error}", where=str(folder)) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a cell. Raises CorruptDataError for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptDataError(
            f"{path.name} cannot be read: {error}", where=str(path.parent)
        ) from error
    if not isinstance(content, dict):
        raise CorruptDataError(f"{path.name} is not what a run writes", where=str(path.parent))
    return content


def choose_setting(cells: Sequence[StoredCell], suite: str = "") -> list[StoredCell]:
    """The cells that can stand on one page: those of one setting, the one that was run last.

    suite: only cells of this suite. Stages of a sequence have tables of their own and are left out.
    Raises UnlearnBenchError when no cell has scores.
    """
    fitting = [
        cell
        for cell in cells
        if "request" not in cell.determinants and (not suite or cell.suite == suite)
    ]
    scored = [cell for cell in fitting if cell.scored]
    if not scored:
        ended = [f"{cell.method} {cell.record.status}" for cell in fitting]
        known = ", ".join(sorted({cell.suite for cell in cells if cell.scored}))
        what = f"no cell of suite {suite!r} has scores" if suite else "no cell has scores"
        raise UnlearnBenchError(
            f"{what}: {', '.join(ended) or 'there is none'}",
            next_step=f"choose --suite from {known}"
            if suite and known
            else "unlearn-bench evaluate with the same --output: it goes on where it was",
        )
    newest = max(scored, key=lambda cell: (cell.record.finished, cell.folder.name))
    return [cell for cell in fitting if cell.setting == newest.setting]


def find_cell(cells: Sequence[StoredCell], name: str) -> StoredCell:
    """The cell called `method`, `method@seed`, or by the first digits of its key.

    Raises UsageError where none or several are called so, with what there is.
    """
    method, _, seed = name.partition("@")
    called = [
        cell
        for cell in cells
        if (cell.method == method and seed in ("", str(cell.seed)))
        or (len(name) >= 4 and cell.record.key.startswith(name))
    ]
    if len(called) == 1:
        return called[0]
    offered = sorted(called or cells, key=lambda cell: (cell.method, cell.seed))
    known = ", ".join(f"{cell.method}@{cell.seed} ({cell.record.key[:8]})" for cell in offered)
    raise UsageError(
        f"{len(called)} cells are called {name!r}; {'choose of' if called else 'known'}: {known}",
        next_step="name one as method, method@seed, or by the digits of its key",
    )
