"""Requests one after another on the same model: which cells that means, and how they run.

A chain is one method with one seed; each of its stages edits what the stage before left. A stage is
a cell like any other, with its own key, record and scores, so a run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.registry import Card
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import CellResult, Steps
from unlearn_bench.runs.execute import open_session
from unlearn_bench.runs.plan import (
    CHECKPOINT_BYTES,
    Cell,
    Plan,
    check_disk,
    needs_base,
    needs_exact,
)
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.requests import Request, find_obstacle
from unlearn_bench.schema import SCORED

SUITE = "requests"  # what a sequence asks by default
FUR = "fur"


@dataclass(frozen=True, kw_only=True)
class StageCell(Cell):
    """One stage of a chain, counted from 1; its `requested` are this and all earlier requests'.

    obstacle: why the method cannot serve the request, "" if it can; such a stage leaves the model
    as it is.
    """

    stage: int
    request: Request
    previous: StageCell | None
    obstacle: str

    @property
    def label(self) -> str:
        """For people."""
        return f"{super().label} stage {self.stage} {self.request.name}"

    @property
    def origin(self) -> StageCell | None:
        """The stage whose model this one edits; None is the target."""
        before = self.previous
        while before is not None and before.obstacle:
            before = before.previous
        return before


@dataclass(frozen=True)
class SequencePlan:
    """plan: its cells are all that is to be computed. targets: θ₀ itself, one cell per seed.

    chains: by method, then by seed, each with one cell per request.
    """

    plan: Plan
    requests: tuple[Request, ...]
    targets: tuple[Cell, ...]
    chains: tuple[tuple[StageCell, ...], ...]


def plan_sequence(plan: Plan, requests: Sequence[Request], *, lenient: bool) -> SequencePlan:
    """The chains of every method of `plan`; methods that serve none of the requests are left out.

    lenient: leave them out with a note, as under `--methods all`; else refuse. Raises UsageError
    for such a method, and for a suite that does not ask every request's facts; DiskFullError.
    """
    check_asked(plan, requests)
    useless = {
        name: reason
        for name, card in plan.cards.items()
        if (reason := _serves_nothing(card, requests))
    }
    if useless and not lenient:
        raise UsageError(
            "; ".join(useless.values()),
            next_step="leave the method out, or ask for requests that it can serve",
        )
    targets = tuple(cell for cell in plan.cells if cell.role == "target")
    chains = tuple(
        _chain(plan, cell, requests)
        for cell in plan.cells
        if cell.role != "target" and cell.method not in useless
    )
    stages = [cell for chain in chains for cell in chain]
    idle = {f"{cell.request.name}: {cell.obstacle}" for cell in stages if cell.obstacle}
    notes = (
        *plan.notes,
        *(f"left out: {reason}" for reason in useless.values()),
        *(f"not applicable, the model passes on unchanged: {note}" for note in sorted(idle)),
    )
    computed = (*targets, *(cell for cell in stages if not cell.obstacle))
    kept = len(computed) if plan.keep_checkpoints else len(requests)  # an exact model per request
    check_disk(plan.output, plan.parameters * CHECKPOINT_BYTES, kept, keep=True)
    return SequencePlan(
        dataclasses.replace(plan, cells=computed, notes=notes), tuple(requests), targets, chains
    )


def _serves_nothing(card: Card, requests: Sequence[Request]) -> str:
    obstacles = [find_obstacle(card, request.kind) for request in requests]
    return obstacles[0] if all(obstacles) else ""


def check_asked(plan: Plan, requests: Sequence[Request]) -> None:
    """Raise UsageError unless the suite asks at least one fact of every request."""
    from unlearn_bench.protocols.documents import load_fur_questions

    if FUR not in plan.protocols:
        raise UsageError(
            f"suite {plan.suite.name!r} does not ask {FUR}, which scores the requests",
            next_step=f"choose a suite with {FUR}, or name it among --tasks",
        )
    limits = {FUR: plan.suite.limits.get(FUR)}
    rows = load_fur_questions(limits=limits, paraphrases=0)["test"]
    asked = {identity.rpartition(":")[0] for identity in rows["id"]}
    for request in requests:
        if not asked & set(request.facts):
            raise UsageError(
                f"no fact of {request.name!r} is among the {limits[FUR]} that the suite asks",
                next_step="raise --limit, or ask for larger parts",
            )


def _chain(plan: Plan, cell: Cell, requests: Sequence[Request]) -> tuple[StageCell, ...]:
    """The stages that a method's plain cell becomes."""
    assert plan.fur is not None
    card, chain = plan.cards[cell.method], list[StageCell]()
    requested: tuple[str, ...] = ()
    for stage, request in enumerate(requests, 1):
        requested += request.subjects
        previous = chain[-1] if chain else None
        facts: dict[str, Any] = {
            "previous": previous.key if previous else "",
            "kind": request.kind,
            "texts_sha256": store.digest(plan.fur.edit_sets(requested=request.subjects)),
        }
        if needs_exact(card) or needs_base(card):
            facts["exact_texts_sha256"] = store.digest(plan.fur.exact_training(requested))
        chain.append(
            StageCell(
                **vars(cell)
                | {
                    "determinants": {**cell.determinants, "request": facts},
                    "requested": requested,
                },
                stage=stage,
                request=request,
                previous=previous,
                obstacle=find_obstacle(card, request.kind),
            )
        )
    return tuple(chain)


