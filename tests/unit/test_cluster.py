"""What a process of a cluster refuses, and what it is given of a node. No cluster is started."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_cli import invoke
from tests.unit.test_execute import Screen
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs import demand, store
from unlearn_bench.runs.contract import Edited
from unlearn_bench.runs.demand import NOBODY, Needs, Task, together
from unlearn_bench.runs.execute import Session
from unlearn_bench.runs.footprint import ENGINE_BYTES, PROCESS_BYTES, Shape
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


@dataclass
class Hired(Dispatcher):
    """Starts no process: `said` has what each would be given, and on which node."""

    said: list[str] = field(default_factory=list)

    def _begin(self, size: Needs, node: str) -> Any:
        worker = f"{len(self.said)}"
        self.said.append(f"{node}: " + " ".join(f"{n} {size[n]:g}" for n in sorted(size)))
        return worker

    def _start(self, task: _Task, *arguments: Any) -> None:
        name = task.cell.method if task.cell else ""
        self.busy[f"{task.worker} {task.half} {name}".strip()] = task

    def end(self, *named: str) -> None:
        """So that whoever did this is idle."""
        for one in named:
            task = self.busy.pop(one)
            self.idle.append(task.worker)
            self.prepared |= task.half == "prepare"
            if task.half == "edit" and task.cell:
                self.asks.append((task.cell, Edited("", "", {}, {})))

    def work(self) -> list[str]:
        """One round; what is being done then."""
        self._hand_out()
        self._hire()
        return sorted(self.busy)


def on_nodes(monkeypatch: pytest.MonkeyPatch, **nodes: dict[str, float]) -> None:
    listed = [
        {"NodeID": name, "Alive": not name.startswith("dead"), "Resources": resources}
        for name, resources in nodes.items()
    ]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: listed)


def dispatcher_for(output: Path, ask: Needs, prepare: Needs | None = None, **edits: Needs) -> Hired:
    """With cells of these methods to be edited, in this order, and asked."""
    cells = [cell(method) for method in edits]
    needs: dict[tuple[str, Task], Needs] = {(NOBODY, "prepare"): together(*edits.values())}
    for one in cells:
        needs |= {(one.key, "edit"): edits[one.method], (one.key, "ask"): ask}
    session = Session(plan(output, *cells), SmallSteps, Screen())
    given = Job({}, "", "", "", tuple(one.key for one in cells))
    return Hired(session, given, lambda result: None, needs, deque(cells), deque())


def test_a_process_has_what_both_halves_of_its_cell_need_and_fills_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large cell takes 10 of 16; beside it, 6 are left for one of the small ones."""
    on_nodes(monkeypatch, a={"CPU": 8, "memory": 16}, dead={"CPU": 8, "memory": 99})
    small = {"CPU": 1, "memory": 2}
    found = dispatcher_for(
        tmp_path, {"CPU": 1, "memory": 5}, large={"CPU": 1, "memory": 10}, small=small, other=small
    )
    assert found.work() == ["0 open", "1 open"]
    assert found.said == ["a: CPU 1 memory 10", "a: CPU 1 memory 5"]
    found.end("0 open", "1 open")
    assert found.work() == ["0 prepare"]  # by the larger one, and the other waits for it
    found.end("0 prepare")
    assert found.work() == ["0 edit large", "1 edit small"]
    found.end("0 edit large")
    assert found.work() == ["0 ask large", "1 edit small"]  # before the next edit
    assert len(found.said) == 2


def test_what_is_too_large_for_a_process_waits_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node of the large one is lost: the small process takes the other cell, and goes when
    nothing else is left to do and a node has come.
    """
    on_nodes(monkeypatch, a={"CPU": 1, "memory": 4}, b={"CPU": 1, "memory": 9})
    sizes = {"large": {"CPU": 1, "memory": 9}, "small": {"CPU": 1, "memory": 2}}
    found = dispatcher_for(tmp_path, {"CPU": 1, "memory": 2}, **sizes)
    found.work()
    assert found.said == ["b: CPU 1 memory 9", "a: CPU 1 memory 2"]
    found.end("0 open", "1 open")
    found.work()
    found.end("0 prepare")
    assert found.work() == ["0 edit large", "1 edit small"]
    monkeypatch.setattr(cluster.ray, "kill", lambda worker: None)
    on_nodes(monkeypatch, a={"CPU": 1, "memory": 4})
    found._lose(found.busy.pop("0 edit large"), RuntimeError("the node is gone"))
    found.end("1 edit small")
    assert found.work() == ["1 ask small"]
    found.busy.clear()
    found.idle.append("1")
    on_nodes(monkeypatch, a={"CPU": 1, "memory": 12})
    assert found.work() == ["2 open"]
    assert found.said[2:] == ["a: CPU 1 memory 9"]
    assert not found.idle


def test_a_model_spread_for_its_questions_is_edited_on_one_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 GPUs 3 go to a process that can ask; on the fourth is one that only edits, and not
    while a model waits to be asked.
    """
    on_nodes(monkeypatch, a={"CPU": 8, "GPU": 4, "memory": 99})
    edit = {"CPU": 2, "GPU": 1, "memory": 20}
    found = dispatcher_for(tmp_path, {"CPU": 6, "GPU": 3, "memory": 10}, npo=edit, rmu=edit)
    found.work()
    assert found.said == ["a: CPU 6 GPU 3 memory 20", "a: CPU 2 GPU 1 memory 20"]
    found.end("0 open", "1 open")
    found.prepared = True
    assert found.work() == ["0 edit rmu", "1 edit npo"]
    found.end("1 edit npo")
    found.edits.append(cell("simnpo"))
    found.needs = {**found.needs, (cell("simnpo").key, "edit"): edit}
    assert found.work() == ["0 edit rmu"]


