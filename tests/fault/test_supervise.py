"""A cell that kills its process, ends it, hangs or leaves children costs that cell alone."""

from __future__ import annotations

import csv
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.errors import UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.plan import check_output
from unlearn_bench.runs.supervise import Watch, supervise

ROOT = Path(__file__).parents[2]
# The cells between the first and the last do what is asked of them.
CHILD = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from tests.unit.run_doubles import SmallSteps, cell, plan
from unlearn_bench.cache import new_folder
from unlearn_bench.commands import exit_code
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.supervise import require_supervised

require_supervised(None)
output, does = Path(sys.argv[1]), DOES
LEAVE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

def leave():
    child = subprocess.Popen([sys.executable, "-c", LEAVE], start_new_session=True)
    (output / "left").write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)

def save_half(checkpoint):
    with new_folder(checkpoint) as work:
        (work / "model.safetensors").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

def hang():
    while True:  # keeping the interpreter's lock: no handler of Python's runs
        ctypes.PyDLL(None).sleep(600)

class Steps(SmallSteps):
    def evaluate(self, cell, checkpoint, tick):
        with (output / "asked").open("a") as log:
            log.write(f"{cell.method} {os.getpid()}\\n")
        exec(does.get(cell.method, "pass"))
        return super().evaluate(cell, checkpoint, tick)

try:
    results = execute(plan(output, *map(cell, ("noop", *does, "last"))), Steps, Reporter())
except UnlearnBenchError as error:
    sys.exit(error.exit_code)
sys.exit(exit_code(results))
"""
PARENT = """
import signal, sys
from pathlib import Path
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.supervise import supervise

# A shell starts its background jobs with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
limit = float(sys.argv[3]) or None
say = lambda text: print(text, file=sys.stderr)
try:
    command = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
    sys.exit(supervise(command, Path(sys.argv[1]), limit, say))
except UnlearnBenchError as error:
    say(str(error))
    sys.exit(error.exit_code)
"""
DEADLY = '''
from __future__ import annotations

import ctypes

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method


@method("deadly", paper="none", kind="edit", needs=(), targets=("*",), zero={})
def deadly(context: EditContext) -> dict[str, object]:
    """Reads address 0."""
    return {"read": ctypes.string_at(0)}
'''


def start(
    output: Path, does: dict[str, str], limit: float = 0, before: str = "", **how: Any
) -> subprocess.Popen[str]:
    """A supervised run. does: what happens while a cell is asked, by method. how: for Popen."""
    program = before + "\n" + CHILD.replace("DOES", repr(does))
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(output), program, str(limit)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def records(output: Path, *methods: str) -> list[store.Record | None]:
    cells = [cell(name) for name in methods]
    return [
        store.read_record(store.cell_folder(output, one.key, one.method, 0), one.key)
        for one in cells
    ]


def statuses(output: Path, *methods: str) -> list[str]:
    """Of the first cell, these, and the last one."""
    return [one.status if one else "none" for one in records(output, "noop", *methods, "last")]


def asked(output: Path) -> list[str]:
    return [line.split()[0] for line in (output / "asked").read_text().splitlines()]


FAULTS = {
    "wrong": ("raise ValueError", "ValueError"),
    "killed": ("leave()", "its process was ended by SIGKILL, as the system does when"),
    "saving": ("save_half(checkpoint)", "its process was ended by SIGKILL"),
    "segfault": ("ctypes.string_at(0)", "its process was ended by SIGSEGV"),
    "exits": ("os._exit(0)", "its process ended itself with exit code 0"),
    "hangs": ("hang()", "it was not done after 2 s (--time-limit)"),
}


@pytest.fixture(scope="module")
def broken(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run with every fault between two good cells."""
    output = tmp_path_factory.mktemp("broken")
    process = start(output, {name: does for name, (does, _) in FAULTS.items()}, limit=2)
    said = process.communicate(timeout=300)[1]
    return output, subprocess.CompletedProcess((), process.returncode, None, said)


