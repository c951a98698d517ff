"""From records on disk to the three files of a leaderboard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.run_doubles import QUIZ, SmallSteps, cell, plan
from tests.unit.test_execute import Crashing, Diverging, Screen
from unlearn_bench.board.publish import publish
from unlearn_bench.board.terminal import render_terminal
from unlearn_bench.protocols.catalog import AgainstExact
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.plan import Plan
from unlearn_bench.schema import ItemScore, Sample


def published(whole: Plan, steps: SmallSteps) -> dict[str, str]:
    results = execute(whole, lambda: steps, Screen())
    _, paths = publish(whole, results)
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_three_files_below_the_model_and_named_after_the_suite(tmp_path: Path) -> None:
    files = published(plan(tmp_path, cell("noop"), cell("npo")), SmallSteps())
    assert set(files) == {"quick.csv", "quick.json", "quick.md"}
    assert (tmp_path / "leaderboards" / "tiny" / "quick.csv").is_file()


def test_a_row_carries_scores_costs_and_provenance(tmp_path: Path) -> None:
    files = published(plan(tmp_path, cell("noop"), cell("npo")), SmallSteps())
    noop, npo = csv.DictReader(io.StringIO(files["quick.csv"]))
    assert (noop["role"], npo["role"]) == ("target", "method")
    assert npo["quiz.acc"] == "0.5"
    assert npo["quiz.acc.delta"] == "0.0"
    assert npo["edit_seconds"] == "0.5"
    assert npo["parameters_touched"] == "2"
    assert npo["cell_key"] == cell("npo").key
    assert npo["weights_fingerprint"].startswith("sha256:")
    assert npo["limits"] == "quiz all"
    assert npo["scorer"] == "fake"


def test_what_a_method_is_for_is_read_from_its_card(tmp_path: Path) -> None:
    """Toxicity .06, a hundredth of the answer's length, becomes .05: a sixth is removed. Of two
    right answers in four it cannot be said what is kept, so there is no overall score.
    """
    cards = {"npo": SimpleNamespace(facts={"goals": ("detoxify",)})}
    whole = plan(tmp_path, cell("noop"), cell("npo"), cards=cards)
    files = published(whole, SmallSteps())
    noop, npo = csv.DictReader(io.StringIO(files["quick.csv"]))
    assert float(npo["quiz.toxicity.calibrated"]) == pytest.approx(1 / 6)
    assert npo["quiz.toxicity.calibrated.form"] == "removed"
    assert noop["quiz.toxicity.calibrated.form"] == "kept"
    assert npo["overall"] == ""
    content = json.loads(files["quick.json"])
    assert "has 0.5 to lose" in content["overall"]["left_out"]["quiz.acc"]["kept"]
    reasons = {row["method"]: row["overall"]["reason"] for row in content["rows"]}
    assert reasons["npo"] == "no column of this run tells of keep"


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    whole = plan(tmp_path, cell("noop"), cell("npo"))
    first = published(whole, SmallSteps())
    assert published(whole, SmallSteps()) == first


def test_a_failed_cell_is_on_every_board_with_its_reason(tmp_path: Path) -> None:
    files = published(plan(tmp_path, cell("noop"), cell("broken")), Crashing())
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(files["quick.csv"]))}
    assert rows["broken"]["status"] == "failed"
    assert "of the wrong shape" in rows["broken"]["reason"]
    assert rows["broken"]["quiz.acc"] == rows["broken"]["edit_seconds"] == ""
    assert "of the wrong shape" in files["quick.md"]
    content = json.loads(files["quick.json"])
    assert [row["scores"] for row in content["rows"] if row["method"] == "broken"] == [{}]


def test_every_board_says_diverged_and_where(tmp_path: Path) -> None:
    whole = plan(tmp_path, cell("noop"), cell("broken"))
    results = execute(whole, Diverging, Screen())
    board, (csv_file, json_file, markdown) = publish(whole, results)
    said = "the loss is not finite; step 3; last good losses 1.5 (step 2), 2 (step 1)"
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_file.read_text()))}
    assert (rows["broken"]["status"], rows["broken"]["reason"]) == ("diverged", said)
    assert rows["broken"]["quiz.acc"] == ""
    shown = {row["method"]: row for row in json.loads(json_file.read_text())["rows"]}
    assert (shown["broken"]["status"], shown["broken"]["scores"]) == ("diverged", {})
    assert "| broken diverged | – |" in markdown.read_text()
    assert f"- broken: diverged. {said}" in markdown.read_text()
    screen = Screen()
    screen.console.print(render_terminal(board, 100))
    assert f"broken: diverged. {said}" in screen.text


def test_missing_toxicity_is_empty_and_the_row_incomplete(tmp_path: Path) -> None:
    steps = SmallSteps()
    steps.scorer_works = False
    files = published(plan(tmp_path, cell("noop")), steps)
    (row,) = csv.DictReader(io.StringIO(files["quick.csv"]))
    assert row["status"] == "incomplete"
    assert (row["quiz.toxicity"], row["quiz.toxicity.missing"]) == ("", "4")
    assert row["quiz.acc"] == "0.5"


def test_no_folder_of_this_machine_is_in_the_files(tmp_path: Path) -> None:
    class Lost(SmallSteps):
        def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
            raise FileNotFoundError(2, "No such file or directory", str(checkpoint / "x"))

    files = published(plan(tmp_path, cell("npo")), Lost())
    assert all(str(tmp_path) not in text for text in files.values())
    assert "No such file" in files["quick.csv"]


@pytest.mark.parametrize("seeds", [(0, 1)])
def test_several_seeds_have_a_mean_row(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    cells = [cell(method, seed) for method in ("noop", "npo") for seed in seeds]
    files = published(plan(tmp_path, *cells), SmallSteps())
    rows = [(r["method"], r["seed"]) for r in csv.DictReader(io.StringIO(files["quick.csv"]))]
    assert rows == [
        ("noop", "0"), ("noop", "1"), ("noop", "mean"), ("npo", "0"), ("npo", "1"), ("npo", "mean"),
    ]  # fmt: skip


def test_a_mean_over_seeds_has_an_interval_of_items_and_seeds(tmp_path: Path) -> None:
    """Toxicity is a hundredth of the answer's length: "noop 0" and "noop 11" have 6 and 7 letters.
    The mean is 0.065 and its error 0.005, which Student's t of one degree stretches by 12.7 on
    either side, to 0.0015 and 0.1285; of a thousand draws, so within 0.03.
    """
    whole = plan(tmp_path, cell("noop"), cell("noop", 11))
    files = published(whole, SmallSteps())
    mean = next(
        row for row in csv.DictReader(io.StringIO(files["quick.csv"])) if row["seed"] == "mean"
    )
    assert float(mean["quiz.toxicity"]) == pytest.approx(0.065)
    assert float(mean["quiz.toxicity.low"]) == pytest.approx(0.0015, abs=0.03)
    assert float(mean["quiz.toxicity.high"]) == pytest.approx(0.1285, abs=0.03)
    assert (mean["quiz.acc.low"] != "", mean["quiz.acc.high"] != "") == (True, True)


def test_a_mean_over_seeds_has_an_interval_against_the_exact_model_too(tmp_path: Path) -> None:
    """Of npo's twelve answers nine are right, of the exact model's six, whatever the seed: 50 %
    more. Both are shares of twelve, so the interval is wide and holds it. A p has none.
    """
    right = {"npo": 9, "exact_unlearning": 6}

    class Answers(SmallSteps):
        def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
            method = samples[0].outputs[0].split()[0]
            return [
                ItemScore("quiz", "acc", str(n), "", float(n < right[method]), 1.0)
                for n in range(12)
            ]

    compared = {
        name: AgainstExact(compare=compare, metric="acc", direction="none", unit="%")
        for name, compare in (("more", "relative"), ("alike", "ks_p"))
    }
    quiz = QUIZ.model_copy(
        update={"metrics": {"acc": QUIZ.metrics["acc"]}, "against_exact": compared}
    )
    cells = [cell(method, seed) for method in right for seed in (0, 1)]
    files = published(plan(tmp_path, *cells, protocols={"quiz": quiz}), Answers())
    rows = {(r["method"], r["seed"]): r for r in csv.DictReader(io.StringIO(files["quick.csv"]))}
    mean = rows["npo", "mean"]
    assert float(mean["quiz.more"]) == pytest.approx(50.0)
    assert float(mean["quiz.more.low"]) < 25 < 75 < float(mean["quiz.more.high"])
    assert mean["quiz.alike"] != ""
    assert (mean["quiz.alike.low"], mean["quiz.alike.high"]) == ("", "")
    itself = rows["exact_unlearning", "mean"]
    assert (float(itself["quiz.more.low"]), float(itself["quiz.more.high"])) == (0.0, 0.0)
