"""Cells on a Ray cluster: each process makes the plan again and takes halves of cells.

An edit and the questions to its model are two halves, so one process may edit while another asks;
a model that is edited is asked before the next one is edited, since its checkpoint takes room. A
process is hired with what a cell's halves need (`runs.demand`), the largest cells first, and takes
whatever needs no more; where a node has less room, one is hired for the half alone. All processes
see one output folder and one cache, which is checked before any work. A cell whose
process is lost is given to another one.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unlearn_bench.cache import default_cache
from unlearn_bench.config import RunConfig, load_config
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import CellResult, Edited, Keep, now
from unlearn_bench.runs.demand import (
    NOBODY,
    Needs,
    Task,
    covers,
    less,
    needs_of,
    tightness,
    together,
)
from unlearn_bench.runs.estimate import Estimate, minutes
from unlearn_bench.runs.execute import Session, open_session
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.signals import deaf
from unlearn_bench.runs.supervise import overtime
from unlearn_bench.schema import FAILED, SCORED, Status

LOSSES = 3  # processes that one cell may lose before it counts as failed
NODE_DIGITS = 8  # of a node's id, for people
PATIENCE = 5.0  # seconds between two looks at which nodes there are
Half = Literal["open", "prepare", "edit", "ask", "judge"]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Job:
    """What a process needs to make the same plan. token: is in every folder that all must see."""

    settings: Mapping[str, Any]
    folder: str
    cache: str
    token: str
    keys: tuple[str, ...]


class Worker:
    """One process of the cluster, with a plan and an engine of its own. Errors that concern the
    whole run come back as text: an exception's class may be unknown where it arrives.
    """

    def open(self, job: Job) -> tuple[str, str]:
        """Make the plan; the node's id, and why this process cannot take part, "" if it can."""
        return ray.get_runtime_context().get_node_id(), self._obstacle(job)

    def _obstacle(self, job: Job) -> str:
        try:
            os.chdir(job.folder)
            os.environ["UNLEARN_BENCH_CACHE"] = job.cache
            silence_libraries(verbose=False)
            config = load_config(job.settings)
            for shared in (config.output, Path(job.cache)):
                if not _token(shared, job.token).exists():
                    raise UnlearnBenchError(
                        f"the folder {shared} is not the one that the run was started with",
                        next_step="give all nodes one folder for --output and UNLEARN_BENCH_CACHE",
                    )
            return self._plan(config, job)
        except (UnlearnBenchError, OSError) as error:
            return str(error)

    def _plan(self, config: RunConfig, job: Job) -> str:
        from unlearn_bench.runs.resolve import resolve_plan
        from unlearn_bench.runs.steps import ModelSteps

        reporter = Reporter()
        plan = resolve_plan(config, reporter)
        self.cells = {cell.key: cell for cell in plan.cells}
        self.session = Session(plan, lambda: ModelSteps(plan, reporter.say), reporter)
        if strange := set(job.keys) - self.cells.keys():
            return (
                f"{len(strange)} of the run's cells are not what this process would compute: other "
                "versions of the packages, other data or another scorer are installed here"
            )
        return ""

    def prepare(self) -> None:
        """Make the models ready that edits start from; whoever comes second finds them cached."""
        self.session.prepare()

    def edit(self, key: str) -> Edited | store.Record:
        """The first half of a cell, or its record where it ended there."""
        ended = self.session.edit(self.cells[key])
        return ended.record if isinstance(ended, CellResult) else ended

    def ask(self, key: str, edited: Edited) -> store.Record:
        """The second half of a cell."""
        return self.session.ask(self.cells[key], edited).record

    def judge(self, key: str) -> store.Record:
        """A cell that lacks nothing but a scorer's values."""
        return self.session.finish(self.cells[key]).record


