"""The main job in two processes, with the configuration that we ship."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FSDP = REPOSITORY / "examples" / "fsdp.yaml"
EVALUATE = (
    *("evaluate", "--offline", "--engine", "transformers", "--output", "runs"),
    *("--suite", "smoke", "--tasks", "fur", "--limit", "2", "--methods", "grad_diff,npo"),
    *("--set", "npo.lora=true", "--set", "grad_diff.lr=1e30", "--set", "grad_diff.precision=fp32"),
)
# One of two processes has no room for more than half of a batch.
SCARCE = """
from __future__ import annotations

import os

import torch

from unlearn_bench.registry import method


@method("scarce", paper="none", kind="loss", needs=("forget",), targets=("*",), zero={"steps": 0},
        training={"batch_size": 4, "steps": 2, "lora": False})
def scarce(batch, policy, reference):
    \"\"\"Gradient descent on the forget texts.\"\"\"
    forget = batch.forget
    if os.environ["RANK"] == "1" and len(forget.ids) > 2:
        torch.empty(2**60, dtype=torch.uint8)
    logits = policy(input_ids=forget.input_ids, attention_mask=forget.attention_mask).logits
    return logits.square().mean()
"""

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


def accelerate(*options: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    return launch("accelerate.commands.launch", *options, folder=folder)


def launch(launcher: str, *options: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", launcher, *options]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "UNLEARN_BENCH_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip


def test_all_processes_edit_and_the_main_one_writes(tiny_folder: Path, tmp_path: Path) -> None:
    """One training is LoRA on shards, one diverges; neither process waits for the other for ever.

    Exit code 1, which the launcher passes on, is that of a diverged cell.
    """
    job = ("--config_file", FSDP, "-m", "unlearn_bench", *EVALUATE, "--model", tiny_folder)
    done = accelerate(*job, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    (board,) = (tmp_path / "runs" / "leaderboards").rglob("*.csv")
    rows = {row["method"]: row for row in csv.DictReader(board.open())}
    statuses = {method: row["status"] for method, row in rows.items()}
    assert statuses == {"noop": "success", "grad_diff": "diverged", "npo": "success"}
    assert "step 2; last good losses" in rows["grad_diff"]["reason"]
    (account,) = (tmp_path / "runs" / "cells").glob("*-npo-*/account.json")
    found = json.loads(account.read_text())
    assert found["details"]["processes"] == 2
    assert found["parameters_touched"] > 0
    plan = json.loads((account.parent / "plan.json").read_text())
    assert plan["determinants"]["processes"] == 2  # one process alone makes another cell
    assert done.stdout.count("wrote ") == 3  # by the main process alone
    assert not (tmp_path / "runs" / "edits").exists()
    assert not [path for path in (tmp_path / "runs").glob("cells/*/*") if path.is_dir()]
    again = accelerate(*job, folder=tmp_path)
    assert again.stderr.count("already done") == 2
    assert again.stderr.count("edit 1/1 grad_diff") == 1


def test_memory_that_one_process_lacks_is_spared_by_all(tiny_folder: Path, tmp_path: Path) -> None:
    """The other would wait for it for hours. Its next cell is edited by both as ever."""
    done = scarcely(tmp_path, tiny_folder, "torch.distributed.run", "--nproc_per_node", 2)
    assert done.returncode == 0, done.stderr
    (board,) = (tmp_path / "runs" / "leaderboards").rglob("*.csv")
    rows = {row["method"]: row for row in csv.DictReader(board.open())}
    how = "memory ran out at the edit, which was then done with batch_size=2 accumulate=2"
    assert {name: row["reason"] for name, row in rows.items()} == {
        "noop": "", "scarce": how, "npo": "",
    }  # fmt: skip
    assert {row["status"] for row in rows.values()} == {"success"}


def test_memory_that_one_process_lacks_among_shards_ends_all(
    tiny_folder: Path, tmp_path: Path
) -> None:
    done = scarcely(tmp_path, tiny_folder, "accelerate.commands.launch", "--config_file", FSDP)
    assert done.returncode != 0
    assert "memory ran out at the edit of scarce" in done.stderr
    assert "--set scarce.batch_size=" in done.stderr


def scarcely(folder: Path, model: Path, *launcher: Any) -> subprocess.CompletedProcess[str]:
    """`evaluate` with a method of which one process cannot read a whole batch."""
    (folder / "scarce.py").write_text(SCARCE)
    methods = ("--methods", "scarce.py,npo", "--set", "npo.steps=1")
    job = (*EVALUATE[: EVALUATE.index("--methods")], *methods, "--model", model)
    return launch(*launcher, "-m", "unlearn_bench", *job, folder=folder)
