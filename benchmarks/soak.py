"""Two hundred cells in one run: is memory flat, is anything left, does the time per cell stay?

    python benchmarks/soak.py --output FOLDER [--cells N] [--engine E] [--target MODEL]

Runs the main command on a tiny random Llama (or MODEL) with few items and many seeds, and looks
every second at the process that computes: its resident memory, open files and children. A run goes
through the seeds of one method after another, so it prints them for both halves of each method's
cells, as medians, and what is left when the command has ended.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from random_llama import make_tiny

METHODS = ("noop", "random_noise", "gradient_ascent", "ext_sub", "npo")
SMALL = (
    "--set", "ext_sub.comments=8", "--set", "gradient_ascent.steps=1", "--set", "npo.steps=1",
    "--tasks", "fur,toxigen_mini", "--limit", "13", "--dtype", "float32",
    "--scorer", "profanity_check", "--offline",
)  # fmt: skip
HALVES = 2


@dataclass(frozen=True)
class Look:
    """The computing process at one moment: cells ended, bytes, open files, child processes."""

    second: float
    cells: int
    memory: int
    files: int
    children: int


def watch(process: subprocess.Popen[bytes], run: Path) -> Iterator[Look]:
    """A look every second until the command has ended."""
    began = time.monotonic()
    while process.poll() is None:
        time.sleep(1)
        cells = len(list(run.glob("cells/*/scores.json")))
        try:
            (child,) = psutil.Process(process.pid).children()  # the one that computes
            with child.oneshot():
                memory, files = child.memory_info().rss, child.num_fds()
            look = Look(time.monotonic() - began, cells, memory, files, len(child.children()))
        except (psutil.Error, ValueError):  # it has not begun, or has ended
            continue
        yield look


def print_halves(looks: list[Look], cells: int) -> None:
    parts = HALVES * len(METHODS)
    print(f"{'cells':>11}{'s per cell':>12}{'MB':>9}{'files':>7}{'children':>10}")
    for part in range(parts):
        first, last = (math.floor(cells * end / parts) for end in (part, part + 1))
        own = [look for look in looks if first <= look.cells < last]
        if len(own) < 2:
            print(f"{first:5}-{last:5}   too short to be seen")
            continue
        seconds = (own[-1].second - own[0].second) / max(own[-1].cells - own[0].cells, 1)
        memory = statistics.median(look.memory for look in own) / 1e6
        files = statistics.median(look.files for look in own)
        children = statistics.median(look.children for look in own)
        print(f"{first:5}-{last:5}{seconds:12.2f}{memory:9.0f}{files:7.0f}{children:10.0f}")


def left_over(before: set[int], output: Path) -> list[str]:
    """Processes that the run has left, and models that it should have deleted."""
    processes = [
        f"process {process.pid}: {' '.join(process.cmdline())[:80]}"
        for process in psutil.process_iter()
        if process.pid not in before and "unlearn_bench" in " ".join(process.cmdline())
    ]
    return processes + [str(path) for path in output.glob("cells/*/*/*.safetensors")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    parser.add_argument("--target")
    asked = parser.parse_args()
    run = asked.output / f"run-{asked.engine}"
    if run.exists():
        raise SystemExit(f"{run} is there already, and its cells would not be computed again")
    target = asked.target or make_tiny(asked.output / "tiny")
    seeds = math.ceil(asked.cells / len(METHODS))
    command = [sys.executable, "-m", "unlearn_bench", "evaluate", *SMALL]
    command += ["--engine", asked.engine, "--methods", ",".join(METHODS), "--seeds", str(seeds)]
    command += ["--target", str(target), "--output", str(run)]
    before = set(psutil.pids())
    with (asked.output / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        looks = list(watch(process, run))
    print_halves(looks, seeds * len(METHODS))
    for line in left_over(before, run) or ["nothing is left: no process, no model"]:
        print(line)
    print(f"exit code {process.returncode}; log in {asked.output / 'log.txt'}")


if __name__ == "__main__":
    main()
