"""How long a run still takes, with cells whose times are made up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench import commands
from unlearn_bench.runs import detectable, outlook
from unlearn_bench.runs import execute as execution
from unlearn_bench.runs.estimate import Estimate
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.time_left import TimeLeft
from unlearn_bench.schema import Sample


def estimate(edit: float, evaluate: float) -> Estimate:
    return Estimate(edit, evaluate, 0.0, measured=False)


def test_before_anything_ended_it_is_the_sum_of_the_estimates() -> None:
    assert TimeLeft({"a": estimate(10, 30), "b": estimate(20, 30)}).seconds == 90


def test_edits_and_evaluations_are_corrected_apart() -> None:
    """b is left: its edit was estimated at 20. The typical edit is (10 + 20) / 2 = 15, so a's 25
    in place of 10 corrects edits by (25 + 15) / (10 + 15) = 1.6; evaluations by 60 / 30 = 2.
    20 x 1.6 + 30 x 2 = 92.
    """
    left = TimeLeft({"a": estimate(10, 30), "b": estimate(20, 30)})
    left.count("a", {"edit": 25, "evaluate": 50, "score": 10})
    assert left.seconds == pytest.approx(92)


def test_the_unedited_target_teaches_nothing_about_edits() -> None:
    """The first cell of most runs: no edit was expected and none was made."""
    left = TimeLeft({"noop": estimate(0, 30), "b": estimate(20, 30)})
    left.count("noop", {"edit": 0, "evaluate": 13, "score": 2})
    assert left.seconds == pytest.approx(20 + 15)


def test_a_step_that_was_not_reached_teaches_nothing() -> None:
    """a failed while it was asked: its evaluation says nothing of b's."""
    left = TimeLeft({"a": estimate(20, 30), "b": estimate(20, 30)})
    left.count("a", {"edit": 20, "evaluate": 1})
    assert left.seconds == 50


def test_it_runs_down_within_a_cell() -> None:
    """To what the other cells take, and no further, however long this one does."""
    now = [100.0]
    left = TimeLeft({"a": estimate(10, 30), "b": estimate(20, 30)}, clock=lambda: now[0])
    left.begin("a")
    assert left.seconds == 90
    now[0] += 15
    assert left.seconds == 75
    now[0] += 1000
    assert left.seconds == 50
    left.count("a", {"edit": 10, "evaluate": 30, "score": 0})
    assert left.seconds == 50
    left.begin("b")
    now[0] += 20
    assert left.seconds == 30


def test_nothing_is_said_when_nothing_is_left() -> None:
    left = TimeLeft({"a": estimate(200, 30)})
    assert str(left) == "about 4 min left"
    left.count("a", {"edit": 20, "evaluate": 1, "score": 1})
    assert str(left) == ""


def test_a_run_says_it_at_every_cells_end(tmp_path: Path) -> None:
    """Each edit is expected to take 100 minutes and takes none: with the weight of one typical edit
    the second one's expectation is halved.
    """
    screen = Screen()
    cells = [cell("noop"), cell("npo")]
    execute(plan(tmp_path, *cells), SmallSteps, screen, [estimate(6000, 60), estimate(6000, 60)])
    ends = [line for line in screen.text.splitlines() if "success" in line]
    assert ends[0].endswith("; about 50 min left")
    assert ends[1].endswith("score 0.0 s)")


@pytest.mark.parametrize(("expected", "first", "other"), [(60, 92, 60), (45, 24, 8)])
def test_the_engines_start_teaches_nothing_of_the_cells_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: float, first: float, other: float
) -> None:
    """The first evaluation starts the engine: in the second case 16 s, and then every one takes 8.
    What is left after the first cell is right however wrong the estimates were.
    """
    now = [0.0]
    monkeypatch.setattr(execution, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Starting(SmallSteps):
        def evaluate(self, *given: Any) -> tuple[list[Sample], Any]:
            now[0] += other + self.start_seconds()
            return super().evaluate(*given)

        def start_seconds(self) -> float:
            return first - other if not any("noop 1" in call for call in self.calls) else 0.0

    screen, cells = Screen(), [cell("noop", seed) for seed in range(16)]
    results = execute(
        plan(tmp_path, *cells), Starting, screen, [estimate(0, expected)] * len(cells)
    )
    ends = [line for line in screen.text.splitlines() if ": success" in line]
    assert ends[0].endswith(f"; about {15 * other / 60:.0f} min left")
    assert [r.record.seconds["evaluate"] for r in results] == pytest.approx([other] * 16)
    assert results[0].record.seconds["start"] == first - other
    assert "start" not in results[1].record.seconds


def test_what_is_only_judged_again_is_not_expected_to_be_asked_again(tmp_path: Path) -> None:
    """Nor does its old evaluation, which stands in its record, count as a new one."""
    steps = SmallSteps()
    steps.scorer_works = False
    execute(plan(tmp_path, cell("noop")), lambda: steps, Screen())
    screen = Screen()
    cells = [cell("noop"), cell("npo")]
    execute(plan(tmp_path, *cells), SmallSteps, screen, [estimate(0, 6000), estimate(0, 600)])
    ends = [line for line in screen.text.splitlines() if ": success" in line]
    assert ends[0].endswith("; about 10 min left")


def test_what_is_done_already_is_said_once_and_not_expected_again(tmp_path: Path) -> None:
    execute(plan(tmp_path, cell("noop")), SmallSteps, Screen())
    screen = Screen()
    cells = [cell("noop"), cell("npo"), cell("pdu")]
    execute(plan(tmp_path, *cells), SmallSteps, screen, [estimate(6000, 0)] * 3)
    first, *rest = screen.text.splitlines()
    assert "3 cells; known in" in first
    assert first.endswith("under these very settings: 1 success; a success is not computed again")
    assert any(line.endswith("cell 1/3 noop seed 0: already done") for line in rest)
    assert sum("about 50 min left" in line for line in rest) == 1


def test_a_dry_run_says_what_is_done_and_counts_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three cells ended well, the first did not and is computed again; then the
    second's samples are altered, so that it counts as none.
    """
    cells = [cell("npo"), cell("noop"), cell("pdu")]
    execute(plan(tmp_path, cells[1]), SmallSteps, Screen())
    own = plan(tmp_path, *cells)
    monkeypatch.setattr(outlook, "estimate_cells", lambda plan: [estimate(600, 0)] * 3)
    monkeypatch.setattr(outlook, "estimate_preparation", lambda plan: 120.0)
    monkeypatch.setattr(detectable, "detectable_effects", lambda plan: [])

    def said() -> list[str]:
        console = Console(width=200, record=True, file=io.StringIO())
        commands.print_plan(own, console)
        lines = console.export_text().splitlines()
        return [line for line in lines if line.startswith(("cell", "total"))]

    *rows, total = said()
    assert ["done" in row.split() for row in rows] == [False, True, False]
    assert total.startswith("total   3 cells of which 1 done; the rest about 20 min, estimated")
    assert "preparing the models takes about 2 min" in total
    console = Console(width=40, file=io.StringIO())
    commands.print_plan(own, console, as_json=True)
    told = json.loads(console.file.getvalue())
    assert [one["done"] for one in told["cells"]] == [False, True, False]
    assert [one["key"] for one in told["cells"]] == [one.key for one in cells]
    total_json = {"cells": 3, "done": 1, "seconds": 1200.0, "preparation_seconds": 120.0}
    assert told["total"] == total_json
    (stored,) = tmp_path.glob("cells/*/samples.parquet")
    stored.write_bytes(b"other")
    assert said()[-1].startswith("total   3 cells, about 30 min, estimated")
