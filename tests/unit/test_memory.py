"""Freed memory: kept for the next tensors of a step, given back between the steps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from unlearn_bench.runs.memory import TRIM_EVERY, trimmed

# In a process of its own: the C library's settings would stay for all tests after it.
HOLES = """
import psutil
from unlearn_bench.runs.memory import TRIM_EVERY, reuse_memory, trimmed

def megabytes():
    return psutil.Process().memory_info().rss >> 20

reuse_memory()
blocks = [b"x" * (1 << 20) for _ in range(300)]
full = megabytes()
del blocks[::2]
kept = megabytes()
report = trimmed(lambda what, done, total: None)
for step in range(TRIM_EVERY):
    report("training", step, TRIM_EVERY)
print(full, kept, megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_holes_stay_within_a_step_and_go_between_steps() -> None:
    """Every second of 300 blocks of 1 MB is freed: 150 MB of holes."""
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    full, kept, trimmed_to = map(int, done.stdout.split())
    assert kept >= full - 15, "freed blocks are to serve the next tensors"
    assert trimmed_to <= full - 135


def test_every_report_is_passed_on() -> None:
    seen: list[tuple[str, int, int]] = []
    report = trimmed(lambda what, done, total: seen.append((what, done, total)))
    told = [("training", step, 2 * TRIM_EVERY) for step in range(2 * TRIM_EVERY)]
    for what, done, total in told:
        report(what, done, total)
    assert seen == told