def test_a_cell_that_no_node_has_room_for_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_nodes(monkeypatch, a={"CPU": 8, "memory": 5})
    found = dispatcher_for(tmp_path, {"CPU": 1, "memory": 1}, npo={"CPU": 1, "memory": 6})
    with pytest.raises(UsageError, match=r"no node .* has room for a process \(CPU 1, memory 6"):
        found.work()


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cells of a model of 8 billion parameters, of which the first layer is the whole."""
    shape = Shape(32, 4096, 14336, 32, 128_256, {"model.layers.0.mlp.weight": (1000, 8_000_000)})
    monkeypatch.setattr(demand, "read_shape", lambda folder: shape)
    facts = {"kind": "loss", "needs": ("forget", "reference"), "targets": ("*",)}

    def found(nodes: list[Needs], **changes: Any) -> dict[tuple[str, Task], Needs]:
        one = replace(cell("npo"), options={"lr": 1e-5, "batch_size": 8})
        cards = {"npo": SimpleNamespace(facts=facts)}
        model = SimpleNamespace(folder=Path())
        made = plan(Path(), one, cards=cards, model=model, **changes)
        given = demand.needs_of(made, [one], nodes)
        return {("npo" if key else NOBODY, task): need for (key, task), need in given.items()}

    return found


def test_bytes_of_an_edit_on_a_gpu_are_no_main_memory(eight: Any) -> None:
    """177 GB and more of a card; of main memory θ₀ and the edited model, 64 GB. A node of 8 GPUs
    and 1 TB then holds 8 processes, each with 2 of the 16 cores.
    """
    given = eight([{"CPU": 16, "GPU": 8, "memory": 1e12}, {"CPU": 4, "memory": 1e12}])
    assert given["npo", "edit"] == {"CPU": 2, "GPU": 1, "memory": PROCESS_BYTES + 64e9}
    assert given["npo", "ask"] == {"CPU": 2, "GPU": 1, "memory": PROCESS_BYTES + 32e9}
    assert 8 * given["npo", "edit"]["memory"] < 1e12


def test_questions_have_the_gpus_that_vllm_spreads_over(eight: Any) -> None:
    nodes = [{"CPU": 16, "GPU": 8, "memory": 1e12}]
    spread = eight(nodes, engine_args={"tensor_parallel_size": 2, "pipeline_parallel_size": 2})
    assert (spread["npo", "ask"]["GPU"], spread["npo", "ask"]["CPU"]) == (4, 8)
    assert spread["npo", "edit"]["GPU"] == spread["npo", "judge"]["GPU"] == 1
    own = {"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}
    assert eight(nodes, engine_args=own)["npo", "ask"]["GPU"] == 1  # vLLM asks Ray for the others


def test_without_gpus_a_process_takes_the_cores_of_the_smallest_node(eight: Any) -> None:
    """And the edit's whole footprint is main memory: 16 bytes a parameter and θ₀'s 4."""
    given = eight([{"CPU": 8, "memory": 1e12}, {"CPU": 4, "memory": 1e12}], engine="vllm")
    assert given["npo", "edit"]["CPU"] == given["npo", "ask"]["CPU"] == 4
    assert "GPU" not in given["npo", "edit"]
    assert given["npo", "edit"]["memory"] >= 20 * 8e9 + ENGINE_BYTES
    assert given["npo", "ask"]["memory"] == PROCESS_BYTES + 4 * 8e9 + ENGINE_BYTES
    assert given[NOBODY, "prepare"] == given["npo", "edit"]  # by whom it is done afterwards


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
