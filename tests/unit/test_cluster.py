"""What a process of a cluster refuses, and what it is given of a node. No cluster is started."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path

import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_cli import invoke
from tests.unit.test_execute import Screen
from unlearn_bench.runs import store
from unlearn_bench.runs.estimate import Estimate
from unlearn_bench.runs.execute import Edited, Session

pytest.importorskip("ray", reason="ray is not installed")

from unlearn_bench.runs import cluster
from unlearn_bench.runs.cluster import Dispatcher, Job, Worker, _Task


@pytest.fixture
def settings(tmp_path: Path, long_tiny_folder: Path) -> dict[str, object]:
    return {
        "target": str(long_tiny_folder), "methods": ["noop"], "suite": "smoke", "tasks": ["fur"],
        "engine": "transformers", "scorer": "profanity_check", "offline": True,
        "output": str(tmp_path / "out"),
    }  # fmt: skip


def job(settings: dict[str, object], tmp_path: Path, *keys: str) -> Job:
    for folder in ("out", "cache"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".shared-1").touch()
    return Job(settings, str(tmp_path), str(tmp_path / "cache"), "1", keys)


@pytest.mark.parametrize("folder", ["out", "cache"])
def test_a_folder_that_is_not_shared_is_refused(
    settings: dict[str, object], tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", "")
    given = job(settings, tmp_path)
    (tmp_path / folder / ".shared-1").unlink()
    said = Worker()._obstacle(given)
    assert f"{tmp_path / folder} is not the one that the run was started with" in said
    assert "UNLEARN_BENCH_CACHE" in said


def test_a_process_that_would_compute_other_cells_is_refused(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", "")
    worker = Worker()
    assert "1 of the run's cells" in worker._obstacle(job(settings, tmp_path, "a" * 64))
    assert [cell.method for cell in worker.cells.values()] == ["noop"]


def test_a_folder_that_is_not_there_is_said(settings: dict[str, object], tmp_path: Path) -> None:
    given = Job(settings, str(tmp_path / "nowhere"), str(tmp_path), "1", ())
    assert "nowhere" in Worker()._obstacle(given)


def node(alive: bool = True, **resources: float) -> dict[str, object]:
    return {"Alive": alive, "Resources": resources}


def estimates(*memory: float) -> list[Estimate]:
    return [Estimate(1, 1, size, measured=False) for size in memory]


def test_without_gpus_a_process_takes_the_cores_of_the_smallest_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [node(CPU=8, memory=100), node(CPU=4, memory=100), node(alive=False, CPU=1)]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    needs = cluster._needs(estimates(30, 50))
    assert needs == {"CPU": 4, "memory": 50}
    assert [cluster._fits(one["Resources"], needs) for one in nodes] == [2, 1, 0]  # type: ignore[arg-type]


def test_with_gpus_it_takes_one_and_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [node(CPU=16, GPU=8, memory=800), node(CPU=4, memory=100)]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    needs = cluster._needs(estimates(50))
    assert needs == {"CPU": 2, "GPU": 1, "memory": 50}
    assert [cluster._fits(one["Resources"], needs) for one in nodes] == [8, 0]  # type: ignore[arg-type]


def test_without_ray_it_is_said_how_to_get_it(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "unlearn_bench.runs.cluster")
    result = invoke(
        *("evaluate", "--target", str(settings["target"]), "--methods", "noop", "--executor"),
        *("ray", "--suite", "smoke", "--tasks", "fur", "--engine", "transformers", "--offline"),
        *("--scorer", "profanity_check", "--output", str(settings["output"])),
    )
    assert result.exit_code == 2
    assert "pip install 'unlearn-bench[ray]'" in result.output


def test_a_cell_that_takes_too_long_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 s, 9 went into the edit on another process: 5 s of questions are too many."""
    slow, quick = cell("npo"), cell("simnpo")
    killed: list[str] = []
    monkeypatch.setattr(cluster.ray, "kill", killed.append)
    now = time.monotonic()
    edited = Edited("sha256:0", "", {}, {"edit": 9.0})
    tasks: dict[str, _Task] = {
        "slow": _Task("a", "ask", slow, edited, began=now - 5),
        "quick": _Task("b", "ask", quick, edited, began=now),
        "opening": _Task("c", "open", began=now - 100),
    }
    session = Session(plan(tmp_path, slow, quick), SmallSteps, Screen())
    given = Job({"time_limit": 10.0}, "", "", "", (slow.key, quick.key))
    dispatcher = Dispatcher(session, given, lambda result: None, {}, deque(), deque(), busy=tasks)
    dispatcher._end_late()
    assert killed == ["a"]
    assert list(dispatcher.busy) == ["quick", "opening"]
    record = store.read_record(session.folder(slow), slow.key)
    assert record is not None
    assert (record.status, record.reason) == ("failed", "it was not done after 10 s (--time-limit)")
    assert list(dispatcher.results) == [slow.key]