Broken = tuple[Path, subprocess.CompletedProcess[str]]


def test_the_other_cells_are_computed_and_the_run_says_three(broken: Broken) -> None:
    output, done = broken
    assert done.returncode == 3, done.stderr
    assert statuses(output, *FAULTS) == ["success", *["failed"] * len(FAULTS), "success"]


def test_each_cell_is_asked_once(broken: Broken) -> None:
    """Neither the finished ones again after a crash, nor those that failed before it."""
    assert asked(broken[0]) == ["noop", *FAULTS, "last"]


@pytest.mark.parametrize("name", FAULTS)
def test_the_record_says_why(broken: Broken, name: str) -> None:
    output, done = broken
    (record,) = records(output, name)
    assert record is not None
    assert record.reason.startswith(FAULTS[name][1])
    assert FAULTS[name][1] in done.stderr


def test_no_model_and_no_process_is_left(broken: Broken) -> None:
    """Not even one in a session of its own that will not hear of SIGTERM."""
    output = broken[0]
    left = [path for path in output.glob("cells/*/*") if path.is_dir() or path.name[0] == "."]
    assert left == []
    assert not psutil.pid_exists(int((output / "left").read_text()))


def test_where_it_hung_is_said(broken: Broken) -> None:
    """The interpreter's lock is held, so only faulthandler can tell."""
    assert "in hang" in broken[1].stderr


def test_the_next_run_tries_again_what_was_lost(tmp_path: Path) -> None:
    start(tmp_path, {"npo": "os.abort()"}).communicate(timeout=120)
    process = start(tmp_path, {"npo": "pass"})
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert statuses(tmp_path, "npo") == ["success"] * 3
    assert asked(tmp_path) == ["noop", "npo", "last", "npo"]


def test_a_run_that_ends_by_itself_keeps_its_exit_code(tmp_path: Path) -> None:
    process = start(tmp_path, {"npo": "raise MemoryError"})
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert statuses(tmp_path, "npo") == ["success", "failed", "success"]


def test_a_crash_outside_any_cell_ends_the_run(tmp_path: Path) -> None:
    """To start again would crash again: nothing is known to be left out."""
    process = start(tmp_path, {}, before="import os; os.abort()")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 3
    assert "the run was at no cell: its process was ended by SIGABRT" in said


