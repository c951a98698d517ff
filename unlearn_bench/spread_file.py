"""Write `compare/spreads.json` from the items that finished runs have kept.

    python -m unlearn_bench.spread_file RUN [RUN ...]

RUN is the output folder of `evaluate` or `tune`. Every cell is paired with the target's of the same
suite and seed; only headline columns count, since only they are printed before a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.compare.spreads import FILE, Spread, measure_spread
from unlearn_bench.errors import UsageError
from unlearn_bench.protocols.catalog import Protocol, list_protocols
from unlearn_bench.runs.finished import read_cells
from unlearn_bench.runs.plan import TARGET
from unlearn_bench.runs.store import digest, write_json
from unlearn_bench.schema import ItemScore

WHAT = (
    "Over pairs of an edited model and its target the root mean square of sqrt(C) times the "
    "standard error of their difference over C clusters; written by python -m "
    "unlearn_bench.spread_file"
)


@dataclass(frozen=True)
class Measured:
    """One finished cell: what it was asked under, and its items by (task, metric)."""

    method: str
    seed: int
    suite: str
    determinants: dict[str, Any]
    items: dict[tuple[str, str], list[ItemScore]]

    @property
    def setting(self) -> str:
        """Cells that agree in it were asked the same of models made from the same target."""
        parts = ("target", "suite", "scorer", "engine", "evaluation_code_sha256")
        return digest([self.seed, *(self.determinants.get(name) for name in parts)])


def main(runs: Sequence[Path], file: Path) -> None:
    """Measure over all the runs together and write the file."""
    cells = read_measured(runs)
    targets = {cell.setting: cell for cell in cells if cell.method == TARGET}
    pairs = [
        (cell, targets[cell.setting])
        for cell in cells
        if cell.method != TARGET and cell.setting in targets
    ]
    if not pairs:
        raise UsageError("no run holds a target and an edited model that ended well")
    used = {cell.setting: cell for cell, _ in pairs}
    content = {
        "what": WHAT,
        "measured_on": [
            _facts(own, [c for c, _ in pairs if c.setting == s]) for s, own in used.items()
        ],
        "spreads": {name: asdict(spread) for name, spread in measure(pairs).items()},
    }
    write_json(file, content)


def read_measured(runs: Sequence[Path]) -> list[Measured]:
    """The runs' successful cells, each verified by its record."""
    found = []
    for cell in read_cells(runs).cells:
        if cell.record.status != "success":
            continue
        items: dict[tuple[str, str], list[ItemScore]] = {}
        for item in cell.items:
            items.setdefault((item.task, item.metric), []).append(item)
        facts = dict(cell.determinants)
        found.append(Measured(cell.method, cell.seed, cell.suite, facts, items))
    return found


def measure(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, Spread]:
    """The spreads of every headline column that any pair has, by its name."""
    found = {}
    for task, protocol in list_protocols().items():
        for name in headline_metrics(protocol):
            sides = [
                (own.items.get((task, name), []), target.items.get((task, name), []))
                for own, target in pairs
            ]
            if spread := measure_spread(protocol.metrics[name], sides):
                found[f"{task}.{name}"] = spread
    return found


def headline_metrics(protocol: Protocol) -> list[str]:
    """Those of one model's items; what takes the exact model's as well is no paired difference."""
    return [name for name in protocol.headline if name in protocol.metrics]


def _facts(cell: Measured, paired: Sequence[Measured]) -> dict[str, Any]:
    """What the pairs of one setting have in common."""
    facts = cell.determinants
    return {
        "suite": cell.suite,
        "base_fingerprint": facts["target"]["fingerprint"],
        "samples_per_prompt": facts["suite"]["samples_per_prompt"],
        "tasks": {
            name: {"limit": task["limit"], "data_revision": task["data_revision"]}
            for name, task in facts["suite"]["tasks"].items()
        },
        "scorer": f"{facts['scorer']['name']} {facts['scorer']['version']}",
        "engine": f"{facts['engine']['name']}, {facts['engine']['dtype']}",
        "versions": facts["versions"],
        "seed": cell.seed,
        "pairs": len(paired),
        "methods": sorted({own.method for own in paired}),
    }


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]], FILE)
