"""The leaderboard's files: readable by programs, honest about what is missing, safe to open."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from unlearn_bench.board.files import PARTS, render_csv, render_json, safe_text
from unlearn_bench.board.markdown import render_markdown
from unlearn_bench.board.table import (
    Board,
    Column,
    Role,
    Row,
    best_methods,
    build_board,
    figure,
    public_text,
)
from unlearn_bench.board.terminal import render_terminal
from unlearn_bench.schema import Score

FORGET = Column("fur", "forget.choice_acc", "nearer_exact", "share", True)
UTILITY = Column("gsm8k", "exact_match_strict", "higher", "share", True)
DETAIL = Column("wikitext", "word_perplexity", "lower", "", False)
COLUMNS = (FORGET, UTILITY, DETAIL)


def score(column: Column, value: float, n: int = 10, missing: int = 0) -> Score:
    return Score(column.task, column.metric, value, 0.1, n, missing, column.direction, column.unit)


def row(
    method: str, *values: float, role: Role = "method", seed: int = 0, status: str = "success",
    reason: str = "", **provenance: str,
) -> Row:  # fmt: skip
    pairs = zip(COLUMNS, values, strict=False)
    return Row(
        method=method,
        seed=str(seed),
        role=role,
        status=status,
        reason=reason,
        scores={column.name: score(column, value) for column, value in pairs},
        costs={"edit_seconds": 1.5, "parameters_touched": 7} if values else {},
        provenance={"engine": "vllm", "options": "{}"} | provenance,
    )


def board(*rows: Row) -> Board:
    return build_board("smollm2-135m", "quick", COLUMNS, rows, {"limits": {"fur": None}})


@pytest.fixture
def usual() -> Board:
    return board(
        row("npo", 0.4, 0.1, 20.0),
        row("noop", 0.9, 0.2, 10.0, role="target"),
        row("random_noise", 0.3, 0.9, 1.0, role="control"),
        row("broken", status="failed", reason="loss is not finite at step 3"),
        row("exact_unlearning", 0.3, 0.2, 11.0, role="exact"),
        row("grad_diff", 0.1, 0.15, math.inf),
    )


def read(text: str) -> dict[str, dict[str, str]]:
    return {line["method"] + line["seed"]: line for line in csv.DictReader(io.StringIO(text))}


def test_rows_stand_target_exact_contenders_controls(usual: Board) -> None:
    assert [r.method for r in usual.rows] == [
        "noop", "exact_unlearning", "broken", "grad_diff", "npo", "random_noise",
    ]  # fmt: skip


def test_csv_has_every_part_of_every_metric(usual: Board) -> None:
    lines = read(render_csv(usual))
    npo = lines["npo0"]
    assert [npo[FORGET.name + part] for part in PARTS] == [
        "0.4", "0.1", "", "", "10", "0", "-0.5", "nearer_exact",
    ]  # fmt: skip
    assert npo["parameters_touched"] == "7"
    assert npo["engine"] == "vllm"


def test_a_failed_row_stays_with_its_reason_and_no_number(usual: Board) -> None:
    broken = read(render_csv(usual))["broken0"]
    assert broken["status"] == "failed"
    assert broken["reason"] == "loss is not finite at step 3"
    parts = PARTS[:-1]
    assert {broken[column.name + part] for column in COLUMNS for part in parts} == {""}


def test_missing_is_empty_and_diverged_is_inf() -> None:
    text = render_csv(board(row("npo", math.nan, math.inf)))
    line = read(text)["npo0"]
    assert line[FORGET.name] == ""
    assert line[UTILITY.name] == "inf"
    frame = pd.read_csv(io.StringIO(text))
    assert math.isnan(frame[FORGET.name][0])
    assert frame[UTILITY.name][0] == math.inf


def test_numbers_keep_every_digit(usual: Board) -> None:
    third = board(row("npo", 1 / 3))
    assert float(read(render_csv(third))["npo0"][FORGET.name]) == 1 / 3


def test_identical_input_gives_identical_bytes(usual: Board) -> None:
    """In whatever order the cells were computed."""
    again = board(*reversed(usual.rows))
    assert render_json(again) == render_json(usual)
    assert render_csv(again) == render_csv(usual)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", " \n="])
def test_no_text_cell_runs_as_a_formula(start: str) -> None:
    text = render_csv(board(row("npo", 0.1, status="failed", reason=start + "cmd|'/c calc'!A0")))
    reason = read(text)["npo0"]["reason"]
    assert reason.startswith("'")
    assert "\n" not in reason


def test_quotes_commas_and_line_breaks_survive() -> None:
    reason = 'a "b", c\nd'
    line = read(render_csv(board(row("npo", status="failed", reason=reason))))["npo0"]
    assert line["reason"] == 'a "b", c d'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no file /home/someone/data/x.json here", "no file …/x.json here"),
        ("~/secret/place", "…/place"),
        ("https://mirror.example.internal/pkg/file", "https://…/pkg/file"),
        ("fur/forget and 3/4", "fur/forget and 3/4"),
    ],
)
def test_boards_name_no_folder_of_this_machine_and_no_host(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_safe_text_leaves_ordinary_text_alone() -> None:
    assert safe_text("npo beta=0.1") == "npo beta=0.1"


def test_json_is_strict_and_says_direction_and_unit(usual: Board) -> None:
    content = json.loads(render_json(usual), parse_constant=pytest.fail)
    assert content["columns"][0]["direction"] == "nearer_exact"
    rows = {r["method"]: r for r in content["rows"]}
    assert rows["grad_diff"]["scores"][DETAIL.name]["value"] == "inf"
    assert rows["broken"]["scores"] == {}
    assert rows["npo"]["scores"][FORGET.name]["delta"] == pytest.approx(-0.5)


def test_delta_is_to_the_target_of_the_same_seed() -> None:
    result = board(
        row("noop", 1.0, role="target", seed=1),
        row("noop", 2.0, role="target", seed=2),
        row("npo", 5.0, seed=2),
        row("npo", 5.0, seed=1),
    )
    npo = {r.seed: r.deltas[FORGET.name] for r in result.rows if r.method == "npo"}
    assert npo == {"1": 4.0, "2": 3.0, "mean": 3.5}


def test_a_delta_of_means_is_of_the_same_seeds() -> None:
    """0.1 at seed 0 is what the target has there; its own mean over three seeds is 0.5. A method
    that ran at a seed without a target has no delta of its mean.
    """
    result = board(
        *(row("noop", v, role="target", seed=n) for n, v in enumerate((0.1, 0.5, 0.9))),
        row("npo", 0.1, seed=0),
        *(row("npo", seed=seed, status="failed") for seed in (1, 2)),
        row("simnpo", 0.2, seed=0),
        row("simnpo", 0.2, seed=7),
    )
    means = {r.method: r.deltas for r in result.rows if r.seed == "mean"}
    assert (means["npo"][FORGET.name], means["noop"]) == (0.0, {})
    assert math.isnan(means["simnpo"][FORGET.name])


def test_without_a_target_row_there_is_no_delta() -> None:
    line = read(render_csv(board(row("npo", 1.0))))["npo0"]
    assert line[FORGET.name + ".delta"] == ""


def test_seed_mean_names_the_seeds_it_lacks() -> None:
    result = board(
        row("npo", 1.0, seed=10), row("npo", 3.0, seed=2), row("npo", seed=3, status="failed")
    )
    assert [r.seed for r in result.rows] == ["2", "3", "10", "mean"]
    mean = result.rows[-1]
    assert mean.scores[FORGET.name].value == 2.0
    assert (mean.status, mean.reason) == ("incomplete", "seed 3 failed")
    assert mean.provenance["seeds"] == "2 10"


def test_seed_mean_of_nothing_has_no_scores() -> None:
    result = board(row("npo", seed=1, status="failed"), row("npo", seed=2, status="failed"))
    assert result.rows[-1].status == "failed"
    assert result.rows[-1].scores == {}


def test_best_is_nearest_to_exact_and_never_a_control(usual: Board) -> None:
    assert best_methods(usual, FORGET) == {"npo"}  # 0.4 is 0.1 from exact, grad_diff's 0.1 is 0.2
    assert best_methods(usual, UTILITY) == {"grad_diff"}  # the control's 0.9 is no contender
    assert best_methods(usual, DETAIL) == {"npo"}  # a diverged perplexity is never best


def test_ties_are_all_best_and_no_exact_row_means_no_nearest() -> None:
    tied = board(row("a", 0.2, 0.5), row("b", 0.2, 0.5), row("c", 0.2, 0.4))
    assert best_methods(tied, UTILITY) == {"a", "b"}
    assert best_methods(tied, FORGET) == set()


def test_a_column_in_which_all_are_equal_has_no_best() -> None:
    equal = board(row("a", 0.2, 0.5), row("b", 0.2, 0.5))
    assert best_methods(equal, UTILITY) == set()
    assert best_methods(board(row("a", 0.2, 0.5)), UTILITY) == {"a"}


def test_a_value_of_few_items_is_not_best() -> None:
    """Nor is the mean of a method of which one seed was judged in part."""
    few = {UTILITY.name: score(UTILITY, 0.9, n=1, missing=9)}
    half = replace(row("half", 0.2, 0.9), scores=few, status="incomplete", reason="died")
    others = (row("a", 0.2, 0.5), row("b", 0.2, 0.4))
    assert best_methods(board(*others, half), UTILITY) == {"a"}
    seeds = (replace(half, seed="1"), row("half", 0.2, 0.9, seed=2))
    assert best_methods(board(*others, *seeds), UTILITY) == {"a"}


def test_figures_for_people() -> None:
    assert figure(None) == figure(score(UTILITY, math.nan)) == "–"
    assert figure(score(DETAIL, math.inf)) == "diverged"
    assert figure(score(UTILITY, 0.25)) == "0.250 ± 0.100"
    assert figure(score(DETAIL, 1.5e12)).startswith("1.5e+12")


def test_markdown_marks_the_best_and_keeps_failures(usual: Board) -> None:
    text = render_markdown(usual)
    assert "| npo | **0.400 ± 0.100** | 0.100 ± 0.100 |" in text
    assert "noop (target)" in text
    assert "- broken: failed. loss is not finite at step 3" in text
    assert "word\\_perplexity" not in text
    assert "wikitext" not in text  # no headline column
    assert "limits: fur all" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_a_markdown_row_names_the_cells_with_its_samples() -> None:
    """Of a mean those of its seeds that have some; what is no key is no code either."""
    seeds = [
        replace(row("npo", 0.4, 0.1, seed=n), provenance={"cell_key": f"{n}bc45678" + "9" * 56})
        for n in range(3)
    ]
    lost = row("npo", status="failed", seed=3)
    odd = replace(row("odd", 0.3, 0.1), provenance={"cell_key": "`|x` <b>"})
    text = render_markdown(board(*seeds, lost, odd))
    (mean,) = [line for line in text.splitlines() if line.startswith("| npo |")]
    assert mean.endswith("| `0bc45678` `1bc45678` `2bc45678` |")
    (other,) = [line for line in text.splitlines() if line.startswith("| odd |")]
    assert other.endswith("| – |")
    assert "`unlearn-bench show RUN CELL`" in text


def test_markdown_is_not_broken_by_names_from_outside() -> None:
    text = render_markdown(board(row("a|b<script>", status="failed", reason="x | y\n# z")))
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\n# z" not in text


@pytest.mark.parametrize("width", [50, 80, 200])
def test_terminal_tables_fit_and_lose_no_column(usual: Board, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_terminal(usual, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for word in ("0.400 ± 0.100*", "0.150 ± 0.100*", "0.900 ± 0.100", "noop (target)"):
        assert word in text, text
    assert "broken: failed. loss" in text


def test_rows_of_other_shapes_are_kept_apart_by_column_name() -> None:
    mini = Column("gsm8k_mini", "exact_match_strict", "higher", "share", True)
    rows: list[Any] = [row("npo", 0.4, 0.1)]
    text = render_csv(build_board("m", "s", (FORGET, mini), rows, {}))
    assert read(text)["npo0"][mini.name] == ""