def wait_for_second_cell(output: Path, process: subprocess.Popen[str]) -> int:
    """The pid of the process that computes it."""
    deadline = time.monotonic() + 60
    while not ((output / "asked").exists() and "npo" in (output / "asked").read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return int((output / "asked").read_text().split()[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_reaches_the_child(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, {"npo": "time.sleep(600)"})
    child = wait_for_second_cell(tmp_path, process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not psutil.pid_exists(child)
    assert statuses(tmp_path, "npo") == ["success", "cancelled", "none"]


@pytest.mark.parametrize("presses", [1, 2, 5])
def test_ctrl_c_on_a_terminal(tmp_path: Path, presses: int) -> None:
    """The terminal sends it to parent and child alike, as often as the key is pressed."""
    keyboard, terminal = pty.openpty()
    process = start(
        tmp_path,
        {"npo": "time.sleep(600)"},
        stdin=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    child = wait_for_second_cell(tmp_path, process)
    for _ in range(presses):
        os.write(keyboard, b"\x03")
        time.sleep(0.1)
    said = process.communicate(timeout=30)[1]
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not psutil.pid_exists(child)
    assert statuses(tmp_path, "npo") == ["success", "cancelled", "none"]


def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    process = start(tmp_path, {"npo": "time.sleep(600)"})
    child = psutil.Process(wait_for_second_cell(tmp_path, process))
    process.kill()
    process.communicate(timeout=30)
    assert psutil.wait_procs([child], timeout=10)[1] == []


WAIT = "import time; open(sys.argv[1] + '/there', 'w').close(); time.sleep(600)"
PUBLISHING = f"""
import sys
import unlearn_bench.commands

def publish(results):
    {WAIT}

unlearn_bench.commands.exit_code = publish
"""


@pytest.mark.parametrize(
    ("number", "before", "cells"),
    [
        (signal.SIGTERM, f"import sys; {WAIT}", "none"),
        (signal.SIGTERM, PUBLISHING, "success"),
        (signal.SIGINT, PUBLISHING, "success"),
    ],
)
def test_a_signal_before_or_after_the_cells_is_no_crash(
    tmp_path: Path, number: signal.Signals, before: str, cells: str
) -> None:
    """While it plans or publishes the child dies of it, as any program does."""
    process = start(tmp_path, {}, before=before)
    deadline = time.monotonic() + 60
    while not (tmp_path / "there").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130, said
    assert "the run was at no cell" not in said
    assert statuses(tmp_path) == [cells, cells]


BREAKING = """
import ctypes
from tests.unit.run_doubles import SmallSteps

real = SmallSteps.score

def score(steps, samples, tick):
    if samples[0].outputs[0].startswith("npo"):
        ctypes.string_at(0)
    return real(steps, samples, tick)

SmallSteps.score = score
"""


def judged_without_scorer(output: Path) -> store.Record:
    """The record of npo, whose answers are there and not judged."""
    steps = SmallSteps()
    steps.scorer_works = False
    (result,) = execute(plan(output, cell("npo")), lambda: steps, Screen())
    assert result.record.status == "incomplete"
    return result.record


def test_a_scorer_that_takes_the_process_with_it_leaves_the_answers(tmp_path: Path) -> None:
    """The other cells are computed, and the next run has only to judge these."""
    before = judged_without_scorer(tmp_path)
    process = start(tmp_path, {"npo": "pass"}, before=BREAKING)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 3, said
    assert "npo, seed 0: incomplete. its process was ended by SIGSEGV" in said
    assert statuses(tmp_path, "npo") == ["success", "incomplete", "success"]
    (after,) = records(tmp_path, "npo")
    assert after is not None
    assert (after.files, after.reason) == (before.files, before.reason)
    steps = SmallSteps()
    execute(plan(tmp_path, cell("npo")), lambda: steps, Screen())
    assert steps.calls == ["prepare", "score", "close"]


def test_a_cell_that_is_judged_again_is_watched_and_keeps_its_answers(tmp_path: Path) -> None:
    """What --time-limit ends, whoever began it since the watch did."""
    before = judged_without_scorer(tmp_path)
    folder = store.cell_folder(tmp_path, before.key, "npo", 0)
    watch = Watch(tmp_path)
    assert watch.running() == set()
    store.write_record(folder, replace(before, finished=""))
    assert watch.running() == {folder}
    assert watch.give_up(folder, "failed", "too late") == "npo, seed 0: incomplete"
    assert watch.running() == set()
    assert watch.failed() == [before.key]  # not to be tried again by the next child
    after = store.read_record(folder, before.key)
    assert after is not None
    assert replace(after, finished=before.finished) == before


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_folder_that_no_system_has_is_refused(name: str) -> None:
    for refuse in (
        lambda: supervise(["true"], Path(name), None, print),
        lambda: check_output(Path(name)),
    ):
        with pytest.raises(UsageError, match="cannot be written"):
            refuse()


@pytest.mark.slow
def test_the_real_command_survives_a_method_that_kills_its_process(
    tmp_path: Path, evaluate: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A third party's file, the transformers engine, a small random model; the board has both."""
    method = tmp_path / "deadly.py"
    method.write_text(DEADLY)
    done = evaluate(method)
    assert done.returncode == 3, done.stderr
    assert "deadly, seed 0: failed. its process was ended by SIGSEGV" in done.stderr
    (table,) = (tmp_path / "boards").rglob("*.csv")
    rows = {row["method"]: row["status"] for row in csv.DictReader(table.open())}
    assert rows == {"noop": "success", "deadly": "failed"}