def execute_on_ray(
    plan: Plan,
    settings: Mapping[str, Any],
    reporter: Reporter,
    estimates: Sequence[Estimate],
    keep: Keep = lambda result: None,
) -> list[CellResult]:
    """As `execute`, on the cluster that RAY_ADDRESS names, or on one of this machine alone.

    settings: what the plan was made of. Raises UsageError where no node has room for a process.
    """
    with open_session(plan, _no_steps, reporter) as session:
        session.look_ahead(estimates)
        results: dict[str, CellResult] = {}
        missing: list[Cell] = []
        unjudged: list[Cell] = []
        for cell in plan.cells:
            found = session.stored(cell)
            if found is not None and found.status == "success":
                results[cell.key] = CellResult(cell, found, session.folder(cell))
                keep(results[cell.key])
            else:
                half = found is not None and found.status == "incomplete"
                (unjudged if half else missing).append(cell)
        if missing or unjudged:
            with _connection(), _job(plan, settings, [*missing, *unjudged]) as job:
                needs = needs_of(plan, [*missing, *unjudged], _nodes().values())
                missing.sort(key=lambda cell: needs[cell.key, "edit"]["memory"], reverse=True)
                dispatcher = Dispatcher(session, job, keep, needs, deque(missing), deque(unjudged))
                results |= dispatcher.run()
        return [results[cell.key] for cell in plan.cells]


