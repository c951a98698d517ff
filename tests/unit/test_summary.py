"""What a board adds to its rows, from the cells' items to the files: per seed, and never averaged
over other things.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from unlearn_bench.board.files import render_csv, render_json
from unlearn_bench.board.markdown import render_markdown
from unlearn_bench.board.summary import Cells, trace_notes, with_summary, with_trace
from unlearn_bench.board.table import Board, Column, Role, Row, build_board
from unlearn_bench.board.terminal import render_terminal
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.compare.overall import FORMULA
from unlearn_bench.protocols.catalog import Metric, Protocol
from unlearn_bench.schema import Direction, ItemScore

ROLES: dict[str, Role] = {"noop": "target", "exact_unlearning": "exact"}
GOALS = {"npo": ("forget",), "far": ("forget",), "broken": ("forget",), "dinm": ("detoxify",)}


def task(name: str, mini: bool = False, **metrics: Direction) -> Protocol:
    return Protocol(
        name=name, title="", description="", dataset=name, mini=mini, subtasks=(name,),
        metrics={
            metric: Metric(subtask=name, value=metric, direction=direction, unit="share")
            for metric, direction in metrics.items()
        },
        headline=tuple(metrics), folder=Path("tasks"),
    )  # fmt: skip


FACTS = task("facts", forget_strength="lower", retain_strength="higher")
GENERAL = task("gsm8k_mini", mini=True, exact_match_flexible="higher")
TRUTH = task("truthfulqa", mc2="higher")
Values = Mapping[str, float]
KNOWN: Values = {"forget_strength": 0.9, "retain_strength": 0.8}
GONE: Values = {"forget_strength": 0.1, "retain_strength": 0.8}


def cell_items(protocols: Mapping[str, Protocol], values: Values) -> list[ItemScore]:
    """Six items of every metric; those without a value are not asked."""
    return [
        ItemScore(name, metric, str(n), "", values[metric], 1.0)
        for name, protocol in protocols.items()
        for metric in protocol.metrics
        if metric in values
        for n in range(6)
    ]


def board(cells: Mapping[tuple[str, int], Values | str], *tasks: Protocol) -> Board:
    """cells: a cell's values by metric, or the status of one that has none."""
    protocols = {protocol.name: protocol for protocol in tasks or (FACTS,)}
    items = {
        (method, str(seed)): cell_items(protocols, values)
        for (method, seed), values in cells.items()
        if not isinstance(values, str)
    }
    rows = [
        Row(
            method=method,
            seed=str(seed),
            role=ROLES.get(method, "method"),
            status=values if isinstance(values, str) else "success",
            reason="",
            scores={
                f"{s.task}.{s.metric}": s for s in aggregate(items[method, str(seed)], protocols)
            }
            if (method, str(seed)) in items
            else {},
        )
        for (method, seed), values in cells.items()
    ]
    columns = [
        Column(name, metric, own.direction, own.unit, True)
        for name, protocol in protocols.items()
        for metric, own in protocol.metrics.items()
    ]
    by_metric = {
        key: {
            (row.task, row.metric): [r for r in own if (r.task, r.metric) == (row.task, row.metric)]
            for row in own
        }
        for key, own in items.items()
    }
    ends = ("noop", "exact_unlearning")
    whole = build_board("tiny", "quick", columns, rows, {})
    return with_summary(whole, Cells(protocols, by_metric, GOALS, *ends))


def forget(strength: float, retained: float = 0.8) -> Values:
    return {"forget_strength": strength, "retain_strength": retained}


@pytest.fixture
def usual() -> Board:
    """far forgets one and a half times as much as the exact model: as good as half as much."""
    ends = {"forget_strength": 0.5, "retain_strength": 0.8}
    return board(
        {
            ("noop", 0): KNOWN,
            ("broken", 0): "diverged",
            ("far", 0): forget(0.3),
            ("dinm", 0): forget(0.9),
            ("npo", 0): forget(0.6, 0.6),
            ("exact_unlearning", 0): ends,
        }
    )


def row(whole: Board, method: str, seed: str = "0") -> Row:
    return next(row for row in whole.rows if (row.method, row.seed) == (method, seed))


def test_rows_have_calibrated_and_overall_scores(usual: Board) -> None:
    """npo goes .3 of the way's .4 and keeps .6 of .8: both ¾. far overshoots by half the way."""
    calibrated = {r.method: r.calibrated for r in usual.rows}
    forgotten = {m: c["facts.forget_strength"].value for m, c in calibrated.items() if c}
    assert forgotten == {
        "noop": 0.0, "exact_unlearning": 1.0, "dinm": 0.0,
        "npo": pytest.approx(0.75), "far": pytest.approx(0.5),
    }  # fmt: skip
    overall = {r.method: r.overall.value for r in usual.rows if r.overall}
    assert overall["npo"] == pytest.approx(0.75)
    assert overall["far"] == pytest.approx(2 * 0.5 / 1.5)


