"""Killed at random moments for some minutes: does the board stay the one nobody disturbed?

    python benchmarks/kills.py --output FOLDER [--minutes N] [--seed N] [--engine E] [--prepare]

The main command with a few methods on a tiny random Llama. First a run that is left alone. Then
round after round, each in a folder of its own: the command is started, after a random time some or
all of its processes get a signal, and it is started again, up to five times; the last time it is
left alone. A round is right when that ends with 0, its board is the undisturbed one but for seconds
and bytes, its answers and scores are so to the byte, no cell that was finished has been written
again, and no process and no model is left. Prints a line per kill and per round; the exit code is 1
when a round was not right.

--prepare: the model is the base, and each round trains the target first, into a cache of its own: a
quarter of a minute on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

METHODS = ("noop", "gradient_ascent", "ext_sub", "npo")
SMALL = (
    "--seeds", "2", "--set", "ext_sub.comments=8", "--set", "gradient_ascent.steps=1",
    "--set", "npo.steps=1", "--tasks", "fur,toxigen_mini", "--limit", "13", "--dtype", "float32",
    "--scorer", "profanity_check", "--offline",
)  # fmt: skip
ANSWERS = ("samples.parquet", "items.parquet", "scores.json")  # of a cell, with no time in them
MEASURED = ("seconds", "bytes")  # parts of the names of columns that no two runs have alike
MOST_KILLS = 5
SETTLE = 5.0  # seconds in which what was killed, and its children, may go
VICTIMS = {
    "all": (signal.SIGKILL,),
    "command": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT),
    "worker": (signal.SIGKILL, signal.SIGTERM),
}
Records = Mapping[str, bytes]  # files of cells, by place


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
    command += ["--model" if arguments.prepare else "--target", str(target), "--output", str(run)]
    own = {"UNLEARN_BENCH_CACHE": str(cache_of(run))} if arguments.prepare else {}
    with (arguments.output / "log.txt").open("ab") as log:
        return psutil.Popen(
            command, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True
        )


def cache_of(run: Path) -> Path:
    return run.with_name(f"{run.name}-cache")


def board(run: Path) -> list[list[str]]:
    """The table without what was measured."""
    (file,) = [path for path in run.rglob("*.csv") if "cells" not in path.parts]
    with file.open(newline="") as text:
        header, *rows = csv.reader(text)
    kept = [
        place for place, name in enumerate(header) if not any(part in name for part in MEASURED)
    ]
    return [[row[place] for place in kept] for row in (header, *rows)]


def answers(run: Path) -> Records:
    """Whatever a cell has of answers and scores, by its place."""
    found = [path for path in run.glob("cells/*/*") if path.name in ANSWERS]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def finished(run: Path) -> Records:
    """The records of the cells that have ended well, by folder."""
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
    models = [path.parent for path in run.glob("cells/*/*/*.safetensors")]
    half = [path for path in cache_of(run).glob("*/.*") if path.is_dir()]
    tally.wrong += [f"left {path}" for path in (*models, *half)]
    return tally


def compare(run: Path, whole: Path) -> list[str]:
    """What of a round is not as in the run that nobody disturbed."""
    differs = [] if board(run) == board(whole) else ["another board"]
    mine, undisturbed = answers(run), answers(whole)
    names = sorted(mine.keys() | undisturbed.keys())
    return differs + [
        f"another {name}" for name in names if mine.get(name) != undisturbed.get(name)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="transformers", choices=["transformers", "vllm"])
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    from random_llama import make_tiny  # beside this file

    whole = arguments.output / "undisturbed"
    if whole.exists():
        raise SystemExit(f"{whole} is there already, and its cells would not be computed again")
    target = make_tiny(arguments.output / "tiny")
    began = time.monotonic()
    if code := start(arguments, target, whole).wait():
        raise SystemExit(f"the undisturbed run ended with {code}; see {arguments.output}/log.txt")
    longest = time.monotonic() - began
    print(f"undisturbed: {len(finished(whole))} cells in {longest:.0f} s", flush=True)
    kills = rounds = bad = 0
    until = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until:
        rounds += 1
        run = arguments.output / f"round-{rounds}"
        tally = disturb(arguments, target, run, longest)
        tally.wrong += compare(run, whole)
        kills, bad = kills + tally.kills, bad + bool(tally.wrong)
        print(f"{run.name}: {tally.kills} kills; {'; '.join(tally.wrong) or 'right'}", flush=True)
    print(f"{rounds} rounds, {kills} kills, {bad} rounds not right")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
