"""A plan and steps small enough to test `runs.execute` without a model or an engine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unlearn_bench.cache import new_folder
from unlearn_bench.methods.contract import EditData
from unlearn_bench.protocols.catalog import Metric, Protocol
from unlearn_bench.runs.plan import Cell, Plan, Role
from unlearn_bench.schema import EditReport, ItemScore, Sample, TensorChange

METRICS = {
    "acc": Metric(subtask="quiz", value="acc", direction="higher", unit="share"),
    "toxicity": Metric(subtask="quiz", judge="mean", direction="lower", unit="share"),
}
QUIZ = Protocol(
    name="quiz",
    title="A quiz",
    description="",
    dataset="quiz",
    subtasks=("quiz",),
    metrics=METRICS,
    headline=("acc", "toxicity"),
    folder=Path("tasks/quiz"),
)
ROLES: dict[str, Role] = {"noop": "target", "exact_unlearning": "exact"}


def cell(method: str, seed: int = 0, **determinants: Any) -> Cell:
    return Cell(
        method=method,
        seed=seed,
        role=ROLES.get(method, "method"),
        options={},
        determinants={
            "method": {"name": method, "options": {}},
            "seed": seed,
            "suite": {"tasks": {"quiz": {"limit": None}}},
            **determinants,
        },
    )


def plan(output: Path, *cells: Cell, **changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "model": SimpleNamespace(name="tiny", label="Tiny", fingerprint="sha256:base"),
        "own_target": False,
        "suite": SimpleNamespace(name="quick"),
        "protocols": {"quiz": QUIZ},
        "origins": {},
        "parameters": 1000,
        "cards": {},
        "cells": cells,
        "data": EditData(),
        "fur": None,
        "anchors": (),
        "sources": None,
        "engine": "fake",
        "dtype": "float32",
        "judge": None,
        "scorer": {"name": "fake", "version": "1", "weights_sha256": "0"},
        "output": output,
        "leaderboards": output / "leaderboards" / "tiny",
    }
    return Plan(**{**facts, **changes})


class SmallSteps:
    """Does every step for real, on one number: the checkpoint is a file with the method's name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.scorer_works = True
        self.saved = ""
        self.divisors: dict[tuple[str, str], int] = {}
        self.smallest_share = 4

    def prepare(self, tick: Any) -> None:
        self.calls.append("prepare")

    def edit(self, cell: Cell, checkpoint: Path, tick: Any) -> EditReport:
        self.calls.append(f"edit {cell.method} {cell.seed}")
        with new_folder(checkpoint) as work:
            (work / "weights").write_text(cell.method)
        self.saved = cell.method
        tick("step", 1, 1)
        return EditReport(cell.method, {}, (TensorChange("w", 4, 2, 3.0),), 5, 6, 0.5, 1000)

    def identify(self) -> str:
        return self.saved

    def adopt(self, checkpoint: Path, identity: str) -> None:
        assert (checkpoint / "weights").read_text() == identity
        self.saved = identity

    def evaluate(self, cell: Cell, checkpoint: Path, tick: Any) -> tuple[list[Sample], Any]:
        self.calls.append(f"evaluate {cell.method} {cell.seed}")
        text = (checkpoint / "weights").read_text() + f" {cell.seed}"
        rows = [
            Sample("quiz", str(n), "none", f"question {n}", (text,), {"acc": float(n % 2)}, {})
            for n in range(4)
        ]
        return rows, {"loaded": hashlib.sha256(text.encode()).hexdigest()}

    def start_seconds(self) -> float:
        return 0.0

    def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        self.calls.append("score")
        toxicity = len(samples[0].outputs[0]) / 100 if self.scorer_works else math.nan
        return [
            item
            for sample in samples
            for item in (
                ItemScore("quiz", "acc", sample.item_id, "", float(sample.values["acc"]), 1.0),  # type: ignore[arg-type]
                ItemScore("quiz", "toxicity", sample.item_id, "", toxicity, 1.0),
            )
        ]

    def divide_batches(self, cell: Cell, half: str, divisor: int) -> bool:
        self.divisors[cell.key, half] = divisor
        return divisor <= self.smallest_share

    def division(self, cell: Cell, half: str) -> str:
        divisor = self.divisors.get((cell.key, half), 1)
        return f"a batch of {12 // divisor}" if divisor > 1 else ""

    def describe(self, checkpoint: Path) -> dict[str, Any]:
        text = (checkpoint / "weights").read_bytes()
        return {"weights_fingerprint": f"sha256:{hashlib.sha256(text).hexdigest()}"}

    def reset(self) -> None:
        self.calls.append("reset")

    def close(self) -> None:
        self.calls.append("close")
