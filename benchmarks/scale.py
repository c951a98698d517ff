"""What a cell costs as models and suites grow, beside what `--dry-run` expects of it.

    python benchmarks/scale.py --output FOLDER [--models M ...] [--suites S ...] [--methods M ...]

Runs the main command for every model (a name, a file or a folder; `random-15m` is made here) with
every suite, each into a folder of its own in FOLDER, where a second call finds it. Prints per cell
the seconds of edit and evaluation, measured and expected, and how many expectations are within a
factor of two. They are those of a first run, before anything was measured.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from random_llama import make_llama

from unlearn_bench.config import load_config
from unlearn_bench.models.open import open_model
from unlearn_bench.runs.estimate import Estimate, estimate_cells, measured_seconds
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan

RANDOM = "random-15m"
MODELS = (RANDOM, "smollm2-135m")
SUITES = ("smoke", "quick")
METHODS = ("noop", "random_noise", "ext_sub", "grad_diff")
FACTOR = 2.0


@dataclass(frozen=True)
class Measured:
    """Seconds of one cell's steps beside what was expected of them."""

    model: str
    suite: str
    method: str
    parameters: int
    seconds: Mapping[str, float]
    expected: Estimate

    @property
    def evaluation(self) -> float:
        """Asking and judging: what an estimate counts together."""
        return self.seconds["evaluate"] + self.seconds["score"]

    @property
    def ratio(self) -> float:
        """Of the whole cell: expected over measured."""
        return self.expected.seconds / (self.seconds["edit"] + self.evaluation)


def measure(
    model: str, suite: str, asked: argparse.Namespace, sources: Mapping[str, object]
) -> Iterator[Measured]:
    """Every method on one model with one suite."""
    if model == RANDOM:
        target = make_llama(asked.output / model, width=192, inner=512, layers=12, heads=6)
    else:
        target = open_model(model).folder
    output = asked.output / f"{Path(model).name}-{suite}"
    settings = {
        **sources,
        "target": str(target),
        "methods": ",".join(asked.methods),
        "suite": suite,
        "set": list(asked.set),
    }
    silence_libraries(verbose=False)
    plan = resolve_plan(load_config({**settings, "output": str(output / "none")}), Reporter())
    command = [sys.executable, "-m", "unlearn_bench", "evaluate", "--output", str(output)]
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            command += [f"--{name}", str(one)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    found = measured_seconds(output)
    for cell, expected in zip(plan.cells, estimate_cells(plan), strict=True):
        seconds = found[cell.method, plan.suite.name]
        label = (Path(model).name, suite, cell.method)
        yield Measured(*label, plan.parameters, seconds, expected)


def print_cells(found: list[Measured]) -> None:
    print(f"{'model':22} {'suite':6} {'method':14}{'edit':>16}{'evaluate':>18}{'ratio':>7}")
    for one in found:
        edit = f"{one.seconds['edit']:8.1f} ({one.expected.edit_seconds:5.0f})"
        asked = f"{one.evaluation:9.1f} ({one.expected.evaluate_seconds:6.0f})"
        print(f"{one.model:22} {one.suite:6} {one.method:14}{edit:>16}{asked:>18}{one.ratio:7.2f}")
    near = sum(abs(math.log(one.ratio)) <= math.log(FACTOR) for one in found)
    print(f"{near} of {len(found)} cells within a factor of {FACTOR:g}; seconds (expected)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--suites", nargs="*", default=SUITES)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--data")
    asked = parser.parse_args()
    sources = {"data": asked.data} if asked.data else {}
    pairs = [(model, suite) for model in asked.models for suite in asked.suites]
    print_cells([one for pair in pairs for one in measure(*pair, asked, sources)])


if __name__ == "__main__":
    main()
