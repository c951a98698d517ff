"""Run a plan's cells one after another: edit, evaluate, score, store.

One cell's failure never stops the others. Ctrl-C (or SIGTERM) records the running cell as cancelled
and ends every child process; a full disk ends the run with all finished records intact.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from unlearn_bench.cache import default_cache
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.compare.agreement import AGREEMENT, agreements
from unlearn_bench.errors import (
    CancelledError,
    CorruptDataError,
    DiskFullError,
    DivergedError,
    UnlearnBenchError,
    UsageError,
)
from unlearn_bench.runs import store, tree
from unlearn_bench.runs.children import end_children
from unlearn_bench.runs.contract import (
    SECOND,
    SMALLEST_SHARE,
    CellResult,
    Edited,
    Half,
    Keep,
    Steps,
    now,
)
from unlearn_bench.runs.estimate import Estimate
from unlearn_bench.runs.memory import is_out_of_memory, return_memory
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.progress import Reporter, Tick
from unlearn_bench.runs.signals import deaf, sigterm_as_interrupt
from unlearn_bench.runs.supervise import given_up
from unlearn_bench.runs.time_left import TimeLeft
from unlearn_bench.schema import FAILED, SCORED, EditReport, Sample, Score

JUDGED = {SECOND, "items.parquet", "scores.json"}  # written again where a cell is judged again
Ended = TypeVar("Ended")


@dataclass
class _Work:
    """What one running cell has so far."""

    cell: Cell
    folder: Path
    title: str
    record: store.Record
    files: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    remark: str = ""  # what its reader has to know although it ended well


def execute(
    plan: Plan,
    open_steps: Callable[[], Steps],
    reporter: Reporter,
    estimates: Sequence[Estimate] = (),
    keep: Keep = lambda result: None,
) -> list[CellResult]:
    """Compute what is missing and return every cell's result, in the plan's order.

    open_steps is called only if a cell has to be computed, so a finished run starts no engine.
    estimates: of the plan's cells, to say how long it still takes. keep: is given every result as
    it comes. Raises CancelledError (exit 130) after Ctrl-C, and DiskFullError; finished cells stay
    whole.
    """
    with open_session(plan, open_steps, reporter) as session:
        session.look_ahead(estimates)
        results = []
        for cell in plan.cells:
            results.append(session.finish(cell))
            keep(results[-1])
        return results


@contextlib.contextmanager
def open_session(
    plan: Plan, open_steps: Callable[[], Steps], reporter: Reporter
) -> Iterator[Session]:
    """Hold the plan's output folder for a caller who finishes one cell after another, and perhaps
    decides on the next by the last. Opens and raises what `execute` does.
    """
    session = Session(plan, open_steps, reporter)
    with store.exclusive(plan.output), sigterm_as_interrupt():
        try:
            with store.full_disk_said(plan.output):
                yield session
        except KeyboardInterrupt:
            raise CancelledError(
                "cancelled; finished cells are kept",
                where=str(plan.output),
                next_step="run the same command again: it goes on where it was",
            ) from None
        finally:
            session.close()


class Session:
    """The state shared by the cells of one run: its steps, once they are needed."""

    def __init__(self, plan: Plan, open_steps: Callable[[], Steps], reporter: Reporter) -> None:
        self.plan, self.open_steps, self.reporter = plan, open_steps, reporter
        self.steps: Steps | None = None
        self.source = tree.Tree()
        self.begun = 0
        self.left = TimeLeft({})

    def look_ahead(self, estimates: Sequence[Estimate]) -> None:
        """Say what is done already and what is not. estimates: of all the plan's cells, or none."""
        found = {cell.key: self.stored(cell) for cell in self.plan.cells}
        statuses = {key: record.status for key, record in found.items() if record}
        if statuses:
            known = ", ".join(f"{n} {status}" for status, n in Counter(statuses.values()).items())
            where = f"in {self.plan.output} under these very settings"
            again = "a success is not computed again"
            self.reporter.say(f"{len(found)} cells; known {where}: {known}; {again}")
        if estimates:
            pairs = zip(self.plan.cells, estimates, strict=True)
            asked = {"success", "incomplete"}  # at most judged again, which is soon done
            done = {key for key, status in statuses.items() if status in asked} | given_up()
            self.left = TimeLeft({cell.key: e for cell, e in pairs if cell.key not in done})
            self.reporter.outlook = lambda: self.left

    def finish(self, cell: Cell, *, title: str = "", retry: bool = True) -> CellResult:
        """The cell's stored result, or a fresh one.

        title: for the reader, in place of the cell's number and label. retry: compute a cell again
        that is stored as failed or diverged. One that killed the process is left as it is.
        """
        self.begun += 1
        title = title or f"cell {self.begun}/{len(self.plan.cells)} {cell.label}"
        folder = self.folder(cell)
        found = self.stored(cell)
        final = {"success"} if retry else {"success", *FAILED}
        if cell.key in given_up():
            final = {*SCORED, *FAILED}
        if found is not None and found.status in final:
            done = "already done" if found.status == "success" else f"{found.status} before"
            self.reporter.say(f"{title}: {done}")
            return CellResult(cell, found, folder)
        self.prepare()
        self.left.begin(cell.key)
        work = self._begin(cell, title)
        if found is not None and found.status == "incomplete":
            work.record = replace(found, finished="")
            work.files, work.seconds = dict(found.files), dict(found.seconds)
            return self._guarded(work, self._judge_again)
        shutil.rmtree(folder, ignore_errors=True)
        return self._guarded(work, self._compute)

    def prepare(self) -> Steps:
        """The steps, with the models ready that edits start from."""
        if self.steps is None:
            self.source = tree.source_tree()  # now: later changes are not what this process loaded
            self.steps = self.open_steps()
            with (
                store.full_disk_said(default_cache()),
                self.reporter.step("prepare the models") as tick,
            ):
                self.steps.prepare(tick)
        return self.steps

    def edit(self, cell: Cell) -> Edited | CellResult:
        """The first half of a cell, for whoever asks its model; or how it ended before that."""
        self.prepare()
        work = self._begin(cell, cell.label)
        shutil.rmtree(work.folder, ignore_errors=True)

        def compute(work: _Work, steps: Steps) -> Edited:
            self._edit(work, steps)
            identity, started = steps.identify(), work.record.started
            return Edited(identity, started, work.files, work.seconds, work.remark)

        return self._guarded(work, compute, keep_checkpoint=True)

    def ask(self, cell: Cell, edited: Edited) -> CellResult:
        """The second half: ask the edited model, judge, and write the record."""
        self.prepare()
        work = self._begin(cell, cell.label)
        work.record = replace(work.record, started=edited.started)
        work.files, work.seconds = dict(edited.files), dict(edited.seconds)
        work.remark = edited.remark

        def compute(work: _Work, steps: Steps) -> CellResult:
            steps.adopt(self._checkpoint(work), edited.identity)
            return self._ask(work, steps)

        return self._guarded(work, compute)

    def _checkpoint(self, work: _Work) -> Path:
        return work.folder / (store.CHECKPOINT if self.plan.keep_checkpoints else store.UNKEPT)

    def _begin(self, cell: Cell, title: str) -> _Work:
        started = store.Record(cell.method, cell.seed, cell.key, "started", started=now())
        return _Work(cell, self.folder(cell), title, started)

    def folder(self, cell: Cell) -> Path:
        """Where the cell's files are."""
        return store.cell_folder(self.plan.output, cell.key, cell.method, cell.seed)

    def stored(self, cell: Cell) -> store.Record | None:
        """The cell's verified record; a damaged cell is set aside and counts as none.

        A finished cell may still have its model: its process was killed just then.
        """
        folder = self.folder(cell)
        try:
            found = store.read_record(folder, cell.key)
            if found is not None and found.status == "success":
                store.remove_unkept(folder)
            return found
        except CorruptDataError as error:
            place = store.set_aside(self.plan.output, folder)
            self.reporter.say(f"{error.what}; set aside as {place}, computing it again")
            return None

    def _guarded(
        self,
        work: _Work,
        compute: Callable[[_Work, Steps], Ended],
        *,
        keep_checkpoint: bool = False,
    ) -> Ended | CellResult:
        """Run `compute` and write how it ended: the record comes last, whatever happens. A record
        with scores that is there by then is never replaced by one without.

        keep_checkpoint: where `compute` ends well, since somebody else still needs it.
        """
        assert self.steps is not None
        needed = False
        try:
            store.write_record(work.folder, work.record)
            ended = compute(work, self.steps)
            needed = keep_checkpoint
            return ended
        except KeyboardInterrupt:
            with deaf(), contextlib.suppress(OSError, UnlearnBenchError):
                store.record_failure(work.folder, self._ended(work, "cancelled", "interrupted"))
            raise
        except DivergedError as error:
            reason = "; ".join(filter(None, (error.what, error.where)))
            return self._fail(work, "diverged", reason)
        except Exception as error:
            if isinstance(error, DiskFullError) or store.is_disk_full(error):
                raise store.disk_full(work.folder) from error
            self.steps.reset()
            trace = "".join(traceback.format_exception(error))
            return self._fail(work, "failed", f"{type(error).__name__}: {error}".strip(), trace)
        finally:
            if not needed:
                store.remove_unkept(work.folder)

    def _conclude(self, work: _Work, scores: Sequence[Score]) -> CellResult:
        missing = self._unjudged(scores)
        status: store.CellStatus = "incomplete" if missing else "success"
        times = ", ".join(f"{name} {spent:.1f} s" for name, spent in work.seconds.items())
        reason = "; ".join(filter(None, (missing, work.remark)))
        record = self._ended(work, status, reason)
        store.write_record(work.folder, record)
        self.left.count(work.cell.key, work.seconds)
        told = (f"{work.title}: {status} ({times})", missing, str(self.left))
        self.reporter.say("; ".join(filter(None, told)))
        return CellResult(work.cell, record, work.folder)

    def _fail(
        self, work: _Work, status: store.CellStatus, reason: str, trace: str = ""
    ) -> CellResult:
        """Record that the cell came to no scores, then say so: the reader may be gone by now.

        A folder that takes no record (its name is too long for the disk) is this cell's misfortune
        and no other's.
        """
        unwritten = ""
        try:
            if trace:
                content = trace.encode("utf-8", "replace")
                work.files["traceback.txt"] = store.write_file(
                    work.folder / "traceback.txt", content
                )
            record = store.record_failure(work.folder, self._ended(work, status, reason))
        except (OSError, UsageError) as error:
            work.files.clear()
            record, unwritten = self._ended(work, status, reason), f" (not recorded: {error})"
        self.left.count(work.cell.key, work.seconds)
        self.reporter.say(f"{work.title}: {record.status}. {reason}{unwritten}")
        return CellResult(work.cell, record, work.folder)

    def _ended(self, work: _Work, status: store.CellStatus, reason: str) -> store.Record:
        return replace(
            work.record,
            status=status,
            reason=reason,
            finished=now(),
            seconds=dict(work.seconds),
            files=dict(work.files),
        )

    def _compute(self, work: _Work, steps: Steps) -> CellResult:
        self._edit(work, steps)
        return self._ask(work, steps)

    def _edit(self, work: _Work, steps: Steps) -> None:
        cell, checkpoint = work.cell, self._checkpoint(work)
        self._write(
            work,
            "plan.json",
            {
                "key": cell.key,
                "suite": self.plan.suite.name,
                "harness": self.plan.harness_names,
                "named": self.plan.called,
                "determinants": cell.determinants,
            },
        )

        def edit(tick: Tick) -> EditReport:
            shutil.rmtree(checkpoint, ignore_errors=True)  # a first attempt's
            return steps.edit(cell, checkpoint, tick)

        report = self._afford(work, steps, "edit", edit)
        return_memory()
        account = report.__dict__ | {
            "parameters_touched": report.parameters_touched,
            "delta_norm": report.delta_norm,
        }
        self._write(work, "account.json", account)

    def _ask(self, work: _Work, steps: Steps) -> CellResult:
        checkpoint = self._checkpoint(work)
        samples, proof = self._afford(
            work, steps, "evaluate", lambda tick: steps.evaluate(work.cell, checkpoint, tick)
        )
        if start := steps.start_seconds():  # told apart: no other cell of this process has it
            work.seconds |= {"evaluate": work.seconds["evaluate"] - start, "start": start}
        work.files["samples.parquet"] = store.write_samples(
            work.folder / "samples.parquet", samples
        )
        facts = steps.describe(checkpoint) | {"load_proof": proof, "source": self.source}
        self._write(work, "provenance.json", facts)
        return self._judge(work, steps, samples)

    def _afford(
        self, work: _Work, steps: Steps, half: Half, compute: Callable[[Tick], Ended]
    ) -> Ended:
        """`compute`; where memory runs out, again with smaller batches, twice at most."""
        divisor = 1
        while True:
            try:
                with self._step(work, half) as tick:
                    ended = compute(tick)
            except Exception as error:
                divisor *= 2
                if divisor > SMALLEST_SHARE or not is_out_of_memory(error):
                    raise
                if not steps.divide_batches(work.cell, half, divisor):
                    raise
                why = str(error).partition("\n")[0] or type(error).__name__
            else:
                if how := steps.division(work.cell, half):
                    short = f"memory ran out at the {half}, which was then done with {how}"
                    work.remark = "; ".join(filter(None, (work.remark, short)))
                return ended
            # Here, where the error is gone, so are its frames and the tensors that they held.
            steps.reset()
            return_memory()
            self.reporter.say(f"{work.title}: {half} again with smaller batches: {why}")

    def _judge_again(self, work: _Work, steps: Steps) -> CellResult:
        """Values were missing: the model's answers are stored, only the judging is repeated."""
        (work.folder / "traceback.txt").unlink(missing_ok=True)  # an earlier judging's
        return self._judge(work, steps, store.read_samples(work.folder / "samples.parquet"))

    def _judge(self, work: _Work, steps: Steps, samples: Sequence[Sample]) -> CellResult:
        with self._step(work, "score") as tick:
            items = steps.score(samples, tick)
            second = steps.score_second(samples, tick) if self.plan.second else None
        scores = aggregate(items, self.plan.protocols)
        self._forget_judged(work)
        if second is not None:
            scores += agreements(items, second, self.plan.protocols)
            work.files[SECOND] = store.write_items(work.folder / SECOND, second)
        work.files["items.parquet"] = store.write_items(work.folder / "items.parquet", items)
        self._write(work, "scores.json", scores)
        return self._conclude(work, scores)

    def _forget_judged(self, work: _Work) -> None:
        """Where files of an earlier judging are about to be replaced: a record without them.

        With one that names them a process killed in between would leave a damaged cell.
        """
        if JUDGED & work.files.keys():
            work.files = {name: of for name, of in work.files.items() if name not in JUDGED}
            work.record = replace(work.record, files=dict(work.files))
            store.write_record(work.folder, work.record)

    def _unjudged(self, scores: Sequence[Score]) -> str:
        """Judged metrics that lack values, with how many; '' when none does.

        Other metrics may lack values for good: two-word counts of a collapsed model's empty texts
        stay missing however often they are asked, and the cell is finished.
        """
        return "; ".join(
            f"{score.task}.{score.metric}: {score.missing} of {score.n + score.missing} missing"
            for score in scores
            if score.missing and self._is_judged(score)
        )

    def _is_judged(self, score: Score) -> bool:
        """Whether a scorer's work is in it: the first one's, or both for their agreement."""
        metrics = self.plan.protocols[score.task].metrics
        return score.metric == AGREEMENT or metrics[score.metric].by_judge

    def _write(self, work: _Work, name: str, value: Any) -> None:
        work.files[name] = store.write_json(work.folder / name, value)

    @contextlib.contextmanager
    def _step(self, work: _Work, name: str) -> Iterator[Tick]:
        began = time.perf_counter()
        try:
            with self.reporter.step(f"{work.title}: {name}") as tick:
                yield tick
        finally:  # a step that fails has taken its time too
            work.seconds[name] = time.perf_counter() - began

    def close(self) -> None:
        """Release the engine and end every process that this run started, deaf to more Ctrl-C."""
        with deaf():
            if self.steps is not None:
                self.steps.close()
            end_children()
