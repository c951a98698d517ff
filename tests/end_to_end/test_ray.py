"""The real command on a real Ray cluster of two nodes on this machine, one of which is lost, and a
process with it.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]

ROOT = Path(__file__).resolve().parents[2]
METHODS = "mortal.py,random_noise,gradient_ascent,npo"
MORTAL = """
import os
import signal
from pathlib import Path

import torch

from unlearn_bench.registry import method


@method("mortal", kind="edit", needs=(), targets=("*.norm.weight",), control=True, zero={})
def mortal(context):
    \"\"\"Kills its process in the middle of the edit, the first time.\"\"\"
    with torch.no_grad():
        context.model.model.norm.weight.mul_(1.5)
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {}
"""
SUITE = """
name: small
tasks: [fur, truthfulqa, toxigen]
limits: {fur: 8, truthfulqa: 3, toxigen: 13}
paraphrases: 1
"""
MEASURED = ("seconds", "bytes")  # parts of the names of columns that no two runs have alike


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a core each, in processes of their own: sums are taken as on one machine only
    by as many threads.
    """
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 10**8, "memory": 8 * 2**30}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    made.add_node(**node)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def command(folder: Path, model: Path, output: str, *more: str) -> list[str]:
    (folder / "small.yaml").write_text(SUITE)
    (folder / "mortal.py").write_text(MORTAL)
    return [
        *(sys.executable, "-m", "unlearn_bench", "evaluate", "--target", str(model)),
        *("--methods", METHODS, "--suite", "small.yaml", "--engine", "transformers"),
        *("--scorer", "profanity_check", "--offline", "--output", output, *more),
    ]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "UNLEARN_BENCH_CACHE": str(tmp_path / "cache"),
           "OMP_NUM_THREADS": "1", **more}  # fmt: skip
    return {**os.environ, **own}


def board(folder: Path) -> list[dict[str, str]]:
    """The rows without what was measured of the machine."""
    (file,) = (folder / "leaderboards").rglob("small.csv")
    rows = list(csv.DictReader(file.open()))
    return [
        {name: value for name, value in row.items() if not any(m in name for m in MEASURED)}
        for row in rows
    ]


def cells(folder: Path, *names: str) -> dict[str, bytes]:
    """These files of every cell, by their path: none of them has a time in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in sorted(folder.glob(f"cells/*/{name}"))
    }


def test_what_a_lost_process_or_node_did_another_does_and_the_board_is_the_local_one(
    cluster: Any, long_tiny_folder: Path, tmp_path: Path
) -> None:
    """One process is killed by the edit that it makes, one node while it works. Every cell is at
    the second place as it is at the first.
    """
    (tmp_path / "killed").touch()  # not here
    local = subprocess.run(
        command(tmp_path, long_tiny_folder, "local"),
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert local.returncode == 0, local.stderr
    (tmp_path / "killed").unlink()
    mirror = tmp_path / "mirror"
    more = ("--executor", "ray", "--mirror", mirror.as_uri())
    process = subprocess.Popen(
        command(tmp_path, long_tiny_folder, "ray", *more),
        cwd=tmp_path,
        env=environment(tmp_path, RAY_ADDRESS=cluster.address),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lost, lines = "", []
    second = cluster.list_all_nodes()[1]
    timer = threading.Timer(600, process.kill)
    timer.start()
    for line in process.stderr:
        lines.append(line)
        at_work = re.search(r"(\S+) seed 0: (?:edit|ask) on node (\w+)", line)
        if (
            not lost
            and at_work
            and at_work[1] != "mortal"
            and second.node_id.startswith(at_work[2])
        ):
            lost = at_work[1]
            cluster.remove_node(second, allow_graceful=False)
    timer.cancel()
    said = "".join(lines)
    assert process.wait() == 0, said
    assert lost, said
    assert (tmp_path / "killed").exists(), said
    for one in (lost, "mortal"):
        assert re.search(rf"{one} seed 0: the process that worked on it is lost", said)
        assert len(re.findall(rf"{one} seed 0: (?:edit|ask) on node", said)) >= 2
    assert board(tmp_path / "ray") == board(tmp_path / "local")
    found = cells(tmp_path / "ray", "scores.json", "items.parquet", "samples.parquet")
    assert len(found) == 3 * 5  # noop among them
    assert found == cells(tmp_path / "local", "scores.json", "items.parquet", "samples.parquet")
    assert cells(mirror, "*.*") == cells(tmp_path / "ray", "*.*")
    assert not list(mirror.rglob("*.safetensors"))
    assert not list((tmp_path / "ray").rglob(".shared-*"))
    assert not list((tmp_path / "ray").glob("cells/*/*/config.json"))
