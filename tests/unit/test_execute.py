"""Cells one after another: what is kept, what is computed again, what a failure leaves behind."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.run_doubles import SmallSteps, cell, plan
from unlearn_bench.board.publish import publish
from unlearn_bench.errors import CancelledError, DivergedError, UnlearnBenchError
from unlearn_bench.runs import store
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.mirror import Mirror
from unlearn_bench.runs.progress import Reporter


class Screen(Reporter):
    """A reporter that remembers its plain lines."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        super().__init__(console=Console(file=self.stream, width=500))

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def run(output: Path, steps: SmallSteps, *cells: Any, **changes: Any) -> list[CellResult]:
    return execute(plan(output, *cells, **changes), lambda: steps, Screen())


def test_a_cell_leaves_every_file_and_its_hash(tmp_path: Path) -> None:
    (result,) = run(tmp_path, SmallSteps(), cell("npo"))
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "plan.json", "account.json", "samples.parquet", "items.parquet", "scores.json",
        "provenance.json", "record.json",
    }  # fmt: skip
    assert set(result.record.files) == names - {"record.json"}
    assert result.record.status == "success"
    assert set(result.record.seconds) == {"edit", "evaluate", "score"}
    account = json.loads((result.folder / "account.json").read_text())
    assert (account["parameters_touched"], account["delta_norm"]) == (2, 3.0)
    provenance = json.loads((result.folder / "provenance.json").read_text())
    assert provenance["load_proof"]["loaded"]
    named = json.loads((result.folder / "plan.json").read_text())["named"]
    assert named == {"slug": "tiny", "label": "Tiny", "edit_set": ""}


