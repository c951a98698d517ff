"""A run in a child process: what kills or hangs that costs one cell, and not the run.

The child is the same command once more. When it is gone while a cell was being computed, that cell
has failed and the command is started again, which goes on where it was. This process stays small:
it imports no model library, and what it knows of the cells is in their records.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.children import end_children
from unlearn_bench.runs.launched import is_launched
from unlearn_bench.schema import FAILED, Status

GIVEN_UP = "_UNLEARN_BENCH_GIVEN_UP"  # keys of cells, separated by commas; only a child has it
EXIT_INCOMPLETE, INTERRUPTED = 3, 130
OWN_ENDS = (EXIT_INCOMPLETE, INTERRUPTED)  # a full disk, Ctrl-C: a cell may not have ended
LOOK = 1.0  # seconds between two looks at how long the cell has taken
LAST_WORDS = 1.0  # seconds in which a process that hangs says where
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
SI_KERNEL = 0x80  # asm-generic/siginfo.h
FORWARDED = (signal.SIGINT, signal.SIGTERM)
Say = Callable[[str], None]


def can_supervise() -> bool:
    """Whether this process may start the child: it is none itself, and the system has the means."""
    return sys.platform == "linux" and not is_launched() and GIVEN_UP not in os.environ


def require_supervised(limit: float | None) -> None:
    """In the child: say where one is when it dies. Elsewhere a time limit is a UsageError."""
    if GIVEN_UP in os.environ:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)
    elif limit is not None:
        raise UsageError(
            "a time limit needs a process of its own to end, and this one works by itself",
            next_step="start the unlearn-bench command, on Linux, without a launcher",
        )


def given_up() -> frozenset[str]:
    """Keys of the cells that this child is not to try again."""
    return frozenset(filter(None, os.environ.get(GIVEN_UP, "").split(",")))


def supervise(command: Sequence[str], output: Path, limit: float | None, say: Say) -> int:
    """Run `command`, which writes its cells to `output`, to its end; return its exit code.

    limit: seconds that one cell may take. A cell whose process died or took longer is recorded as
    failed, one whose answers were judged again keeps the record it had, and the exit code is then
    3. Signals reach the child, and it is 130 if the child dies after one; if this process is
    killed, so is the child. Raises UnlearnBenchError when the child dies outside any cell: the
    next one would too.
    """
    store.require_writable(output)
    watch = Watch(output)
    lost = False
    with _signals_held(), _orphans_adopted():
        while True:
            code, late = _run(command, watch, limit)
            cells = watch.running()
            if code >= 0 and (not cells or code in OWN_ENDS):
                return EXIT_INCOMPLETE if lost and code in (0, 1) else code
            if watch.told:
                for folder in cells:
                    watch.give_up(folder, "cancelled", "interrupted")
                return INTERRUPTED
            if not cells and not late:
                raise UnlearnBenchError(
                    f"the run was at no cell: {_death(code)}",
                    where=str(output),
                    next_step="run the same command again; what was finished is kept",
                )
            # Of those that were ended in time after all nothing is lost but what came next.
            why = overtime(limit) if late else _death(code)
            for folder in cells & late if late else cells:
                lost = True
                say(f"{watch.give_up(folder, 'failed', why)}. {why}; the other cells go on")


def overtime(limit: float | None) -> str:
    """What a record says of a cell that took longer than `limit` seconds."""
    return f"it was not done after {limit:g} s (--time-limit)"


@dataclass
class Watch:
    """Which cell a run is at, by what has changed in its folder since this was made.

    lost: keys of the cells that were given up. told: whether a signal asked the run to end.
    """

    output: Path
    before: dict[Path, tuple[int, int]] = field(init=False)
    lost: set[str] = field(default_factory=set)
    told: bool = False

    def __post_init__(self) -> None:
        self.before = self._marks()

    def running(self) -> set[Path]:
        """The folders of the cells that have begun and not ended."""
        return {folder for folder, record in self._changed() if record.in_work}

    def failed(self) -> list[str]:
        """Keys of the cells that have failed since, or were given up."""
        failed = {record.key for _, record in self._changed() if record.status in FAILED}
        return sorted(failed | self.lost)

    def give_up(self, folder: Path, status: Status, why: str) -> str:
        """Record that the cell's process is gone, and delete the model that it left.

        Returns the cell's name and its status by now.
        """
        record = dict(self._changed())[folder]
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        ended_so = replace(record, status=status, reason=why, finished=ended)
        record = store.record_failure(folder, ended_so)
        self.lost.add(record.key)
        store.remove_unkept(folder)
        return f"{record.method}, seed {record.seed}: {record.status}"

    def _marks(self) -> dict[Path, tuple[int, int]]:
        marks = {}
        for path in self.output.glob(f"cells/*/{store.RECORD}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                marks[path] = (status.st_ino, status.st_mtime_ns)
        return marks

    def _changed(self) -> Iterator[tuple[Path, store.Record]]:
        for path, mark in self._marks().items():
            if self.before.get(path) != mark:
                with contextlib.suppress(UnlearnBenchError, OSError, ValueError, KeyError):
                    key = json.loads(path.read_bytes())["key"]
                    if record := store.read_record(path.parent, key):
                        yield path.parent, record


def _run(command: Sequence[str], watch: Watch, limit: float | None) -> tuple[int, set[Path]]:
    """Exit code of one child, negative for a signal, and the cells whose time was over."""
    environment = {**os.environ, GIVEN_UP: ",".join(watch.failed())}
    with subprocess.Popen(command, env=environment, preexec_fn=_as_child) as child:
        try:
            late = _wait(child, watch, limit)
        finally:
            child.kill()  # nothing, where it has ended
            end_children()
    while signal.sigtimedwait(FORWARDED, 0):  # what came after the child, no next one will get
        watch.told = True
    return child.returncode, late


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended itself with exit code {code}"
    name = signal.Signals(-code).name
    cause = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name}{cause}"


def _wait(child: subprocess.Popen[bytes], watch: Watch, limit: float | None) -> set[Path]:
    """Until the child has ended, or a cell's time is over: such cells, with a stack on stderr."""
    began: dict[Path, float] = {}
    while child.poll() is None:
        told = signal.sigtimedwait((*FORWARDED, signal.SIGCHLD), LOOK)
        if told and told.si_signo in FORWARDED:
            watch.told = True
            # What the terminal sends, the child gets too; what a process sends has one receiver.
            if told.si_code != SI_KERNEL:
                child.send_signal(told.si_signo)
        if limit is None:
            continue
        now = time.monotonic()
        began = {folder: began.get(folder, now) for folder in watch.running()}
        if late := {folder for folder, start in began.items() if now - start > limit}:
            child.send_signal(signal.SIGUSR1)
            time.sleep(LAST_WORDS)
            return late
    return set()


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _as_child() -> None:
    """Between fork and exec: die with the parent, and take signals again."""
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*FORWARDED, signal.SIGCHLD))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """The signals wait until `_wait` takes them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _orphans_adopted() -> Iterator[None]:
    """The children of a child that died become this process's, so that it can end them."""
    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _libc().prctl(PR_SET_CHILD_SUBREAPER, 0)
