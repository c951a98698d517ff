"""How far the dry run's memory estimates are from what edits really took.

    python benchmarks/memory.py [RUN] [--model MODEL]

RUN is the output folder of `evaluate` or `tune` (default: that of `make evaluate`); nothing is run
again. Every successful cell has its peak in its account; the estimate is made anew with the cell's
own options. MODEL is the run's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from unlearn_bench.config import list_suites, load_config
from unlearn_bench.runs.estimate import memory_of_cell
from unlearn_bench.runs.footprint import measure_texts, read_shape
from unlearn_bench.runs.plan import Plan
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.runs.speed import this_machine

NEAR = 0.25  # of the measured peak


@dataclasses.dataclass(frozen=True)
class Measured:
    """One cell: when it ended, and its peak in bytes."""

    finished: str
    method: str
    options: dict[str, object]
    peak: int


def read_cells(run: Path) -> list[Measured]:
    """The successful cells, in the order in which they ended."""
    found = []
    for path in run.glob("cells/*/record.json"):
        record = json.loads(path.read_bytes())
        if record["status"] == "success":
            account = json.loads((path.parent / "account.json").read_bytes())
            peak = account["peak_memory_bytes"]
            found.append(Measured(record["finished"], record["method"], account["options"], peak))
    return sorted(found, key=lambda cell: cell.finished)


def suite_of(run: Path) -> str:
    """The suite that the run's cells were asked; `quick` of one that is not shipped."""
    plan = json.loads(next(run.glob("cells/*/plan.json")).read_bytes())
    name: str = plan["suite"]
    return name if name in list_suites() else "quick"


def compare(plan: Plan, cells: list[Measured]) -> Iterator[tuple[Measured, float]]:
    """Every cell with its estimate in bytes."""
    shape, texts = read_shape(plan.model.folder), measure_texts(vars(plan.data))
    planned = {cell.method: cell for cell in plan.cells}
    for number, cell in enumerate(cells):
        own = planned[cell.method]
        if number:  # before the first edit no engine has started
            own = dataclasses.replace(own, options=cell.options)
        yield cell, memory_of_cell(plan, own, shape, texts, this_machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/quick"))
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    silence_libraries(verbose=False)
    cells = read_cells(given.run)
    if not cells:
        print(f"{given.run} has no finished cell; `make evaluate` fills runs/quick")
        return
    suite = suite_of(given.run)
    methods = ",".join(sorted({cell.method for cell in cells}))
    settings = {"methods": methods, "suite": suite, "model": given.model, "output": given.run}
    part = list_suites()[suite].part
    plan = resolve_plan(load_config(settings), Reporter(), part=part)
    ratios = []
    print(f"{'method':<36} {'estimated':>10} {'measured':>10} {'ratio':>6}   GiB")
    for cell, estimate in compare(plan, cells):
        ratios.append(estimate / cell.peak)
        figures = f"{estimate / 2**30:10.2f} {cell.peak / 2**30:10.2f} {ratios[-1]:6.2f}"
        print(f"{cell.method:<36} {figures}")
    near = sum(abs(ratio - 1) <= NEAR for ratio in ratios)
    print(
        f"{near} of {len(ratios)} within {NEAR:.0%}; ratios {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
