"""Ctrl-C and SIGTERM: the running cell says cancelled, children end, finished cells stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.errors import CancelledError
from unlearn_bench.runs import store
from unlearn_bench.runs.execute import execute

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, subprocess, sys, time
from pathlib import Path
from tests.unit.run_doubles import SmallSteps, cell, plan
from unlearn_bench.errors import CancelledError
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.progress import Reporter

class Slow(SmallSteps):
    def evaluate(self, cell, checkpoint, tick):
        if cell.method == "npo":
            child = subprocess.Popen([sys.executable, "-c", STUBBORN])
            (output / "child.pid").write_text(str(child.pid))
            time.sleep(600)
        return super().evaluate(cell, checkpoint, tick)

STUBBORN = "import signal,time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
# A shell starts its background jobs with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
output = Path(sys.argv[1])
try:
    execute(plan(output, cell("noop"), cell("npo"), cell("last")), Slow, Reporter())
except CancelledError as error:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the command does
    sys.exit(error.exit_code)
"""


class Interrupted(SmallSteps):
    def evaluate(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        if cell.method == "npo":
            raise KeyboardInterrupt
        return super().evaluate(cell, checkpoint, tick)


def status(output: Path, method: str) -> str:
    wanted = cell(method)
    folder = store.cell_folder(output, wanted.key, method, 0)
    record = store.read_record(folder, wanted.key)
    return record.status if record else "none"


def test_finished_cells_stay_and_the_running_one_is_cancelled(tmp_path: Path) -> None:
    steps = Interrupted()
    with pytest.raises(CancelledError) as caught:
        execute(plan(tmp_path, cell("noop"), cell("npo"), cell("last")), lambda: steps, Screen())
    assert caught.value.exit_code == 130
    assert [status(tmp_path, name) for name in ("noop", "npo", "last")] == [
        "success", "cancelled", "none",
    ]  # fmt: skip
    assert steps.calls[-1] == "close"
    assert not [path for path in tmp_path.glob("cells/*/*") if path.is_dir()]


def test_the_next_run_goes_on_where_it_was(tmp_path: Path) -> None:
    cells = (cell("noop"), cell("npo"))
    with pytest.raises(CancelledError):
        execute(plan(tmp_path, *cells), Interrupted, Screen())
    steps = SmallSteps()
    results = execute(plan(tmp_path, *cells), lambda: steps, Screen())
    assert [r.record.status for r in results] == ["success", "success"]
    assert "edit noop 0" not in steps.calls


def test_a_polite_kill_while_the_run_cleans_up_changes_nothing(tmp_path: Path) -> None:
    """`kill` twice, or a scheduler after a person."""

    class Closing(Interrupted):
        def close(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().close()

    steps = Closing()
    with pytest.raises(CancelledError):
        execute(plan(tmp_path, cell("npo")), lambda: steps, Screen())
    assert steps.calls[-1] == "close"


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)]
)
def test_a_signal_ends_the_run_and_its_children(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    """The impatient press Ctrl-C again: the run is cleaning up then, and finishes that."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    pid_file = tmp_path / "child.pid"
    try:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline, "the run did not reach its second cell"
            assert process.poll() is None
            time.sleep(0.05)
        child = int(pid_file.read_text())
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.1)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
    assert not psutil.pid_exists(child)
    assert [status(tmp_path, name) for name in ("noop", "npo", "last")] == [
        "success", "cancelled", "none",
    ]  # fmt: skip


def test_a_second_process_in_the_same_folder_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start()
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "child.pid").exists():
            assert time.monotonic() < deadline, "the run did not reach its second cell"
            time.sleep(0.05)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        second = start()
        _, said = second.communicate(timeout=60)
        assert second.returncode != 0
        assert "another process is writing to this output folder" in said
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=30) == 130
    finally:
        first.kill()
