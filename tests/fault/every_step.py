"""A run that is stopped at its N-th change of the disk, for every N, and then goes on.

    python -m tests.fault.every_step kill|full FOLDER [again]

again: the cells have been computed before, without a scorer, and are judged again. For each N one
forked process runs into the fault (SIGKILL, or a disk that takes no further byte) just before its
N-th change below the output folder, and another one goes on without it. Writes one JSON line: how
many N there were, and what was not as it should be.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.board.publish import publish
from unlearn_bench.errors import DiskFullError
from unlearn_bench.runs.execute import execute

CHANGES = (
    *("os.rename", "os.mkdir", "os.remove", "os.rmdir"),
    *("tempfile.mkstemp", "tempfile.mkdtemp"),
)
METHODS = ("noop", "npo")
TIMES = ("evaluate_seconds",)  # columns that no two runs have alike
TIMELESS = ("samples.parquet", "items.parquet", "scores.json")  # files that all runs have alike


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    """Like a full disk: files can be made and renamed, and take no byte."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def run(output: Path, *, scorer_works: bool = True) -> list[str]:
    """Every cell and the board; the edits that were made."""
    made = []

    class Steps(SmallSteps):
        def __init__(self) -> None:
            super().__init__()
            self.scorer_works = scorer_works

        def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
            made.append(cell.method)
            return super().edit(cell, checkpoint, tick)

    whole = plan(output, *map(cell, METHODS))
    publish(whole, execute(whole, Steps, Screen()))
    return made


def run_into(fault: Callable[[], None], output: Path, at: int) -> int:
    """Run with the fault at the `at`-th change, in a process of its own; how it ended: 0 if the
    run was over before it.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CHANGES and str(output) in str(arguments[0]):
            seen += 1
            if seen == at:
                fault()

    sys.addaudithook(watch)  # which cannot be taken away again
    try:
        run(output)
    except DiskFullError:
        os._exit(3)
    os._exit(0)


def finished(output: Path) -> dict[str, bytes]:
    """The records of the cells that ended well, by folder."""
    records = {path.parent.name: path.read_bytes() for path in output.glob("cells/*/record.json")}
    return {name: text for name, text in records.items() if b'"success"' in text}


def board(output: Path) -> list[list[str]]:
    """The table without its times."""
    (file,) = output.rglob("quick.csv")
    lines = [line.split(",") for line in file.read_text().splitlines()]
    kept = [place for place, name in enumerate(lines[0]) if name not in TIMES]
    return [[line[place] for place in kept] for line in lines]


def left(output: Path) -> dict[str, bytes]:
    """All there is in the cells' folders, with its bytes where no time is among them."""
    folder = output / "cells"
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.name in TIMELESS else b""
        for path in folder.rglob("*")
    }


def main(kind: str, folder: Path, *, again: bool) -> None:
    fault = {"kill": kill, "full": fill}[kind]
    gc.freeze()  # what the imports made need not be looked at around every edit
    run(folder / "whole")
    expected, there = board(folder / "whole"), left(folder / "whole")
    wrong, at = [], 0
    while True:
        at += 1
        output = folder / f"at{at}"
        if again:
            run(output, scorer_works=False)
        ended = run_into(fault, output, at)
        if ended == 0:
            break
        if kind == "full" and os.waitstatus_to_exitcode(ended) != 3:
            wrong.append(f"{at}: ended with {os.waitstatus_to_exitcode(ended)}")
        before = finished(output) if output.exists() else {}
        made = run(output)
        after = finished(output)
        if any(after[name] != record for name, record in before.items()):
            wrong.append(f"{at}: a finished cell was written again")
        if len(made) != (0 if again else len(METHODS) - len(before)):
            wrong.append(f"{at}: {len(before)} were finished and {made} edited again")
        if board(output) != expected:
            wrong.append(f"{at}: another board")
        now = left(output)
        if differs := sorted(name for name in there | now if there.get(name) != now.get(name)):
            wrong.append(f"{at}: not as without the fault: {differs}")
    sys.stdout.write(json.dumps({"steps": at - 1, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), again="again" in sys.argv)
