"""How long the main job would take for a model of some size on GPUs that are not here.

    python benchmarks/predict.py [--parameters P] [--suite S] [--methods M] [--gpus N ...]

Arithmetic with data sheets (`runs/speed.py`), nothing measured: operations, bytes of weights, and
how the cells pack. A cell has one GPU; with more GPUs than cells the longest cell decides. Prints
each cell's seconds, then per number of GPUs how long the whole takes.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import replace

from unlearn_bench.config import load_config
from unlearn_bench.runs.estimate import estimate_cells, estimate_preparation
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.runs.speed import CARDS, Machine

CORES = 16


def packed(seconds: Sequence[float], places: int) -> float:
    """When the last cell ends if each goes, longest first, to the GPU that is free first."""
    ends = [0.0] * min(places, len(seconds))
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=8.03e9)
    parser.add_argument("--suite", default="full")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--gpus", type=int, nargs="*", default=[1, 8, 100])
    parser.add_argument("--card", default="9.0", help="compute capability; 9.0 is an H100")
    asked = parser.parse_args()
    silence_libraries(verbose=False)
    given = {"suite": asked.suite, "methods": asked.methods, "seeds": asked.seeds}
    small = resolve_plan(load_config(given), Reporter())
    # What cells of this machine took must not stand in for arithmetic.
    nowhere = small.output / "none"
    plan = replace(small, parameters=int(asked.parameters), output=nowhere)
    major, minor = map(int, asked.card.split("."))
    machine = Machine(CORES, CARDS[major, minor], bf16=True)
    cells = estimate_cells(plan, machine)
    print(f"{'cell':40}{'edit, s':>9}{'rest, s':>10}")
    for cell, one in zip(plan.cells, cells, strict=True):
        print(f"{cell.label:40}{one.edit_seconds:9.0f}{one.evaluate_seconds:10.0f}")
    first = estimate_preparation(plan, machine)
    seconds = [one.seconds for one in cells]
    print(
        f"{len(cells)} cells, {sum(seconds) / 3600:.1f} GPU hours, after {first / 60:.0f} min of "
        "preparing the models"
    )
    for places in asked.gpus:
        print(f"{places:5} GPUs: {(first + packed(seconds, places)) / 60:8.0f} min")


if __name__ == "__main__":
    main()