def test_a_row_without_an_overall_score_says_why(usual: Board) -> None:
    reasons = {r.method: r.overall.reason for r in usual.rows if r.overall}
    assert reasons["broken"] == "diverged"
    assert reasons["dinm"] == "no column of this run tells of detoxify"
    assert reasons["noop"] == "the method has no goal"
    assert row(usual, "broken").calibrated == {}


def test_rows_for_people_stand_by_overall_and_the_diverged_last(usual: Board) -> None:
    """In the files they stay where they are: by name."""
    shown = [r.method for r in usual.shown_rows()]
    assert shown == ["noop", "exact_unlearning", "npo", "far", "dinm", "broken"]
    assert [r.method for r in usual.rows][2:] == ["broken", "dinm", "far", "npo"]


def test_nothing_reached_stands_above_no_score_and_that_above_a_failure() -> None:
    cells: dict[tuple[str, int], Values | str] = {
        ("noop", 0): KNOWN, ("exact_unlearning", 0): GONE,
        ("broken", 0): "failed", ("dinm", 0): forget(0.9), ("npo", 0): forget(0.9),
    }  # fmt: skip
    whole = board(cells)
    assert row(whole, "npo").overall.value == 0.0  # type: ignore[union-attr]
    assert [r.method for r in whole.shown_rows()][2:] == ["npo", "dinm", "broken"]


def test_every_seed_is_measured_by_its_own_ends() -> None:
    """Seed 0 goes .4 of .8, seed 1 (whose target knows less) .4 of .4: ½ and 1, ¾ in the mean."""
    weak = forget(0.5)
    whole = board(
        {
            ("noop", 0): KNOWN, ("noop", 1): weak,
            ("exact_unlearning", 0): GONE, ("exact_unlearning", 1): GONE,
            ("npo", 0): forget(0.5), ("npo", 1): forget(0.1),
        }
    )  # fmt: skip
    found = [row(whole, "npo", seed).calibrated["facts.forget_strength"] for seed in "01"]
    assert [score.value for score in found] == [pytest.approx(0.5), pytest.approx(1.0)]
    mean = row(whole, "npo", "mean")
    assert mean.calibrated["facts.forget_strength"].value == pytest.approx(0.75)
    assert mean.overall is not None
    assert mean.overall.value == pytest.approx((2 / 3 + 1) / 2)
    assert (mean.overall.low, mean.overall.high) == (0.0, 1.0)  # two seeds leave all open


def test_where_the_exact_model_is_the_target_nothing_is_calibrated() -> None:
    whole = board({("noop", 0): KNOWN, ("exact_unlearning", 0): KNOWN, ("npo", 0): GONE})
    score = row(whole, "npo").calibrated["facts.forget_strength"]
    assert math.isnan(score.value)
    assert "differ by 0, and noise alone" in score.reason
    assert list(whole.left_out) == ["facts.forget_strength"]
    assert row(whole, "npo").calibrated["facts.retain_strength"].value == 1.0
    assert row(whole, "npo").overall.reason == "no column of this run tells of forget"  # type: ignore[union-attr]
    assert not whole.ranked
    assert "overall" not in render_markdown(whole)


def test_without_an_exact_model_only_what_is_kept_is_calibrated() -> None:
    whole = board({("noop", 0): KNOWN, ("npo", 0): forget(0.1, 0.4)})
    found = row(whole, "npo").calibrated
    assert found["facts.forget_strength"].reason == "the run has no exact model"
    assert found["facts.retain_strength"].value == pytest.approx(0.5)


def test_the_files_have_all_of_it(usual: Board) -> None:
    lines = {r["method"]: r for r in csv.DictReader(io.StringIO(render_csv(usual)))}
    npo, broken = lines["npo"], lines["broken"]
    assert float(npo["overall"]) == pytest.approx(0.75)
    assert float(npo["overall.gain"]) == pytest.approx(0.75)
    assert float(npo["overall.low"]) == pytest.approx(0.75)
    assert float(npo["facts.forget_strength.calibrated"]) == pytest.approx(0.75)
    assert npo["facts.forget_strength.calibrated.form"] == "reached"
    assert npo["facts.retain_strength.calibrated.form"] == "kept"
    assert broken["overall"] == broken["facts.forget_strength.calibrated"] == ""
    content = json.loads(render_json(usual), parse_constant=pytest.fail)
    rows = {r["method"]: r for r in content["rows"]}
    assert content["overall"]["formula"] == FORMULA
    assert content["overall"]["columns"] == {
        "forget": ["facts.forget_strength"], "update": [], "detoxify": [],
        "keep": ["facts.retain_strength"],
    }  # fmt: skip
    assert rows["npo"]["overall"]["gains"] == {"forget": pytest.approx(0.75)}
    assert rows["broken"]["overall"]["value"] is None
    assert rows["broken"]["overall"]["reason"] == "diverged"
    assert rows["far"]["calibrated"]["facts.forget_strength"]["high"] == pytest.approx(0.5)