@dataclass(frozen=True)
class SequenceResult:
    """Every cell's result, in the plan's order: the targets, then the stages of each chain."""

    targets: tuple[CellResult, ...]
    chains: tuple[tuple[CellResult, ...], ...]

    @property
    def computed(self) -> tuple[CellResult, ...]:
        """All results but those of stages that were not applicable."""
        cells = [*self.targets, *(result for chain in self.chains for result in chain)]
        return tuple(result for result in cells if result.record.status != "not_applicable")


def execute_sequence(
    sequence: SequencePlan, open_steps: Callable[[], Steps], reporter: Reporter
) -> SequenceResult:
    """Compute what is missing, chain after chain.

    A stage's checkpoint stays until the next stage is done, so an interrupted or failed chain goes
    on from there; with `keep_checkpoints` all stay. Raises as `execute.execute` does.
    """
    kept = dataclasses.replace(sequence.plan, keep_checkpoints=True)
    keep_all = sequence.plan.keep_checkpoints
    with open_session(kept, open_steps, reporter) as session:

        def finish(cell: Cell) -> CellResult:
            try:
                return session.finish(cell)
            except BaseException:  # the run ends here, and this cell begins anew next time
                shutil.rmtree(checkpoint_of(kept.output, cell), ignore_errors=True)
                raise

        targets = tuple(map(finish, sequence.targets))
        if not keep_all:
            _drop_checkpoints(targets)
        chains = tuple(
            tuple(_run_chain(chain, finish, kept.output, keep_all=keep_all))
            for chain in sequence.chains
        )
    return SequenceResult(targets, chains)


def _run_chain(
    chain: Sequence[StageCell],
    finish: Callable[[Cell], CellResult],
    output: Path,
    *,
    keep_all: bool,
) -> Iterator[CellResult]:
    done: list[CellResult] = []
    broken = ""
    for cell in chain:
        if broken:
            yield _write_down(output, cell, "not_run", broken)
        elif cell.obstacle:
            yield _write_down(output, cell, "not_applicable", cell.obstacle)
        else:
            result = finish(cell)
            if result.record.status in SCORED:
                if not keep_all:
                    _drop_checkpoints(done)
                done.append(result)
            else:
                broken = f"stage {cell.stage} ({cell.request.name}) {result.record.status}"
                _drop_checkpoints([result])
            yield result
    if not (broken or keep_all):
        _drop_checkpoints(done)


def _drop_checkpoints(results: Sequence[CellResult]) -> None:
    for result in results:
        shutil.rmtree(result.folder / store.CHECKPOINT, ignore_errors=True)


def _write_down(output: Path, cell: StageCell, status: store.CellStatus, reason: str) -> CellResult:
    """Record a stage that nothing was computed for. One that was computed before keeps its own."""
    folder = store.cell_folder(output, cell.key, cell.method, cell.seed)
    record = store.Record(cell.method, cell.seed, cell.key, status, reason)
    try:
        found = store.read_record(folder, cell.key)
    except CorruptDataError:
        store.set_aside(output, folder)
        found = None
    if found is None or found.status not in SCORED:
        shutil.rmtree(folder, ignore_errors=True)
        store.write_record(folder, record)
    return CellResult(cell, record, folder)


def checkpoint_of(output: Path, cell: Cell) -> Path:
    """Where a cell's edited model lies while it is kept."""
    return store.cell_folder(output, cell.key, cell.method, cell.seed) / store.CHECKPOINT
