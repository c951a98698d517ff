"""Runs of real tasks without a model: cells made of numbers, and the board that evaluate writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit import report_cells
from unlearn_bench.board.publish import publish
from unlearn_bench.methods.contract import EditData
from unlearn_bench.models.open import OpenedModel
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.execute import CellResult
from unlearn_bench.runs.plan import Cell, Plan, role_of
from unlearn_bench.runs.store import Record, read_record
from unlearn_bench.schema import Origin

BASE = "sha256:" + "a" * 64
EDIT_SET = Origin("fur", "bundled", "tasks/fur", "1", "f" * 64)


def facts(**changes: Any) -> dict[str, Any]:
    """Determinants but for method and seed, as `evaluate` makes them."""
    target = {"fingerprint": BASE, "edit_set": {"name": "fur", "sha256": EDIT_SET.sha256}}
    versions = {"unlearn-bench": "0", "lm-eval": "0.4.13", "torch": "2"}
    return report_cells.setting(target=target, versions=versions, **changes)


def write_run(
    run: Path,
    methods: Sequence[str] = ("noop", "exact_unlearning", "npo"),
    seeds: Sequence[int] = (0,),
    *,
    leaderboards: Path | None = None,
    ended: Mapping[str, str] | None = None,
    common: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    minute: int = 0,
    notes: Sequence[str] = (),
) -> Path:
    """A run's folder with its cells and its board; return the board's JSON.

    ended: statuses other than success, by method. common: the cells' facts.
    """
    common = dict(common or facts())
    results = []
    for method in methods:
        for seed in seeds:
            status: Any = (ended or {}).get(method, "success")
            folder = report_cells.write_cell(
                run, method, seed, status=status, reason="" if status == "success" else "why",
                options=options, facts=common, minute=minute,
            )  # fmt: skip
            results.append(_result(folder))
    plan = _plan(run, [one.cell for one in results], leaderboards, common, notes)
    _, paths = publish(plan, results)
    return paths[1]


def _result(folder: Path) -> CellResult:
    stored = json.loads((folder / "plan.json").read_bytes())
    found = stored["determinants"]
    record = read_record(folder, stored["key"])
    assert isinstance(record, Record)
    own = found["method"]
    role = role_of(list_cards("method")[own["name"]])
    cell = Cell(own["name"], found["seed"], role, own["options"], found)
    return CellResult(cell, record, folder)


def _plan(
    run: Path,
    cells: Sequence[Cell],
    leaderboards: Path | None,
    common: Mapping[str, Any],
    notes: Sequence[str],
) -> Plan:
    tasks = common["suite"]["tasks"]
    origin = Origin("fur", "bundled", "tasks/fur", "1", "d" * 64)
    whole: dict[str, Any] = {
        "model": OpenedModel(Path(), "tiny", "Tiny", BASE, ""),
        "own_target": False,
        "suite": type("Named", (), {"name": "quick"}),
        "protocols": {name: find_protocol(name).judged_by(()) for name in tasks},
        "origins": dict.fromkeys(tasks, origin),
        "parameters": 1,
        "cards": list_cards("method"),
        "cells": tuple(cells),
        "data": EditData(),
        "fur": type("Set", (), {"origin": EDIT_SET}),
        "anchors": (),
        "sources": None,
        "engine": common["engine"]["name"],
        "dtype": common["engine"]["dtype"],
        "judge": None,
        "scorer": common["scorer"],
        "output": run,
        "leaderboards": (leaderboards or run / "leaderboards") / "tiny",
        "notes": tuple(notes),
    }
    return Plan(**whole)