def test_people_see_the_formula_beside_the_number(usual: Board) -> None:
    text = render_markdown(usual)
    assert "| npo | **0.75 [0.75, 0.75]** |" in text
    assert "harmonic mean of gain and keep" in text
    assert "- keep: facts.retain\\_strength" in text
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(render_terminal(usual, 90))
    shown = console.export_text()
    assert "0.75 [0.75, 0.75]*" in shown
    assert "harmonic mean of gain and keep" in shown
    assert max(map(len, shown.splitlines())) <= 90


def traced(**methods: Values) -> Board:
    ends: dict[tuple[str, int], Values | str] = {
        ("noop", 0): {"exact_match_flexible": 0.2, "mc2": 0.4},
        **{(method, 0): values for method, values in methods.items()},
    }
    return board(ends, GENERAL, TRUTH)


def test_traces_delta_is_the_mean_over_the_tasks_that_are_named() -> None:
    """.2 → .3 and .4 → .3: +.1 and −.1; then +.1 and +.3."""
    whole = traced(
        npo={"exact_match_flexible": 0.3, "mc2": 0.3}, far={"exact_match_flexible": 0.3, "mc2": 0.7}
    )
    assert whole.trace["general_ability"] == ("truthfulqa", "gsm8k_mini")
    assert row(whole, "npo").trace == {"general_ability": pytest.approx(0.0)}
    assert row(whole, "far").trace == {"general_ability": pytest.approx(0.2)}
    line = next(r for r in csv.DictReader(io.StringIO(render_csv(whole))) if r["method"] == "far")
    assert float(line["trace.general_ability"]) == pytest.approx(0.2)
    assert line["trace.safety"] == ""
    content = json.loads(render_json(whole))
    assert content["trace"]["general_ability"] == ["truthfulqa", "gsm8k_mini"]
    assert content["rows"][0]["trace"]["safety"] is None
    text = render_markdown(whole)
    assert "trace.general_ability ↑" in text
    assert "trace.safety" not in text
    assert "| +0.200 ± 0.000 |" in text
    assert "of truthfulqa, gsm8k\\_mini" in text


def test_a_row_that_lacks_a_task_has_no_delta_over_the_others() -> None:
    """Over mc2 alone it would be +.5, which no other row's number can be read beside."""
    whole = traced(
        npo={"exact_match_flexible": math.nan, "mc2": 0.9},
        far={"exact_match_flexible": 0.3, "mc2": 0.3},
    )
    assert row(whole, "npo").trace == {}
    assert "general_ability" in row(whole, "far").trace


def test_traces_delta_over_seeds_is_the_mean_of_the_seeds_own() -> None:
    start = {"exact_match_flexible": 0.2, "mc2": 0.4}
    whole = board(
        {
            ("noop", 0): start, ("noop", 1): start,
            ("npo", 0): {"exact_match_flexible": 0.3, "mc2": 0.5},
            ("npo", 1): {"exact_match_flexible": math.nan, "mc2": 0.9},
        },
        GENERAL, TRUTH,
    )  # fmt: skip
    assert row(whole, "npo", "mean").trace == {"general_ability": pytest.approx(0.1)}


def test_a_delta_has_its_error_in_every_file() -> None:
    """Six items of each task that all move alike: no spread. Of a row without a delta, nothing."""
    whole = traced(
        npo={"exact_match_flexible": math.nan, "mc2": 0.9},
        far={"exact_match_flexible": 0.3, "mc2": 0.7},
    )
    lines = {r["method"]: r for r in csv.DictReader(io.StringIO(render_csv(whole)))}
    ends = ("", ".stderr", ".low", ".high")
    far, npo = (
        [lines[name][f"trace.general_ability{end}"] for end in ends] for name in ("far", "npo")
    )
    assert [float(cell) for cell in far] == pytest.approx([0.2, 0.0, 0.2, 0.2], abs=1e-9)
    assert npo == [""] * 4
    rows = {r["method"]: r for r in json.loads(render_json(whole))["rows"]}
    assert rows["far"]["trace_errors"]["general_ability"]["low"] == pytest.approx(0.2)
    assert rows["npo"]["trace_errors"] == {}
    (note,) = trace_notes(whole)
    assert note.endswith("of truthfulqa, gsm8k_mini")


def test_a_row_without_items_keeps_the_error_of_the_same_delta_only() -> None:
    whole = traced(far={"exact_match_flexible": 0.3, "mc2": 0.7})
    assert row(with_trace(whole), "far").trace_errors == row(whole, "far").trace_errors
    scores = {"gsm8k_mini.exact_match_flexible": 0.1, "truthfulqa.mc2": 0.4}
    rows = [
        replace(r, scores={n: replace(s, value=scores[n]) for n, s in r.scores.items()})
        if r.role == "target" else r
        for r in whole.rows
    ]  # fmt: skip
    assert row(with_trace(replace(whole, rows=tuple(rows))), "far").trace_errors == {}
