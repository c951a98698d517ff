"""The real command over public sets, lm-eval's own tasks and task files, on a tiny model."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import harness_files
from tests.unit.data_files import REAL_DATA, needs_real_data

REPOSITORY = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


@pytest.fixture
def run(long_tiny_folder: Path, tmp_path: Path) -> Run:
    """`unlearn-bench evaluate` on the tiny model, without a network."""
    harness_files.write_wmdp(tmp_path / "hf" / "datasets")
    harness_files.write_ifeval(tmp_path / "hf" / "datasets")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "UNLEARN_BENCH_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    command = (sys.executable, "-m", "unlearn_bench", "evaluate", "--offline", "--suite", "smoke",
               "--engine", "transformers", "--model", long_tiny_folder)  # fmt: skip

    def call(*options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in (*command, *options)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800,
        )  # fmt: skip

    return call


def board(folder: Path, name: str) -> dict[str, dict[str, str]]:
    (file,) = (folder / "runs" / "leaderboards").rglob(f"{name}.csv")
    return {row["method"]: row for row in csv.DictReader(file.open())}


def test_a_task_file_in_the_key_and_on_the_board(run: Run, tmp_path: Path) -> None:
    """Its content is in the key, the folder that it lies in is not; code needs the flag."""
    path = harness_files.write_task(tmp_path / "a")
    done = run("--tasks", path, "--methods", "noop", "--limit", "4")
    assert done.returncode == 0, done.stderr
    first = board(tmp_path, "smoke-capitals-limit4")["noop"]
    assert first["capitals.acc.n"] == "4"
    assert first["capitals.acc.direction"] == "higher"
    (items,) = (tmp_path / "runs" / "cells").glob("*/plan.json")
    facts = json.loads(items.read_text())["determinants"]["suite"]["tasks"]["capitals"]
    assert len(facts["definition_sha256"]) == 64
    moved = harness_files.write_task(tmp_path / "b")
    moved.write_text(path.read_text())
    again = run("--tasks", moved, "--methods", "noop", "--limit", "4")
    assert "already done" in again.stderr
    moved.write_text(path.read_text().replace("Q: ", "Question: "))
    run("--tasks", moved, "--methods", "noop", "--limit", "4")
    assert board(tmp_path, "smoke-capitals-limit4")["noop"]["cell_key"] != first["cell_key"]
    moved.write_text(path.read_text() + "process_docs: !function code.run\n")
    refused = run("--tasks", moved, "--methods", "noop")
    assert refused.returncode == 4
    assert "--allow-task-code" in refused.stderr


def test_wmdp_and_ifeval_by_name_score_what_stock_lm_eval_does(
    run: Run, tmp_path: Path, long_tiny_folder: Path
) -> None:
    """The group's aggregate is over its 4 + 2 + 3 items, beside its three tasks' own columns; of
    IFEval's two prompts the strict and the loose share, of which TRACE takes the strict one.
    """
    done = run("--tasks", "wmdp,ifeval", "--methods", "noop")
    assert done.returncode == 0, done.stderr
    row = board(tmp_path, "smoke-wmdp-ifeval")["noop"]
    assert row["ifeval.prompt_level_strict_acc.n"] == "2"
    assert row["trace.instruction_following"] == "0.0"
    assert {row[f"{task}.acc.n"] for task in ("wmdp_bio", "wmdp_chem", "wmdp_cyber")} == set("423")
    assert row["wmdp.acc.n"] == "9"
    (checkpoint,) = (tmp_path / "cache" / "prepared").glob("*-target-*")
    stock = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args",
         f"pretrained={checkpoint},dtype=float32", "--tasks", "wmdp,ifeval", "--device", "cpu",
         "--output_path", str(tmp_path / "stock.json")],
        cwd=tmp_path, capture_output=True, text=True, timeout=800,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert stock.returncode == 0, stock.stderr
    (written,) = tmp_path.glob("stock*.json")
    results = json.loads(written.read_text())["results"]
    for task in ("wmdp", "wmdp_bio", "wmdp_chem", "wmdp_cyber"):
        assert float(row[f"{task}.acc"]) == pytest.approx(results[task]["acc,none"])
    for metric in ("prompt_level_strict_acc", "prompt_level_loose_acc"):
        assert float(row[f"ifeval.{metric}"]) == pytest.approx(results["ifeval"][f"{metric},none"])
    absent = run("--tasks", "hellaswag", "--methods", "noop")
    assert absent.returncode == 3
    assert "lm-eval has no data for the task 'hellaswag'" in absent.stderr
    unknown = run("--tasks", "helaswag", "--methods", "noop")
    assert unknown.returncode == 2
    assert "hellaswag" in unknown.stderr


@needs_real_data
def test_counterfact_is_a_task_of_its_own(run: Run, tmp_path: Path) -> None:
    done = run(
        "--tasks", "fur", "--data", REAL_DATA, "--edit-set", "counterfact_100",
        "--methods", "exact_unlearning,fine_tuning", "--limit", "9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = board(tmp_path, "smoke-fur-limit9-counterfact_100")
    assert set(rows) == {"noop", "exact_unlearning", "fine_tuning"}
    row = rows["fine_tuning"]
    assert row["edit_set"].startswith("counterfact_100 folder")
    assert not [name for name in row if name.startswith("fur.")]
    assert not [name for name in row if "forget" in name]
    assert not [row[name] for name in row if name.endswith(".missing") and row[name] != "0"]
    assert row["counterfact_100.update_efficacy.n"] == "3"  # 9 facts, of three parts in turn
    assert row["counterfact_100.locality_choice_acc.n"] == "3"
