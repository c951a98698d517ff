"""Two hundred cells in one run: is memory flat, is anything left, does the time per cell stay?

    python benchmarks/soak.py --output FOLDER [--cells N] [--engine E] [--target MODEL]

Runs the main command on a tiny random Llama (or MODEL) with few items and many seeds, and looks
every second at all that has come from it, in whatever session: resident memory, open files and
processes. A run goes through the seeds of one method after another, so everything is compared
within a method: it prints medians of both halves of each method's cells, and how far a line fitted
to memory over cells rises. Exit code 1 where the bounds below are exceeded, where a process or a
model is left when the command has ended, or where it failed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

METHODS = ("noop", "random_noise", "gradient_ascent", "ext_sub", "npo")
SMALL = (
    "--set", "ext_sub.comments=8", "--set", "gradient_ascent.steps=1", "--set", "npo.steps=1",
    "--tasks", "fur,toxigen_mini", "--limit", "13", "--dtype", "float32",
    "--scorer", "profanity_check", "--offline",
)  # fmt: skip
HALVES = 2
# How much more there may be: of memory over the whole run, by the fitted line; of open files and of
# processes in the second half of a method's cells; and how many times longer cells may take there.
MEMORY_GROWTH, MORE_FILES, MORE_PROCESSES, SLOWER = 0.10, 2, 0, 1.5
LAST_BREATH = 5.0  # seconds in which a process that is ending may end


@dataclass(frozen=True)
class Look:
    """Everything that the command has started, at one moment: cells ended, bytes, open files."""

    second: float
    cells: int
    memory: int
    files: int
    processes: int


@dataclass
class Family:
    """The command and what has come from it, also what has left its session or lost its parent."""

    sessions: set[int]  # the command's own, and those that its children opened
    members: set[psutil.Process] = field(default_factory=set)

    def alive(self) -> list[psutil.Process]:
        """Those that run now; newcomers are found by session or parent."""
        known = {process.pid for process in self.members}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                session = os.getsid(process.pid)
                if session in self.sessions or process.ppid() in known:
                    self.sessions.add(session)
                    self.members.add(process)
                    known.add(process.pid)
        return [one for one in self.members if _runs(one)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def watch(process: subprocess.Popen[bytes], family: Family, run: Path) -> Iterator[Look]:
    """A look every second until the command has ended."""
    began = time.monotonic()
    while process.poll() is None:
        time.sleep(1)
        cells = len(list(run.glob("cells/*/scores.json")))
        memory = files = processes = 0
        for one in family.alive():
            with contextlib.suppress(psutil.Error):  # it has just ended
                memory, files = memory + one.memory_info().rss, files + one.num_fds()
                processes += 1
        yield Look(time.monotonic() - began, cells, memory, files, processes)


def halves(looks: Sequence[Look], cells: int) -> list[list[Look]]:
    """The looks at the first and the second half of each method's cells, in turn."""
    parts = HALVES * len(METHODS)
    ends = [math.floor(cells * end / parts) for end in range(parts + 1)]
    return [
        [look for look in looks if first <= look.cells < last] for first, last in pairwise(ends)
    ]


def seconds_per_cell(looks: Sequence[Look]) -> float:
    return (looks[-1].second - looks[0].second) / max(looks[-1].cells - looks[0].cells, 1)


def print_halves(parts: Sequence[Sequence[Look]]) -> None:
    print(f"{'method':17}{'half':>5}{'s per cell':>12}{'MB':>9}{'files':>7}{'processes':>11}")
    for number, own in enumerate(parts):
        method, half = METHODS[number // HALVES], number % HALVES + 1
        if len(own) < 2:
            print(f"{method:17}{half:5}   too short to be seen")
            continue
        memory = statistics.median(look.memory for look in own) / 1e6
        files = statistics.median(look.files for look in own)
        processes = statistics.median(look.processes for look in own)
        shown = f"{seconds_per_cell(own):12.2f}{memory:9.0f}{files:7.0f}{processes:11.0f}"
        print(f"{method:17}{half:5}{shown}")


def memory_growth(looks: Sequence[Look], cells: int) -> float:
    """Share by which memory grows over the run: the slope of one line over cells through the means
    of every method, since methods differ. What a method's first cell loads stays, and is no growth.
    NaN with fewer than three cells of each.
    """
    seeds, methods = cells // len(METHODS), defaultdict(list)
    for look in looks:
        if look.cells % seeds and look.cells < cells:
            methods[look.cells // seeds].append(look)
    up = across = 0.0
    for own in methods.values():
        middle = statistics.fmean(look.cells for look in own)
        mean = statistics.fmean(look.memory for look in own)
        up += sum((look.cells - middle) * (look.memory - mean) for look in own)
        across += sum((look.cells - middle) ** 2 for look in own)
    if not across:
        return math.nan
    return up / across * cells / statistics.median(look.memory for look in looks)


def too_much(parts: Sequence[Sequence[Look]]) -> list[str]:
    """What the second half of a method's cells has more of than it may have."""
    found = []
    for method, first, second in zip(METHODS, parts[::HALVES], parts[1::HALVES], strict=True):
        if min(len(first), len(second)) < 2:
            continue
        for name, more in (("files", MORE_FILES), ("processes", MORE_PROCESSES)):
            before, after = (
                statistics.median(getattr(look, name) for look in half) for half in (first, second)
            )
            if after > before + more:
                found.append(f"{method}: {after:g} {name} in the second half, {before:g} before")
        slower = seconds_per_cell(second) / max(seconds_per_cell(first), 1e-9)
        if first is not parts[0] and slower > SLOWER:  # the engine starts in the very first
            found.append(f"{method}: cells of the second half take {slower:.2f} times as long")
    return found


def left_over(family: Family, output: Path) -> list[str]:
    """Processes that the run has left, and models that it should have deleted."""
    psutil.wait_procs(family.alive(), timeout=LAST_BREATH)
    processes = [
        f"process {one.pid} is left: {' '.join(one.cmdline())[:80]}" for one in family.alive()
    ]
    return processes + [f"{path} is left" for path in output.rglob("*.safetensors")]


def tiny_target(folder: Path) -> Path:
    from random_llama import make_tiny

    return make_tiny(folder)


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
    target = asked.target or tiny_target(asked.output / "tiny")
    seeds = math.ceil(asked.cells / len(METHODS))
    command = [sys.executable, "-m", "unlearn_bench", "evaluate", *SMALL]
    command += ["--engine", asked.engine, "--methods", ",".join(METHODS), "--seeds", str(seeds)]
    command += ["--target", str(target), "--output", str(run)]
    with (asked.output / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        family = Family({process.pid})
        looks = list(watch(process, family, run))
    cells = seeds * len(METHODS)
    parts, growth = halves(looks, cells), memory_growth(looks, cells)
    print_halves(parts)
    shown = "needs more cells for a line" if math.isnan(growth) else f"grows by {growth:.1%}"
    print(f"memory {shown}, over {cells} cells; {MEMORY_GROWTH:.0%} is the bound")
    wrong = too_much(parts) + left_over(family, run)
    if growth > MEMORY_GROWTH:
        wrong.append("memory grows")
    if process.returncode:
        wrong.append(f"the command ended with {process.returncode}: {asked.output / 'log.txt'}")
    for line in wrong or ["nothing grows, and nothing is left: no process, no model"]:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
