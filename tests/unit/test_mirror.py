"""Results at a second place: what is copied, what is taken over, what is not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.mirror import Mirror
from unlearn_bench.runs.plan import Cell
from unlearn_bench.runs.progress import Tick
from unlearn_bench.schema import Sample

URL = "memory://bucket/run"


@pytest.fixture(autouse=True)
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, which all addresses of this process share."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def run(output: Path, steps: SmallSteps, *methods: str) -> list[CellResult]:
    made, mirror = plan(output, *map(cell, methods)), Mirror(URL)
    mirror.take_over(made)
    return execute(made, lambda: steps, Screen(), (), mirror.keep)


def copied(files: fsspec.AbstractFileSystem) -> set[str]:
    return {Path(path).name for path in files.find("/bucket/run/cells")}


def test_finished_cells_are_copied_without_checkpoints(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    made = plan(tmp_path, cell("npo"), keep_checkpoints=True)
    (result,) = execute(made, SmallSteps, Screen(), (), Mirror(URL).keep)
    assert (result.folder / "checkpoint").is_dir()
    assert copied(memory) == {*result.record.files, "record.json"}


def test_another_machine_takes_them_over_and_computes_the_rest(tmp_path: Path) -> None:
    (first,) = run(tmp_path / "one", SmallSteps(), "noop")
    steps = SmallSteps()
    results = run(tmp_path / "two", steps, "noop", "npo")
    assert [call for call in steps.calls if call.startswith("edit")] == ["edit npo 0"]
    assert results[0].record == first.record
    assert results[0].folder.is_relative_to(tmp_path / "two")
    steps = SmallSteps()
    run(tmp_path / "three", steps, "noop", "npo")
    assert not steps.calls


def test_a_copy_that_was_cut_short_is_not_taken_over(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    run(tmp_path / "one", SmallSteps(), "noop")
    (record,) = [path for path in memory.find("/bucket") if path.endswith("record.json")]
    memory.rm_file(record)
    assert Mirror(URL).take_over(plan(tmp_path / "two", cell("noop"))) == []


def test_a_copy_that_was_changed_is_computed_again(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    run(tmp_path / "one", SmallSteps(), "noop")
    (scores,) = [path for path in memory.find("/bucket") if path.endswith("scores.json")]
    memory.pipe_file(scores, b"[]")
    steps = SmallSteps()
    (result,) = run(tmp_path / "two", steps, "noop")
    assert "edit noop 0" in steps.calls
    assert result.record.status == "success"
    assert list((tmp_path / "two" / "set-aside").iterdir())


def test_what_is_here_is_not_replaced_by_what_is_there(tmp_path: Path) -> None:
    run(tmp_path / "one", SmallSteps(), "noop")
    assert Mirror(URL).take_over(plan(tmp_path / "one", cell("noop"))) == []


def test_a_place_that_cannot_be_written_ends_the_run_and_keeps_the_cell(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(type(memory), "put_file", refuse)
    with pytest.raises(UnlearnBenchError, match="PermissionError: not yours") as caught:
        run(tmp_path, SmallSteps(), "noop", "npo")
    assert "run the same command again" in str(caught.value)
    wanted = cell("noop")
    folder = store.cell_folder(tmp_path, wanted.key, "noop", 0)
    found = store.read_record(folder, wanted.key)
    assert found is not None
    assert found.status == "success"


def test_what_is_there_already_is_left_as_it_is(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that vanishes while a run goes on must not take finished cells from the mirror."""
    run(tmp_path / "one", SmallSteps(), "noop")
    before = {path: memory.cat_file(path) for path in memory.find("/bucket")}

    def vanish(*args: object, **kwargs: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(type(memory), "put_file", vanish)
    run(tmp_path / "one", SmallSteps(), "noop")
    assert {path: memory.cat_file(path) for path in memory.find("/bucket")} == before


def test_a_cell_that_was_judged_again_replaces_its_copy(tmp_path: Path) -> None:
    steps = SmallSteps()
    steps.scorer_works = False
    run(tmp_path / "one", steps, "npo")
    (second,) = run(tmp_path / "one", SmallSteps(), "npo")
    steps = SmallSteps()
    (taken,) = run(tmp_path / "two", steps, "npo")
    assert not steps.calls
    assert taken.record == second.record


def fails(*methods: str) -> SmallSteps:
    """Steps in which these are not answered."""
    steps = SmallSteps()
    answer = steps.evaluate

    def evaluate(cell: Cell, checkpoint: Path, tick: Tick) -> tuple[list[Sample], object]:
        if cell.method in methods:
            raise ValueError("no answer")
        return answer(cell, checkpoint, tick)

    steps.evaluate = evaluate  # type: ignore[method-assign]
    return steps


def test_a_failure_takes_no_scores_from_the_mirror(tmp_path: Path) -> None:
    """Another machine had finished the cell since this one looked."""
    run(tmp_path / "one", SmallSteps(), "npo")
    made = plan(tmp_path / "two", cell("npo"))
    (failed,) = execute(made, lambda: fails("npo"), Screen(), (), Mirror(URL).keep)
    assert failed.record.status == "failed"
    steps = SmallSteps()
    (result,) = run(tmp_path / "three", steps, "npo")
    assert (result.record.status, steps.calls) == ("success", [])


def test_what_failed_here_and_is_finished_there_is_taken_over(tmp_path: Path) -> None:
    (failed,) = execute(plan(tmp_path / "two", cell("npo")), lambda: fails("npo"), Screen())
    run(tmp_path / "one", SmallSteps(), "npo")
    steps = SmallSteps()
    (result,) = run(tmp_path / "two", steps, "npo")
    assert (result.record.status, steps.calls) == ("success", [])
    assert result.folder == failed.folder
    assert not (result.folder / "traceback.txt").exists()


def test_boards_are_copied_below_the_address(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    board = tmp_path / "leaderboards" / "tiny" / "quick.csv"
    board.parent.mkdir(parents=True)
    board.write_text("method\n")
    Mirror(URL).keep_files([board], tmp_path)
    assert memory.cat_file("/bucket/run/leaderboards/tiny/quick.csv") == b"method\n"


def test_an_address_that_nobody_can_open_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        Mirror("nosuch://bucket/run")