def _no_steps() -> Any:
    raise AssertionError("the work is done in the cluster's processes")


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """A connection to Ray, or the one that is there."""
    if ray.is_initialized():
        yield
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    alone = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **alone)
    except (ConnectionError, RayError, ValueError) as error:
        raise UnlearnBenchError(
            f"Ray cannot be reached: {error}",
            next_step="start it with `ray start`, or unset RAY_ADDRESS for this machine alone",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _job(plan: Plan, settings: Mapping[str, Any], cells: Sequence[Cell]) -> Iterator[Job]:
    cache = default_cache().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    keys = tuple(cell.key for cell in cells)
    job = Job(settings, str(Path.cwd()), str(cache), uuid.uuid4().hex, keys)
    tokens = [_token(folder, job.token) for folder in (plan.output, cache)]
    for token in tokens:
        token.touch()
    try:
        yield job
    finally:
        for token in tokens:
            token.unlink(missing_ok=True)


def _token(folder: Path, token: str) -> Path:
    return folder / f".shared-{token}"


def _nodes() -> dict[str, Needs]:
    """What every living node has in all, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


@dataclass
class _Task:
    """What a process is doing."""

    worker: Any
    half: Half
    cell: Cell | None = None
    edited: Edited | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds that the cell has taken so far, its first half included."""
        before = sum(self.edited.seconds.values()) if self.edited else 0.0
        return before + time.monotonic() - self.began


@dataclass
class Dispatcher:
    """Hands out halves of cells until every cell has ended."""

    session: Session
    job: Job
    keep: Keep
    needs: Mapping[tuple[str, Task], Needs]
    edits: deque[Cell]
    unjudged: deque[Cell]
    asks: deque[tuple[Cell, Edited]] = field(default_factory=deque)
    busy: dict[Any, _Task] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    prepared: bool = False
    nodes: dict[Any, str] = field(default_factory=dict)
    sizes: dict[Any, Needs] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    results: dict[str, CellResult] = field(default_factory=dict)

    def run(self) -> dict[str, CellResult]:
        """The results by key. Cells that run when the run is interrupted are recorded as such."""
        try:
            while len(self.results) < len(self.job.keys):
                self._hand_out()
                self._hire()
                done, _ = ray.wait(list(self.busy), timeout=PATIENCE)
                for reference in done:
                    self._take(reference)
                self._end_late()
        except BaseException:
            with deaf():
                self._dismiss()
                self._cancel()
            raise
        self._dismiss()
        return self.results

    def _hire(self) -> None:
        """Start a process for everything that waits for one, wherever a node has room."""
        free = _nodes()
        for worker, size in self.sizes.items():
            if (node := self.nodes[worker]) in free:
                free[node] = less(free[node], size)
        soon = [task.worker for task in self.busy.values() if task.half in ("open", "prepare")]
        coming = [self.sizes[worker] for worker in (*self.idle, *soon)]
        lacking = ""
        for key, task in self._waiting():
            need = self.needs[key, task]
            if served := [size for size in coming if covers(size, need)]:
                coming.remove(min(served, key=tightness))
            elif not any(self._engage(size, free) for size in (self._whole(key, task), need)):
                lacking = lacking or ", ".join(f"{name} {size:g}" for name, size in need.items())
        if lacking and not self.busy:
            self._make_room(lacking)

    def _waiting(self) -> list[tuple[str, Task]]:
        """What nobody works on, in the order in which it is handed out."""
        asks: list[tuple[str, Task]] = [(cell.key, "ask") for cell, _ in self.asks]
        edits: list[tuple[str, Task]] = [(cell.key, "edit") for cell in self.edits]
        if edits and not self.prepared:
            edits[0] = (NOBODY, "prepare")  # whose process goes on with this one
        return [*asks, *((cell.key, "judge") for cell in self.unjudged), *edits]

    def _whole(self, key: str, task: Task) -> Needs:
        """What a process needs that also does what follows."""
        cell = self.edits[0].key if task == "prepare" else key
        both = (self.needs[cell, "edit"], self.needs[cell, "ask"])
        return together(self.needs[key, task], *(both if task in ("prepare", "edit") else ()))

    def _engage(self, size: Needs, free: dict[str, Needs]) -> bool:
        """Start a process of this size on the node that it fills most; False where none has room.

        free: what nodes have left, less what is taken here.
        """
        fitting = [node for node, room in free.items() if covers(room, size)]
        if not fitting:
            return False
        node = min(fitting, key=lambda one: tightness(free[one]))
        free[node] = less(free[node], size)
        worker = self._begin(size, node)
        self.sizes[worker], self.nodes[worker] = size, node
        self._start(_Task(worker, "open"), self.job)
        return True

    def _begin(self, size: Needs, node: str) -> Any:
        options = {"num_cpus": size["CPU"], "num_gpus": size.get("GPU", 0)}
        there = NodeAffinitySchedulingStrategy(node, soft=True)  # or wherever, if it is lost
        own = ray.remote(Worker).options(
            **options, memory=size["memory"], scheduling_strategy=there
        )
        return own.remote()

    def _make_room(self, lacking: str) -> None:
        """Nobody works, and something waits that needs more: let those go who can do nothing.

        Raises UsageError where nobody is there.
        """
        if not self.idle:
            raise UsageError(
                f"no node of the cluster has room for a process ({lacking})",
                next_step="unlearn-bench evaluate --dry-run shows what each cell needs",
            )
        while self.idle:
            self._let_go(self.idle.pop())
        self._hire()

    def _let_go(self, worker: Any) -> None:
        self.sizes.pop(worker, None)
        ray.kill(worker)

    def _hand_out(self) -> None:
        """Give idle processes what they are large enough for: first what ends a cell. One alone
        prepares the models, before any cell begins.
        """
        if self.edits and not self.prepared:
            preparing = any(task.half == "prepare" for task in self.busy.values())
            worker = None if preparing else self._take_idle(NOBODY, "prepare")
            if worker is not None:
                self._start(_Task(worker, "prepare"))
            return
        for cell, edited in tuple(self.asks):
            if (worker := self._take_idle(cell.key, "ask")) is not None:
                self.asks.remove((cell, edited))
                self._start(_Task(worker, "ask", cell, edited), cell.key, edited)
        for cell in tuple(self.unjudged):
            if (worker := self._take_idle(cell.key, "judge")) is not None:
                self.unjudged.remove(cell)
                self._start(_Task(worker, "judge", cell), cell.key)
        for cell in tuple(self.edits) if not self.asks else ():
            if (worker := self._take_idle(cell.key, "edit")) is not None:
                self.edits.remove(cell)
                self._start(_Task(worker, "edit", cell), cell.key)

    def _take_idle(self, key: str, task: Task) -> Any:
        """The smallest idle process that is large enough, no longer idle; None if there is none."""
        able = [one for one in self.idle if covers(self.sizes[one], self.needs[key, task])]
        if not able:
            return None
        worker = min(able, key=lambda one: tightness(self.sizes[one]))
        self.idle.remove(worker)
        return worker

    def _start(self, task: _Task, *arguments: Any) -> None:
        if task.cell is not None:
            where = f"on node {self.nodes[task.worker][:NODE_DIGITS]}"
            self.session.reporter.say(f"{self._title(task.cell)}: {task.half} {where}")
        reference = getattr(task.worker, task.half).remote(*arguments)
        self.busy[reference] = task

    def _take(self, reference: Any) -> None:
        task = self.busy.pop(reference)
        try:
            found = ray.get(reference)
        except (RayActorError, WorkerCrashedError) as error:
            self._lose(task, error)
            return
        if task.half == "open":
            node, obstacle = found
            if obstacle:
                raise UnlearnBenchError(f"a process on node {node} cannot take part: {obstacle}")
            self.nodes[task.worker] = node
            del self.losses[task.half]  # spot machines come and go, the run goes on
        self.idle.append(task.worker)
        if task.half == "prepare":
            self.prepared = True
        elif isinstance(found, Edited):
            assert task.cell is not None
            self.asks.append((task.cell, found))
        elif isinstance(found, store.Record):
            self._finish(task.cell, found)

    def _finish(self, cell: Cell | None, record: store.Record) -> None:
        assert cell is not None
        self.results[cell.key] = CellResult(cell, record, self.session.folder(cell))
        self.keep(self.results[cell.key])
        self.session.left.count(cell.key, record.seconds)
        times = ", ".join(f"{name} {spent:.1f} s" for name, spent in record.seconds.items())
        workers = len(self.idle) + len(self.busy)
        seconds = self.session.left.seconds / max(workers, 1)
        left = f"{minutes(seconds)} left" if self.session.left.remaining else ""
        told = (f"{self._title(cell)}: {record.status} ({times})", record.reason, left)
        self.session.reporter.say("; ".join(filter(None, told)))

    def _title(self, cell: Cell) -> str:
        cells = self.session.plan.cells
        return f"cell {cells.index(cell) + 1}/{len(cells)} {cell.label}"

    def _lose(self, task: _Task, error: Exception) -> None:
        """A process is gone: its cell goes to another, or has failed for good."""
        with contextlib.suppress(Exception):
            self._let_go(task.worker)
        cell = task.cell
        if cell and (record := self._ended(task)):
            self._finish(cell, record)
            return
        name = self._title(cell) if cell else "a process"
        reason = str(error).strip().splitlines()[0]
        self.losses[cell.key if cell else task.half] += 1
        lost = self.losses[cell.key if cell else task.half]
        self.session.reporter.say(f"{name}: the process that worked on it is lost ({reason})")
        if lost < LOSSES:
            if task.half == "edit" and cell:
                self.edits.appendleft(cell)
            elif task.half == "ask" and cell and task.edited:
                self.asks.appendleft((cell, task.edited))
            elif task.half == "judge" and cell:
                self.unjudged.appendleft(cell)
            return
        why = f"its process was lost {lost} times, the last time: {reason}"
        if cell is None:
            raise UnlearnBenchError(
                f"no process of the cluster stays alive: {reason}",
                next_step="look at Ray's own logs; too little memory is the usual cause",
            )
        self._fail(cell, why)

    def _ended(self, task: _Task) -> store.Record | None:
        """The record of a cell that had ended before its process could say so.

        Only the second half begins without a record of its own from an earlier run.
        """
        assert task.cell is not None
        record = self.session.stored(task.cell)
        final = (*SCORED, *FAILED) if task.half == "ask" else ("success",)
        return record if record is not None and record.status in final else None

    def _fail(self, cell: Cell, why: str) -> None:
        self._finish(cell, self._record(cell, "failed", why))

    def _record(self, cell: Cell, status: Status, why: str) -> store.Record:
        """Record that a cell's process is gone; what is there with scores stands."""
        folder = self.session.folder(cell)
        ended = store.Record(cell.method, cell.seed, cell.key, status, why, finished=now())
        store.remove_unkept(folder)
        return store.record_failure(folder, ended)

    def _end_late(self) -> None:
        """End the processes whose cell has taken too long: it has failed.

        Not those whose answer has come, and waits because this process was busy.
        """
        limit = self.job.settings.get("time_limit") or math.inf
        late = [one for one, task in self.busy.items() if task.cell and task.spent > limit]
        answered, _ = ray.wait(late, num_returns=len(late), timeout=0) if late else ([], [])
        for reference in set(late) - set(answered):
            task = self.busy.pop(reference)
            assert task.cell is not None
            self._let_go(task.worker)
            self._fail(task.cell, overtime(limit))

    def _dismiss(self) -> None:
        for worker in (*self.idle, *(task.worker for task in self.busy.values())):
            self._let_go(worker)

    def _cancel(self) -> None:
        """Say of every cell in work that it was interrupted, as a run on one machine does."""
        if self.busy:  # until they are gone, they write
            ray.wait(list(self.busy), num_returns=len(self.busy), timeout=PATIENCE)
        begun = [task.cell for task in self.busy.values() if task.cell]
        for cell in (*begun, *(cell for cell, _ in self.asks)):
            with contextlib.suppress(OSError, UnlearnBenchError):
                self._record(cell, "cancelled", "interrupted")