def test_a_second_run_computes_nothing_and_opens_no_engine(tmp_path: Path) -> None:
    first = run(tmp_path, SmallSteps(), cell("noop"), cell("npo"))

    def never() -> SmallSteps:
        raise AssertionError("a finished run must not open the engine")

    again = execute(plan(tmp_path, cell("noop"), cell("npo")), never, Screen())
    assert [r.record for r in again] == [r.record for r in first]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"engine": {"dtype": "bfloat16"}}, {"target": "other weights"}, {"data": "x"}],
)
def test_whatever_determines_a_number_makes_another_cell(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    run(tmp_path, SmallSteps(), cell("npo"))
    steps = SmallSteps()
    (result,) = run(tmp_path, steps, cell("npo", **change))
    assert any(call.startswith("edit") for call in steps.calls)
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert result.record.key == cell("npo", **change).key != cell("npo").key


def test_only_missing_cells_are_computed(tmp_path: Path) -> None:
    run(tmp_path, SmallSteps(), cell("noop"))
    steps = SmallSteps()
    run(tmp_path, steps, cell("noop"), cell("npo"))
    assert steps.calls == ["prepare", "edit npo 0", "evaluate npo 0", "score", "close"]


class Diverging(SmallSteps):
    def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        if cell.method == "broken":
            last = {"step 2": 1.5, "step 1": 2.0}
            raise DivergedError("the loss is not finite", step=3, last_losses=last)
        return super().edit(cell, checkpoint, tick)


class Crashing(SmallSteps):
    def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        if cell.method == "broken":
            raise RuntimeError("a matrix of the wrong shape")
        return super().edit(cell, checkpoint, tick)


def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    steps = Crashing()
    results = run(tmp_path, steps, cell("noop"), cell("broken"), cell("npo"))
    assert [r.record.status for r in results] == ["success", "failed", "success"]
    assert results[1].record.reason == "RuntimeError: a matrix of the wrong shape"
    assert "RuntimeError" in (results[1].folder / "traceback.txt").read_text()
    assert not (results[1].folder / "scores.json").exists()
    assert "reset" in steps.calls  # an engine in an unknown state answers no more questions


def test_divergence_is_no_crash_and_says_the_step_and_the_last_good_losses(tmp_path: Path) -> None:
    """The engine has nothing to do with it and serves the next cell."""
    steps = Diverging()
    results = run(tmp_path, steps, cell("noop"), cell("broken"), cell("npo"))
    assert [r.record.status for r in results] == ["success", "diverged", "success"]
    said = "the loss is not finite; step 3; last good losses 1.5 (step 2), 2 (step 1)"
    assert results[1].record.reason == said
    names = {path.name for path in results[1].folder.iterdir()}
    assert names == {"plan.json", "record.json"}
    assert "reset" not in steps.calls
    assert store.read_record(results[1].folder, results[1].record.key) == results[1].record


def test_a_failed_cell_is_tried_again(tmp_path: Path) -> None:
    run(tmp_path, Diverging(), cell("broken"))
    (result,) = run(tmp_path, SmallSteps(), cell("broken"))
    assert result.record.status == "success"
    assert not (result.folder / "traceback.txt").exists()


def test_a_scorer_that_fails_makes_the_cell_incomplete_and_no_zero(tmp_path: Path) -> None:
    steps = SmallSteps()
    steps.scorer_works = False
    (result,) = run(tmp_path, steps, cell("npo"))
    assert result.record.status == "incomplete"
    assert result.record.reason == "quiz.toxicity: 4 of 4 missing"
    scores = {s.metric: s for s in store.read_scores(result.folder / "scores.json")}
    assert str(scores["toxicity"].value) == "nan"
    assert (scores["toxicity"].n, scores["toxicity"].missing) == (0, 4)
    assert scores["acc"].value == 0.5


class Wordless(SmallSteps):
    def score(self, samples: Any, tick: Any) -> Any:
        return [
            replace(item, value=math.nan) if item.metric == "acc" else item
            for item in super().score(samples, tick)
        ]


def test_a_value_that_no_judge_could_give_is_counted_and_the_cell_is_finished(
    tmp_path: Path,
) -> None:
    """Asking again would not help: the cell is a success with an empty column."""
    (result,) = run(tmp_path, Wordless(), cell("npo"))
    assert result.record.status == "success"
    scores = {s.metric: s for s in store.read_scores(result.folder / "scores.json")}
    assert (scores["acc"].n, scores["acc"].missing) == (0, 4)


def test_an_incomplete_cell_is_judged_again_without_the_model(tmp_path: Path) -> None:
    steps = SmallSteps()
    steps.scorer_works = False
    (before,) = run(tmp_path, steps, cell("npo"))
    steps = SmallSteps()
    (after,) = run(tmp_path, steps, cell("npo"))
    assert steps.calls == ["prepare", "score", "close"]
    assert after.record.status == "success"
    assert after.record.seconds["edit"] == before.record.seconds["edit"]
    assert store.read_record(after.folder, after.record.key) == after.record


class Unjudging(SmallSteps):
    """Its scorer takes the run with it."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self.raised = raised

    def score(self, samples: Any, tick: Any) -> Any:
        raise self.raised


def incomplete(output: Path, *cells: Any) -> list[store.Record]:
    steps = SmallSteps()
    steps.scorer_works = False
    return [one.record for one in run(output, steps, *cells)]


def unfinished(record: store.Record | None) -> store.Record:
    """Without the time at which it was judged."""
    assert record is not None
    assert record.finished
    return replace(record, finished="")


def test_ctrl_c_while_judging_again_leaves_the_answers(tmp_path: Path) -> None:
    (before,) = incomplete(tmp_path, cell("npo"))
    with pytest.raises(CancelledError):
        run(tmp_path, Unjudging(KeyboardInterrupt()), cell("npo"))
    folder = store.cell_folder(tmp_path, before.key, "npo", 0)
    assert unfinished(store.read_record(folder, before.key)) == unfinished(before)
    steps = SmallSteps()
    (after,) = run(tmp_path, steps, cell("npo"))
    assert steps.calls == ["prepare", "score", "close"]
    assert after.record.status == "success"


@pytest.mark.parametrize("error", [RuntimeError("no such layer"), DivergedError(
    "what the guard answers is not finite", step=None, last_losses={})])  # fmt: skip
def test_a_scorer_that_breaks_while_judging_again_leaves_the_answers(
    tmp_path: Path, error: Exception
) -> None:
    """And the cells after it are computed."""
    (before,) = incomplete(tmp_path, cell("npo"))
    screen = Screen()
    cells = plan(tmp_path, cell("npo"), cell("last"))
    results = execute(cells, lambda: Unjudging(error), screen)
    assert str(error).partition("\n")[0] in screen.text
    assert results[1].record.status in ("failed", "diverged")
    assert unfinished(results[0].record) == unfinished(before)
    steps = SmallSteps()
    (after,) = run(tmp_path, steps, cell("npo"))
    assert steps.calls == ["prepare", "score", "close"]
    assert {path.name for path in after.folder.iterdir()} == {*after.record.files, "record.json"}


class Unwelcome(Screen):
    """Its reader is gone when the first success is to be told."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self.raised = raised

    def say(self, text: str) -> None:
        if "success (" in text:
            raise self.raised
        super().say(text)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), BrokenPipeError("nobody reads")])
