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
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import Edited
from unlearn_bench.runs.estimate import Estimate
from unlearn_bench.runs.execute import Session
from unlearn_bench.runs.plan import Cell

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


def nothing_has_come(waiting: list[str], **limits: float) -> tuple[list[str], list[str]]:
    return [], waiting


def test_a_cell_that_takes_too_long_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 s, 9 went into the edit on another process: 5 s of questions are too many."""
    slow, quick = cell("npo"), cell("simnpo")
    killed: list[str] = []
    monkeypatch.setattr(cluster.ray, "kill", killed.append)
    monkeypatch.setattr(cluster.ray, "wait", nothing_has_come)
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


def dispatch(
    output: Path, tasks: dict[str, _Task], *waiting: Cell, **settings: float
) -> Dispatcher:
    """At work on these tasks, with these cells edited and not yet asked; nobody is really there."""
    cells = [*waiting, *(task.cell for task in tasks.values() if task.cell)]
    session = Session(plan(output, *cells), SmallSteps, Screen())
    given = Job(settings, "", "", "", tuple(one.key for one in cells))
    asks = deque((one, Edited(one.method, "", {}, {})) for one in waiting)
    return Dispatcher(
        session, given, lambda result: None, {}, deque(), deque(), asks=asks, busy=dict(tasks)
    )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ray without processes: none has answered; the names of those that were ended."""
    ended: list[str] = []
    monkeypatch.setattr(cluster.ray, "kill", ended.append)
    monkeypatch.setattr(cluster.ray, "wait", nothing_has_come)
    return ended


def finished(output: Path, one: Cell, *, scorer_works: bool = True) -> store.Record:
    """What a process wrote that ended the cell, by really computing it."""
    steps = SmallSteps()
    steps.scorer_works = scorer_works
    session = Session(plan(output, one), lambda: steps, Screen())
    edited = session.edit(one)
    assert isinstance(edited, Edited)
    return session.ask(one, edited).record


def edited_model(output: Path, one: Cell) -> Path:
    session = Session(plan(output, one), SmallSteps, Screen())
    session.edit(one)
    (model,) = session.folder(one).glob("*/weights")
    return model


def stored(output: Path, one: Cell) -> store.Record | None:
    return store.read_record(store.cell_folder(output, one.key, one.method, 0), one.key)


@pytest.mark.parametrize("scorer_works", [True, False])
def test_an_interrupt_leaves_cells_that_had_ended_and_no_model(
    tmp_path: Path, nobody: list[str], scorer_works: bool
) -> None:
    """One was finished and its process had not said so, one was being asked, one was waiting."""
    ended, asked, waiting = cell("npo"), cell("simnpo"), cell("rmu")
    record = finished(tmp_path, ended, scorer_works=scorer_works)
    models = [edited_model(tmp_path, one) for one in (asked, waiting)]
    tasks = {
        "1": _Task("a", "ask", ended, Edited("", "", {}, {})),
        "2": _Task("b", "ask", asked, Edited("", "", {}, {})),
    }
    dispatcher = dispatch(tmp_path, tasks, waiting)
    dispatcher.keep = lambda result: pytest.fail("nothing ended")
    dispatcher._hire = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        dispatcher.run()
    assert nobody == ["a", "b"]
    assert stored(tmp_path, ended) == record
    for one in (asked, waiting):
        found = stored(tmp_path, one)
        assert found is not None
        assert found.status == "cancelled"
    assert not any(model.exists() for model in models)


def interrupted() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_while_answers_are_judged_again_keeps_them(
    tmp_path: Path, nobody: list[str]
) -> None:
    one = cell("npo")
    record = finished(tmp_path, one, scorer_works=False)
    dispatch(tmp_path, {"1": _Task("a", "judge", one)})._cancel()
    assert stored(tmp_path, one) == record


def test_a_cell_that_ended_before_its_process_was_lost_is_not_asked_again(
    tmp_path: Path, nobody: list[str]
) -> None:
    one = cell("npo")
    record = finished(tmp_path, one)
    task = _Task("a", "ask", one, Edited("npo", "", {}, {}))
    dispatcher = dispatch(tmp_path, {})
    dispatcher.session = Session(plan(tmp_path, one), SmallSteps, Screen())
    dispatcher._lose(task, RuntimeError("the node is gone"))
    assert dispatcher.results[one.key].record == record
    assert not dispatcher.asks


def test_one_that_had_not_ended_is(tmp_path: Path, nobody: list[str]) -> None:
    one = cell("npo")
    edited_model(tmp_path, one)
    task = _Task("a", "ask", one, Edited("npo", "", {}, {}))
    dispatcher = dispatch(tmp_path, {"1": task})
    dispatcher._lose(task, RuntimeError("the node is gone"))
    assert not dispatcher.results
    assert [asked for asked, _ in dispatcher.asks] == [one]


def test_time_in_which_an_answer_lay_unread_is_not_the_cells(
    tmp_path: Path, nobody: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher was uploading another cell; this one's process had answered long before."""
    task = _Task("a", "ask", cell("npo"), began=time.monotonic() - 100)
    dispatcher = dispatch(tmp_path, {"answered": task}, time_limit=10.0)
    monkeypatch.setattr(cluster.ray, "wait", lambda waiting, **limits: (waiting, []))
    dispatcher._end_late()
    assert list(dispatcher.busy) == ["answered"]
    assert not nobody


def test_a_success_stands_although_its_process_was_ended_as_late(
    tmp_path: Path, nobody: list[str]
) -> None:
    one = cell("npo")
    record = finished(tmp_path, one)
    task = _Task("a", "ask", one, began=time.monotonic() - 100)
    dispatcher = dispatch(tmp_path, {"1": task}, time_limit=10.0)
    dispatcher._end_late()
    assert nobody == ["a"]
    assert dispatcher.results[one.key].record == stored(tmp_path, one) == record


def test_processes_lost_while_they_open_are_counted_until_one_has_opened(
    tmp_path: Path, nobody: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spot machines that vanish days apart do not end the run, three in a row do."""
    dispatcher = dispatch(tmp_path, {})
    gone = RuntimeError("the node is gone")
    for _ in range(cluster.LOSSES - 1):
        dispatcher._lose(_Task("a", "open"), gone)
    dispatcher.busy["1"] = _Task("b", "open")
    monkeypatch.setattr(cluster.ray, "get", lambda reference: ("node", ""))
    dispatcher._take("1")
    for _ in range(cluster.LOSSES - 1):
        dispatcher._lose(_Task("a", "open"), gone)
    with pytest.raises(UnlearnBenchError, match="no process of the cluster stays alive"):
        dispatcher._lose(_Task("a", "open"), gone)
