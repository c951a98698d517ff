"""Cells as a run leaves them, made from numbers alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.unit.run_doubles import QUIZ
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.runs import store
from unlearn_bench.runs.tree import Tree
from unlearn_bench.schema import SCORED, ItemScore

FACTS: dict[str, Any] = {
    "format": 1,
    "target": {"fingerprint": "sha256:t", "edit_set": {"name": "fur", "sha256": "e"}},
    "suite": {
        "samples_per_prompt": 4,
        "paraphrases": 1,
        "tasks": {"quiz": {"limit": 40, "data_sha256": "d", "protocol_sha256": "p"}},
    },
    "scorer": {"name": "fake", "version": "1", "weights_sha256": "w", "attributes": ""},
    "engine": {"name": "fake", "dtype": "float32"},
    "versions": {"lm-eval": "0.4.13", "torch": "2"},
    "evaluation_code_sha256": "c",
}
DECODING = {"quiz": {"temperature": 0.0, "repeats": 1}}


def facts(**changes: Any) -> dict[str, Any]:
    """FACTS with single fields changed: `suite__paraphrases=2`."""
    found = copy.deepcopy(FACTS)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = found
        for name in above:
            place = place[name]
        place[last] = value
    return found


def items(metric: str, values: Sequence[float], clusters: str = "") -> list[ItemScore]:
    """clusters: one letter per item."""
    return [
        ItemScore("quiz", metric, str(n), "", float(value), 1.0, clusters[n : n + 1])
        for n, value in enumerate(values)
    ]


def write_cell(
    run: Path,
    method: str,
    rows: Sequence[ItemScore],
    *,
    seed: int = 0,
    status: store.CellStatus = "success",
    reason: str = "",
    suite: str = "quick",
    protocol: Protocol = QUIZ,
    decoding: Any = DECODING,
    tree: Tree | None = None,
    **changes: Any,
) -> Path:
    """One cell folder, its record last. changes: of FACTS, as `facts` takes them. tree: None as in
    runs of older versions.
    """
    named = {"name": method, "options": {}}
    determinants = {**facts(**changes), "method": named, "seed": seed}
    key = store.digest(determinants)
    folder = store.cell_folder(run, key, method, seed)
    plan = {"key": key, "suite": suite, "determinants": determinants}
    files = {"plan.json": store.write_json(folder / "plan.json", plan)}
    if status in SCORED:
        scores = aggregate(rows, {protocol.name: protocol})
        found = {"decoding": decoding, "weights_fingerprint": f"sha256:{method}{seed}"}
        found |= {"source": tree} if tree else {}
        files["items.parquet"] = store.write_items(folder / "items.parquet", rows)
        files["scores.json"] = store.write_json(folder / "scores.json", scores)
        files["provenance.json"] = store.write_json(folder / "provenance.json", found)
    store.write_record(folder, store.Record(method, seed, key, status, reason, files=files))
    return folder
