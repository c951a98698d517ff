"""SIGKILL, and a disk that takes no further byte, at every step of writing a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = 7  # that a finished cell has, its record among them


JUDGED = 2  # that are written again where a cell is only judged again, besides its record


def stopped_at_every_step(folder: Path, *how: str) -> int:
    """How many steps there were; that nothing was wrong after any."""
    fault, *more = how
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.every_step", fault, str(folder), *more],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    return int(found["steps"])


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_whatever_the_step_finished_cells_stay_and_the_board_is_the_same(
    tmp_path: Path, fault: str
) -> None:
    """Only what was not finished is computed again, and the table is the one without the fault."""
    # Of two cells each file is made, and renamed when it is whole.
    assert stopped_at_every_step(tmp_path, fault) >= 2 * 2 * FILES


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_whatever_the_step_answers_that_are_judged_again_stay(tmp_path: Path, fault: str) -> None:
    """No model is edited a second time."""
    records = 3  # the cell is at work, without its judged files, and finished
    assert stopped_at_every_step(tmp_path, fault, "again") >= 2 * 2 * (JUDGED + records)
