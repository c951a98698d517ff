"""Killed at random moments for some minutes: does the board stay the one nobody disturbed?

    python benchmarks/kills.py --output FOLDER [--minutes N] [--seed N] [--engine E]

The main command with a few methods on a tiny random Llama. First a run that is left alone. Then
round after round, each in a folder of its own: the command is started, after a random time some or
all of its processes get a signal, and it is started again, up to five times; the last time it is
left alone. A round is right when that ends with 0, its board is the undisturbed one but for seconds
and bytes, no cell that was finished has been written again, and no process and no model is left.
Prints a line per kill and per round; the exit code is 1 when a round was not right.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from random_llama import make_tiny

METHODS = ("noop", "gradient_ascent", "ext_sub", "npo")
SMALL = (
    "--seeds", "2", "--set", "ext_sub.comments=8", "--set", "gradient_ascent.steps=1",
    "--set", "npo.steps=1", "--tasks", "fur,toxigen_mini", "--limit", "13", "--dtype", "float32",
    "--scorer", "profanity_check", "--offline",
)  # fmt: skip
MEASURED = ("seconds", "bytes")  # parts of the names of columns that no two runs have alike
MOST_KILLS = 5
SETTLE = 5.0  # seconds in which what was killed, and its children, may go
VICTIMS = {
    "all": (signal.SIGKILL,),
    "command": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT),
    "worker": (signal.SIGKILL, signal.SIGTERM),
}
Records = Mapping[str, bytes]  # of the cells that have ended well, by folder


@dataclass
class Tally:
    """What a round did and found wrong."""

    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    def compare(self, before: Records, now: Records) -> Records:
        """What was finished must be as it was. Returns `now`."""
        self.wrong += [
            f"{name} was written again" for name in before if now.get(name) != before[name]
        ]
        return now


def start(arguments: argparse.Namespace, target: Path, run: Path) -> psutil.Popen:
    command = [sys.executable, "-m", "unlearn_bench", "evaluate", *SMALL]
    command += ["--engine", arguments.engine, "--methods", ",".join(METHODS)]
    command += ["--target", str(target), "--output", str(run)]
    with (arguments.output / "log.txt").open("ab") as log:
        return psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)


def board(run: Path) -> list[list[str]]:
    """The table without what was measured."""
    (file,) = [path for path in run.rglob("*.csv") if "cells" not in path.parts]
    with file.open(newline="") as text:
        header, *rows = csv.reader(text)
    kept = [
        place for place, name in enumerate(header) if not any(part in name for part in MEASURED)
    ]
    return [[row[place] for place in kept] for row in (header, *rows)]


def finished(run: Path) -> Records:
    found = {path.parent.name: path.read_bytes() for path in run.glob("cells/*/record.json")}
    return {
        name: record for name, record in found.items() if json.loads(record)["status"] == "success"
    }


def strike(process: psutil.Popen, draw: random.Random) -> tuple[str, list[psutil.Process]]:
    """Send one signal to some of a run's processes. Returns what was done, and all of them."""
    whole = [process, *process.children(recursive=True)]
    victim = draw.choice(sorted(VICTIMS))
    sent = draw.choice(VICTIMS[victim])
    hit = {"all": whole, "command": whole[:1], "worker": whole[1:2]}[victim]
    for one in hit:
        one.send_signal(sent)
    return f"{sent.name} to {victim if hit else 'nobody'}", whole


def disturb(arguments: argparse.Namespace, target: Path, run: Path, longest: float) -> Tally:
    """One round: kills, then a run to its end."""
    draw = random.Random(f"{arguments.seed} {run.name}")
    tally, known = Tally(), finished(run)
    for _ in range(draw.randint(1, MOST_KILLS)):
        process = start(arguments, target, run)
        after = draw.uniform(0, longest)
        try:
            process.wait(after)
            break  # it was done before the blow
        except psutil.TimeoutExpired:
            what, whole = strike(process, draw)
        process.wait()
        _, alive = psutil.wait_procs(whole, SETTLE)
        tally.wrong += [f"process {one.pid} outlives the command" for one in alive]
        tally.kills += 1
        known = tally.compare(known, finished(run))
        done = f"{len(known)} cells are finished"
        print(f"  {run.name}: {what} after {after:.1f} s; {done}", flush=True)
    last = start(arguments, target, run)
    if code := last.wait():
        tally.wrong.append(f"the last run ended with {code}")
    tally.compare(known, finished(run))
    tally.wrong += [f"left {path}" for path in run.glob("cells/*/*/*.safetensors")]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    arguments = parser.parse_args()
    whole = arguments.output / "undisturbed"
    if whole.exists():
        raise SystemExit(f"{whole} is there already, and its cells would not be computed again")
    target = make_tiny(arguments.output / "tiny")
    began = time.monotonic()
    if code := start(arguments, target, whole).wait():
        raise SystemExit(f"the undisturbed run ended with {code}; see {arguments.output}/log.txt")
    longest, expected = time.monotonic() - began, board(whole)
    print(f"undisturbed: {len(finished(whole))} cells in {longest:.0f} s", flush=True)
    kills = rounds = bad = 0
    until = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until:
        rounds += 1
        run = arguments.output / f"round-{rounds}"
        tally = disturb(arguments, target, run, longest)
        if board(run) != expected:
            tally.wrong.append("another board")
        kills, bad = kills + tally.kills, bad + bool(tally.wrong)
        print(f"{run.name}: {tally.kills} kills; {'; '.join(tally.wrong) or 'right'}", flush=True)
    print(f"{rounds} rounds, {kills} kills, {bad} rounds not right")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
