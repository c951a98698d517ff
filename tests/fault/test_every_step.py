"""SIGKILL, and a disk that takes no further byte, at every step of writing a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = 7  # that a finished cell has, its record among them


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_whatever_the_step_finished_cells_stay_and_the_board_is_the_same(
    tmp_path: Path, fault: str
) -> None:
    """Only what was not finished is computed again, and the table is the one without the fault."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.every_step", fault, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["steps"] >= 2 * 2 * FILES  # each of them is made, and renamed when it is whole
