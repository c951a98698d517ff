"""What the soak run calls growth, and whom it finds when the command has ended."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = 100  # of five methods, twenty each
# A child in a session of its own, which outlives its parent: multiprocessing's helpers do so.
LEAVING = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
time.sleep(1.5)
"""


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("soak")


def looks(soak: Any, memory: Any, **more: Any) -> list[Any]:
    """One at every half cell. memory, and what else differs: as a function of the cells ended."""
    found = []
    for number in range(2 * CELLS):
        cells = number // 2
        own = {"files": 9, "processes": 3, "second": number / 2}
        own |= {name: value(cells) for name, value in more.items()}
        found.append(soak.Look(cells=cells, memory=memory(cells), **own))
    return found


def test_methods_may_differ_and_the_line_within_them_may_not_rise(soak: Any) -> None:
    """A thousand bytes, twice that in every second method: flat. Three a cell more: 300 in all."""
    level = {0: 1000, 1: 2000, 2: 1000, 3: 2000, 4: 1000}
    flat = looks(soak, lambda cells: level[cells // 20])
    assert soak.memory_growth(flat, CELLS) == pytest.approx(0)
    rising = looks(soak, lambda cells: level[cells // 20] + 3 * cells)
    median = sorted(look.memory for look in rising)[CELLS]
    assert soak.memory_growth(rising, CELLS) == pytest.approx(300 / median, rel=0.01)
    begun = looks(soak, lambda cells: 1000 if cells % 20 else 10)  # loading in the first ones
    assert soak.memory_growth(begun, CELLS) == 0
    assert math.isnan(soak.memory_growth(flat[:20], 10))  # two cells of each method: no line


def test_a_second_half_with_more_files_or_processes_or_slower_cells_is_told(soak: Any) -> None:
    def wrong(**more: Any) -> list[str]:
        found: list[str] = soak.too_much(soak.halves(looks(soak, lambda cells: 1, **more), CELLS))
        return found

    assert wrong() == []
    assert wrong(files=lambda cells: 9 + (cells > 30) * 2) == []
    assert wrong(files=lambda cells: 9 + (cells > 30) * 3) == [
        "random_noise: 12 files in the second half, 9 before"
    ]
    (found,) = wrong(processes=lambda cells: 3 + (cells >= 50))
    assert found == "gradient_ascent: 4 processes in the second half, 3 before"
    (found,) = wrong(second=lambda cells: cells if cells < 90 else 90 + 2 * (cells - 90))
    assert found.startswith("npo: cells of the second half take 2")


def test_a_process_that_left_session_and_parent_is_found(soak: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", LEAVING], start_new_session=True)
    family = soak.Family({process.pid})
    while process.poll() is None:
        family.alive()
        time.sleep(0.1)
    (left,) = family.alive()
    assert "time.sleep(60)" in " ".join(left.cmdline())
    left.kill()
    psutil.wait_procs([left], timeout=5)
    assert family.alive() == []
