"""`--methods all` through everything that `evaluate` does with a method, on a tiny model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_methods_contract import CARDS, small
from tests.unit.test_execute import Screen
from unlearn_bench.board.publish import publish
from unlearn_bench.config import RunConfig
from unlearn_bench.runs import steps
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.plan import TARGET
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.training.prepare import Recipe

SUITE = "name: small\ntasks: [fur]\nlimits: {fur: 4}\nparaphrases: 0\n"


def test_every_method_gets_its_row(
    long_tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared, edited, proven, asked and judged; few steps of each training."""
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(steps, "Recipe", lambda: Recipe(epochs=1, batch_size=64, biography_batch=1))
    (tmp_path / "small.yaml").write_text(SUITE)
    config = RunConfig(
        model=str(long_tiny_folder),
        methods=("all",),
        suite=str(tmp_path / "small.yaml"),
        set={name: options for name, card in CARDS.items() if (options := few(card))},
        engine="transformers",
        offline=True,
        output=tmp_path / "out",
    )
    plan = resolve_plan(config, Screen())
    assert {cell.method for cell in plan.cells} == set(CARDS)
    results = execute(plan, lambda: steps.ModelSteps(plan, print), Screen())
    assert {r.cell.method: r.record.reason for r in results if r.record.status != "success"} == {}
    publish(plan, results)
    (file,) = (tmp_path / "out").rglob("small.csv")
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    assert {row["method"] for row in rows} == set(CARDS)
    assert rows[0]["method"] == TARGET
    assert all(row["fur.forget_extraction_strength"] for row in rows)


def few(card: Any) -> dict[str, Any]:
    """As the other contracts, but with its own batches and room for real texts in tokens of a
    letter each.
    """
    chosen = {name: value for name, value in small(card).items() if name != "batch_size"}
    return chosen | ({"max_tokens": 320} if "max_tokens" in chosen else {})
