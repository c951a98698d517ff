"""Runs without a model: cells made of numbers, and the board that evaluate writes of them.

Twelve facts per part of fur, each right or wrong, and two pages of prose. The target knows every
forgotten fact and the exact model none; a method knows as many as LEVELS says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.board.publish import publish
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.methods.contract import EditData
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.plan import Cell, Plan, role_of
from unlearn_bench.runs.resolve import protocol_digest
from unlearn_bench.runs.store import (
    Record,
    cell_folder,
    digest,
    write_items,
    write_json,
    write_record,
)
from unlearn_bench.runs.tuned import Winner
from unlearn_bench.schema import SCORED, ItemScore, Origin

TASKS = ("fur", "wikitext_mini")
BASE = "sha256:" + "a" * 64
DATA = {"fur": "d" * 64, "wikitext_mini": "e" * 64}
EDIT_SET = Origin("fur", "bundled", "tasks/fur", "1", "f" * 64)
NAMED = {
    "named": {"slug": "tiny", "label": "Tiny", "edit_set": f"fur bundled 1 {EDIT_SET.sha256[:12]}"}
}
FACTS = 12
PARTS = {  # the headline of fur, and one metric more
    "forget": ("forget_extraction_strength", "forget_choice_acc", "forget_exact_memorization"),
    "update": ("update_efficacy", "update_new_rouge_l"),
    "retain": ("retain_neighbour_rouge_l", "retain_stranger_rouge_l"),
}
LEVELS = {  # of twelve facts: still known, newly known, kept
    "noop": (12, 0, 12),
    "exact_unlearning": (0, 12, 12),
    "npo": (3, 0, 9),
    "grad_diff": (6, 0, 12),
}


def facts(**changes: Any) -> dict[str, Any]:
    """Determinants but for method and seed, as `evaluate` makes them."""
    tasks = {
        name: {
            "limit": FACTS,
            "data_sha256": DATA[name],
            "data_revision": "1",
            "protocol_sha256": protocol_digest(find_protocol(name).judged_by(())),
        }
        for name in TASKS
    }
    return {
        "target": {"fingerprint": BASE, "edit_set": {"name": "fur", "sha256": EDIT_SET.sha256}},
        "suite": {"samples_per_prompt": 4, "paraphrases": 1, "tasks": tasks},
        "scorer": {"name": "fake", "version": "1", "weights_sha256": "5" * 64, "attributes": ""},
        "engine": {"name": "fake", "dtype": "float32"},
        "versions": {"unlearn-bench": "0", "lm-eval": "0.4.13", "torch": "2"},
        "evaluation_code_sha256": "c" * 64,
        "format": 1,
        **changes,
    }


def write_run(
    run: Path,
    methods: Sequence[str] = ("noop", "exact_unlearning", "npo"),
    seeds: Sequence[int] = (0,),
    *,
    ended: Mapping[str, str] | None = None,
    common: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    minute: int = 0,
    level: int | None = None,
    notes: Sequence[str] = (),
    leaderboards: Path | None = None,
    tuned: Mapping[str, Winner] | None = None,
    named: bool = True,
) -> Path:
    """A run's folder with its cells and its board; return the board's JSON.

    ended: statuses other than success, by method. minute: when the cells ended. level: how many
    forgotten facts npo still knows. leaderboards: where the board goes, below the run by default.
    named: whether the cells say how their model is called, as those of earlier versions did not.
    """
    common = dict(common or facts())
    results = []
    for method in methods:
        for seed in seeds:
            status: Any = (ended or {}).get(method, "success")
            own = options or {} if method not in ("noop", "exact_unlearning") else {}
            levels = list(LEVELS.get(method, (6, 0, 6)))
            if method == "npo" and level is not None:
                levels[0] = level
            told = NAMED if named else {}
            results.append(
                _write_cell(run, method, seed, status, common, own, levels, minute, told)
            )
    plan = _plan(run, results, leaderboards or run / "leaderboards", common, notes, tuned or {})
    _, paths = publish(plan, results)
    return paths[1]


def _write_cell(
    run: Path,
    method: str,
    seed: int,
    status: Any,
    common: Mapping[str, Any],
    options: Mapping[str, Any],
    levels: Sequence[int],
    minute: int,
    named: Mapping[str, Any],
) -> CellResult:
    edited_by = {"name": method, "options": dict(options)}
    determinants = {**common, "method": edited_by, "seed": seed}
    key = digest(determinants)
    folder = cell_folder(run, key, method, seed)
    plan = {"key": key, "suite": "quick", **named, "determinants": determinants}
    files = {"plan.json": write_json(folder / "plan.json", plan)}
    if status in SCORED:
        files |= _write_results(folder, method, levels)
    when = f"2026-01-01T00:{minute:02}:00+00:00"
    reason = "" if status == "success" else f"{method} is {status}"
    record = Record(method, seed, key, status, reason, when, when, {"evaluate": 2.0}, files)
    write_record(folder, record)
    cards = list_cards("method")
    role = role_of(cards[method]) if method in cards else "method"
    return CellResult(Cell(method, seed, role, dict(options), determinants), record, folder)


def _write_results(folder: Path, method: str, levels: Sequence[int]) -> dict[str, str]:
    items = list(_items(levels))
    protocols = {name: find_protocol(name).judged_by(()) for name in TASKS}
    data = [vars(_origin(name)) for name in TASKS]
    found = {
        "weights_fingerprint": f"sha256:{digest([method, levels])}",
        "target_fingerprint": "sha256:" + "b" * 64,
        "decoding": {"fur_generate": {"temperature": 0.0, "repeats": 1}},
        "data": data,
    }
    account = {"seconds": 1.5, "peak_memory_bytes": 10**9, "parameters_touched": 7}
    account |= {"delta_norm": 0.5, "forward_passes": 5, "backward_passes": 6}
    return {
        "account.json": write_json(folder / "account.json", account),
        "provenance.json": write_json(folder / "provenance.json", found),
        "items.parquet": write_items(folder / "items.parquet", items),
        "scores.json": write_json(folder / "scores.json", aggregate(items, protocols)),
    }


def _items(levels: Sequence[int]) -> Iterator[ItemScore]:
    for known, (part, metrics) in zip(levels, PARTS.items(), strict=True):
        for metric in metrics:
            for number in range(FACTS):
                value = float(number < known)
                yield ItemScore("fur", metric, f"{part}-{number}", "", value, 1.0, f"s{number}")
    for number in range(2):
        item = f"page-{number}"
        yield ItemScore("wikitext_mini", "word_perplexity", item, "", -100.0 - number, 25.0)


def _origin(task: str) -> Origin:
    source: Any = "bundled" if task == "fur" else "mini"
    return Origin(task.removesuffix("_mini"), source, f"tasks/{task}", "1", DATA[task])


def _plan(
    run: Path,
    results: Sequence[CellResult],
    leaderboards: Path,
    common: Mapping[str, Any],
    notes: Sequence[str],
    tuned: Mapping[str, Winner],
) -> Plan:
    whole: dict[str, Any] = {
        "model": OpenedModel(Path(), "tiny", "Tiny", common["target"]["fingerprint"], ""),
        "own_target": False,
        "suite": type("Suite", (), {"name": "quick"}),
        "protocols": {name: find_protocol(name).judged_by(()) for name in TASKS},
        "origins": {name: _origin(name) for name in TASKS},
        "parameters": 1,
        "cards": list_cards("method"),
        "cells": tuple(result.cell for result in results),
        "data": EditData(),
        "fur": type("Set", (), {"origin": EDIT_SET}),
        "anchors": (),
        "sources": None,
        "engine": common["engine"]["name"],
        "dtype": common["engine"]["dtype"],
        "judge": None,
        "scorer": common["scorer"],
        "output": run,
        "leaderboards": leaderboards / "tiny",
        "notes": tuple(notes),
        "tuned": tuned,
        "tuning": {"suite": "validation", "seed": 0} if tuned else {},
    }
    return Plan(**whole)


def read_json(path: Path) -> Any:
    """What a board's file holds."""
    return json.loads(path.read_bytes())