def test_a_success_that_was_written_stands(tmp_path: Path, raised: BaseException) -> None:
    """Whatever happens between its record and the next cell."""
    with contextlib.suppress(CancelledError):
        execute(plan(tmp_path, cell("npo")), SmallSteps, Unwelcome(raised))
    steps = SmallSteps()
    (result,) = run(tmp_path, steps, cell("npo"))
    assert result.record.status == "success"
    assert steps.calls == []


def test_a_name_that_the_disk_does_not_take_costs_its_own_cell_only(tmp_path: Path) -> None:
    name = "x" * 300
    kept: list[str] = []
    whole = plan(tmp_path, cell(name), cell("npo"))
    screen = Screen()
    mirror = Mirror(f"file://{tmp_path}/mirror")
    results = execute(
        whole, SmallSteps, screen, keep=lambda one: (mirror.keep(one), kept.append(one.cell.method))
    )
    assert [one.record.status for one in results] == ["failed", "success"]
    assert "not recorded: [Errno 36] File name too long" in screen.text
    assert kept == [name, "npo"]
    assert len(list((tmp_path / "mirror" / "cells").iterdir())) == 1
    board, _ = publish(whole, results)
    assert {row.method: row.status for row in board.rows} == {name: "failed", "npo": "success"}


def test_a_disk_that_does_not_answer_sets_no_finished_cell_aside(tmp_path: Path) -> None:
    """Linux answers EIO to who reads a process's memory at address 0."""
    (before,) = run(tmp_path / "out", SmallSteps(), cell("npo"))
    path = before.folder / "record.json"
    path.rename(tmp_path / "kept")
    path.symlink_to("/proc/self/mem")
    with pytest.raises(UnlearnBenchError, match="cannot be read: Input/output error") as caught:
        run(tmp_path / "out", SmallSteps(), cell("npo"))
    assert caught.value.exit_code == 3
    path.unlink()
    (tmp_path / "kept").rename(path)
    steps = SmallSteps()
    (after,) = run(tmp_path / "out", steps, cell("npo"))
    assert after.record == before.record
    assert steps.calls == []


def test_checkpoints_go_unless_they_are_asked_for(tmp_path: Path) -> None:
    (gone,) = run(tmp_path / "a", SmallSteps(), cell("npo"))
    (kept,) = run(tmp_path / "b", SmallSteps(), cell("npo"), keep_checkpoints=True)
    assert not (gone.folder / "checkpoint").exists()
    assert (kept.folder / "checkpoint" / "weights").read_text() == "npo"


@pytest.mark.parametrize("name", ["record.json", "scores.json", "samples.parquet"])
def test_a_damaged_cell_is_set_aside_named_and_computed_again(tmp_path: Path, name: str) -> None:
    (before,) = run(tmp_path, SmallSteps(), cell("npo"))
    path = before.folder / name
    path.write_bytes(path.read_bytes().replace(b"npo", b"opn") + b" ")
    if name == "record.json":
        path.write_bytes(b"{")
    steps, screen = SmallSteps(), Screen()
    (after,) = execute(plan(tmp_path, cell("npo")), lambda: steps, screen)
    assert after.record.status == "success"
    assert "edit npo 0" in steps.calls
    (aside,) = (tmp_path / "set-aside").iterdir()
    assert str(aside) in screen.text.replace("\n", "")
    assert name in screen.text or "record is damaged" in screen.text


def test_a_started_record_of_a_killed_run_is_no_result(tmp_path: Path) -> None:
    killed = cell("npo")
    folder = store.cell_folder(tmp_path, killed.key, "npo", 0)
    store.write_record(folder, store.Record("npo", 0, killed.key, "started"))
    (folder / "leftover.txt").write_text("half")
    (result,) = run(tmp_path, SmallSteps(), killed)
    assert result.record.status == "success"
    assert not (folder / "leftover.txt").exists()


def test_a_method_name_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    from unlearn_bench.errors import UsageError

    with pytest.raises(UsageError):
        run(tmp_path / "out", SmallSteps(), cell("/../../../evil"))
    assert not (tmp_path / "evil").exists()


def test_plain_lines_say_which_cell_and_step(tmp_path: Path) -> None:
    screen = Screen()
    execute(plan(tmp_path, cell("noop"), cell("npo")), SmallSteps, screen)
    assert "cell 2/2 npo seed 0: evaluate" in screen.text
    assert "cell 1/2 noop seed 0: success (edit 0.0 s, evaluate 0.0 s, score 0.0 s)" in screen.text
