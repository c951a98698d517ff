"""`compare` on hand-made runs: verdicts by direction, what is refused, and its three forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.run_doubles import QUIZ
from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from tests.unit.test_paired import column, noise, rows
from unlearn_bench.compare.differences import Difference, judge_differences, measure_difference
from unlearn_bench.compare.measures import Measure, by_metric
from unlearn_bench.compare.nearness import TEST, TEST_OF_SEEDS, nearness
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.runs.resolve import protocol_digest
from unlearn_bench.runs.tree import Tree
from unlearn_bench.schema import Direction, ItemScore

GOOD, BAD = [1.0] * 18 + [0.0] * 2, [1.0] * 4 + [0.0] * 16


def run_of(folder: Path, acc: list[float], toxicity: list[float], method: str = "noop") -> Path:
    write_cell(folder, method, [*items("acc", acc), *items("toxicity", toxicity)])
    return folder


def compared(*arguments: str) -> dict[str, Any]:
    result = invoke("compare", *arguments, "--json")
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.output)["pairs"]
    return {row["metric"]: row for row in pair["metrics"]}


def test_better_and_worse_follow_each_metrics_direction(tmp_path: Path) -> None:
    """More right answers are better, more toxicity is worse; by hand 14 of 20 differ one way, so
    McNemar's p is 2/2¹⁴ and Holm doubles it.
    """
    first = run_of(tmp_path / "a", BAD, BAD)
    second = run_of(tmp_path / "b", GOOD, GOOD)
    found = compared(str(first), str(second))
    assert (found["quiz.acc"]["verdict"], found["quiz.toxicity"]["verdict"]) == ("better", "worse")
    acc = found["quiz.acc"]
    assert (acc["first"], acc["second"], acc["difference"]) == pytest.approx((0.2, 0.9, 0.7))
    assert acc["p"] == pytest.approx(2 / 2**14)
    assert acc["p_adjusted"] == pytest.approx(4 / 2**14)
    assert (acc["test"], acc["n"], acc["clusters"], acc["missing"]) == ("McNemar, exact", 20, 20, 0)
    back = compared(str(second), str(first))
    assert (back["quiz.acc"]["verdict"], back["quiz.toxicity"]["verdict"]) == ("worse", "better")


def test_a_model_with_itself_shows_no_difference(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", GOOD, BAD)
    assert {row["verdict"] for row in compared(str(run), str(run)).values()} == {
        "no difference seen"
    }


@pytest.mark.parametrize(("groups", "seen"), [(5, False), (6, True)])
def test_groups_too_few_for_any_difference_are_said_to_be(
    groups: int, seen: bool, tmp_path: Path
) -> None:
    """All items of every group changed: p is 2/2⁵ = .0625 of five groups, 2/2⁶ = .031 of six."""
    first = run_of(tmp_path / "a", [0.0] * groups, [0.0] * groups)
    second = run_of(tmp_path / "b", [1.0] * groups, [0.0] * groups)
    acc = compared(str(first), str(second), "--metrics", "quiz.acc")["quiz.acc"]
    assert acc["p"] == pytest.approx(2 / 2**groups)
    if seen:
        assert (acc["verdict"], acc["reason"]) == ("better", "")
    else:
        assert acc["verdict"] == "no difference seen"
        assert acc["reason"] == "5 independent groups are too few to show any"


def test_what_one_test_could_show_many_may_not_and_it_is_said(tmp_path: Path) -> None:
    """Six groups give no p below 2/2⁶ = .031, which Holm doubles for two tests; unless the other's
    p is smaller and seen: then it asks .05 of the second.
    """
    first = run_of(tmp_path / "a", [0.0] * 6, [0.0] * 20)
    alike = run_of(tmp_path / "b", [1.0] * 6, [0.0] * 20)
    other = run_of(tmp_path / "c", [1.0] * 6, [1.0] * 20)
    found = compared(str(first), str(alike))
    assert found["quiz.acc"]["verdict"] == "no difference seen"
    assert found["quiz.acc"]["reason"] == (
        "6 independent groups are too few to show any among 2 tests"
    )
    assert found["quiz.toxicity"]["reason"] == ""  # 20 groups would do
    found = compared(str(first), str(other))
    assert {row["verdict"] for row in found.values()} == {"better", "worse"}
    found = compared(str(first), f"{run_of(tmp_path / 'd', [0.0] * 6, [1.0] * 20)}")
    assert found["quiz.acc"]["reason"] == ""  # beside the other it could have been seen


def test_resamples_too_few_for_a_family_are_said_to_be() -> None:
    """Of 2²⁰ swaps 39 are drawn: no p below 1/40, which is seen alone and not among three."""
    values = noise(1, 20)
    one = measure_difference(
        MEASURES["higher"], [by_metric(rows(values))], [by_metric(rows(values + 1))], (), 39
    )
    assert judge_differences([one], 39)[0].verdict == "better"
    found = judge_differences([one] * 3, 39)[0]
    assert found.verdict == "no difference seen"
    assert found.reason == "39 resamples are too few to show any among 3 tests"


def pages(folder: Path, word: float) -> str:
    """A run of a task that this package has: its perplexities of eight pages."""
    protocol = list_protocols()["wikitext_mini"]
    rows = [
        ItemScore(protocol.name, metric, str(page), "", word + page / 100, 1.0)
        for metric in protocol.metrics
        for page in range(8)
    ]
    task = {"limit": 8, "data_sha256": "d", "protocol_sha256": protocol_digest(protocol)}
    write_cell(folder, "noop", rows, protocol=protocol, suite__tasks={protocol.name: task})
    return str(folder)


def test_headline_metrics_are_one_family_and_all_are_compared_where_asked(tmp_path: Path) -> None:
    """Eight pages give 2/2⁸ = .0078: as the one headline metric, or three times it."""
    first, second = pages(tmp_path / "a", 1.0), pages(tmp_path / "b", 2.0)
    found = compared(first, second)
    assert list(found) == ["wikitext_mini.word_perplexity"]
    assert found["wikitext_mini.word_perplexity"]["p_adjusted"] == pytest.approx(2 / 2**8)
    every = compared(first, second, "--metrics", "*")
    assert len(every) == len(list_protocols()["wikitext_mini"].metrics) == 3
    assert every["wikitext_mini.word_perplexity"]["p_adjusted"] == pytest.approx(6 / 2**8)
    told = json.loads(invoke("compare", first, second, "--json").stdout)
    assert (told["tests"], told["pairs"][0]["left_out"]) == (1, 2)
    for form in ((), ("--markdown",)):
        shown = " ".join(invoke("compare", first, second, *form).stdout.replace("\\", "").split())
        assert "Holm's p is over 1 test: the tasks' headline metrics." in shown
        assert "--metrics '*' compares 2 others too" in shown
        shown = invoke("compare", first, second, "--metrics", "*", *form).stdout
        assert "Holm's p is over 3 tests: everything shown." in shown


def test_all_seeds_of_a_method_are_compared_together(tmp_path: Path) -> None:
    for seed in range(3):
        for method, values in (("noop", GOOD), ("npo", BAD)):
            write_cell(tmp_path, method, items("acc", values), seed=seed)
    acc = compared(f"{tmp_path}:noop", f"{tmp_path}:npo")["quiz.acc"]
    assert (acc["test"], acc["verdict"]) == ("McNemar, exact", "worse")  # the seeds are alike
    assert compared(f"{tmp_path}:noop@1", f"{tmp_path}:npo@2")["quiz.acc"]["test"].startswith("McN")


def test_whole_runs_are_compared_method_by_method(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for method in ("noop", "npo", name):
            run_of(tmp_path / name, GOOD, BAD, method)
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json")
    pairs = json.loads(result.output)["pairs"]
    assert [pair["first"].rpartition(":")[2] for pair in pairs] == ["noop", "npo"]
    assert invoke("compare", str(tmp_path / "a"), f"{tmp_path / 'b'}:b").exit_code == 2


def test_a_run_of_changed_source_is_marked(tmp_path: Path) -> None:
    clean = write_cell(tmp_path / "a", "noop", items("acc", GOOD), tree=Tree("abc"))
    changed = write_cell(tmp_path / "b", "noop", items("acc", GOOD), tree=Tree("abc", dirty=True))
    for second, marked in ((clean, False), (changed, True)):
        (pair,) = json.loads(invoke("compare", str(clean), str(second), "--json").stdout)["pairs"]
        assert ("may not be that of its commit" in str(pair["notes"])) == marked


def test_another_protocol_is_refused_with_the_field_and_both_values(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "noop", items("acc", GOOD))
    write_cell(tmp_path / "b", "noop", items("acc", GOOD), engine__dtype="bfloat16")
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 3
    assert "engine.dtype is float32 in" in result.output
    assert "and bfloat16 in" in result.output


def test_what_stopped_the_comparison_is_in_its_json_too(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "noop", items("acc", GOOD))
    write_cell(tmp_path / "b", "noop", items("acc", GOOD), engine__dtype="bfloat16")
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["pairs"]) == (3, [])
    assert "engine.dtype is float32" in told["error"]


def test_other_items_are_refused(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "noop", items("acc", GOOD))
    write_cell(tmp_path / "b", "noop", items("acc", GOOD[:-1]))
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 3
    assert "1 are not in both" in result.output


def test_a_failed_cell_is_shown_as_such(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", "noop", items("acc", GOOD))
    write_cell(tmp_path / "b", "noop", [], status="failed", reason="boom")
    result = invoke("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 3
    assert "not comparable" in result.output
    assert "seed 0 failed: boom" in result.output


def test_metrics_are_chosen_by_name_and_idle_patterns_refused(tmp_path: Path) -> None:
    run = str(run_of(tmp_path / "a", GOOD, BAD))
    assert list(compared(run, run, "--metrics", "quiz.a*")) == ["quiz.acc"]
    assert invoke("compare", run, run, "--metrics", "quiz.acc,quiz.b*").exit_code == 2
    assert invoke("compare", run, run, "--json", "--markdown").exit_code == 2


def test_the_table_and_markdown_say_the_same_without_colour(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a", BAD, BAD), run_of(tmp_path / "b", GOOD, GOOD)
    shown = invoke("compare", str(first), str(second)).output
    assert "\x1b" not in shown
    assert "better" in shown
    written = invoke("compare", str(first), str(second), "--markdown").output
    assert "| quiz.acc ↑ | 0.2 | 0.9 | +0.7 |" in written
    assert str(tmp_path) not in shown + written


MEASURES = {
    way: Measure("t", "m", "mean", way, "share") for way in ("none", "nearer_exact", "higher")
}


def judged(
    way: Direction, first: Any, second: Any, exact: Any = None, reduce: str = "mean"
) -> Difference:
    sides = [[by_metric(rows(values))] if values is not None else [] for values in (first, second)]
    best = [by_metric(rows(exact))] if exact is not None else []
    measure = replace(MEASURES[way], reduce=reduce)
    return judge_differences([measure_difference(measure, sides[0], sides[1], best)])[0]


def test_what_has_no_better_side_or_no_exact_model_is_not_judged() -> None:
    one, other = noise(1, 30), noise(1, 30) + 1
    assert judged("none", one, other).verdict == "not judged"
    assert judged("nearer_exact", one, other).verdict == "not judged"


def test_nearer_to_the_exact_model_is_better_from_either_side() -> None:
    exact = noise(1, 30)
    far, near, below = exact + 2 + noise(2, 30) / 9, exact + 1, exact - 1
    assert judged("nearer_exact", far, near, exact).verdict == "better"
    assert judged("nearer_exact", near, far, exact).verdict == "worse"
    assert judged("nearer_exact", near, below, exact).verdict == "no difference seen"


def test_all_swaps_against_the_exact_model_by_hand() -> None:
    """Three items, exact 0: one model is 0, the other 1 everywhere. |Σ|/3 of the eight swaps is
    farthest apart in two of them: p = 2/8.
    """
    found = nearness(column(np.zeros(3), np.ones(3), np.zeros(3)), 1, 1)
    assert (found.difference, found.p) == (-1.0, 0.25)


def test_alike_models_are_not_called_nearer_more_often_than_declared() -> None:
    """500 pairs that differ by noise alone: p ≤ 0.05 in at most 7 % (two standard errors)."""
    alarms = 0
    for seed in range(500):
        one, other, exact = np.exp(noise(seed, 3, 12))
        alarms += nearness(column(one, other, exact), 1, 1, resamples=200).p <= 0.05
    assert alarms <= 35


@pytest.mark.parametrize(
    ("first", "second", "exact", "spread", "away"),
    [(3, 3, 3, 0.5, 2.0), (3, 3, 1, 0.5, 0.0), (2, 2, 1, 2.0, 4.0), (3, 1, 3, 0.5, 2.0)],
)
def test_methods_alike_are_not_called_nearer_by_what_their_seeds_do(
    first: int, second: int, exact: int, spread: float, away: float
) -> None:
    """150 pairs of methods whose seeds differ by a constant (sd `spread`) and item by item (sd
    0.3), 30 items, the exact model's `away` from them: p ≤ 0.05 in at most 8.5 % (0.05 and two
    standard errors). By the label swap alone it is 73 to 91 %.
    """
    alarms = 0
    for number in range(150):
        generator = np.random.default_rng(number)
        shifts = generator.normal(0, spread, (first + second + exact, 1))
        seeds = generator.normal(size=30) + shifts + generator.normal(0, 0.3, (len(shifts), 30))
        seeds[first + second :] += away
        alarms += nearness(column(*seeds), first, second, resamples=300).p <= 0.05
    assert alarms <= 12


def test_a_method_whose_seeds_are_all_nearer_is_found() -> None:
    """0.5 against 1 from the exact model, seeds of sd 0.05; the same with seeds that are alike is
    the label swap of one of them, and so is that of one seed.
    """
    items, shifts = noise(1, 30), (-0.05, 0.0, 0.05)
    near, far = [items + 0.5 + shift for shift in shifts], [items + 1 + shift for shift in shifts]
    found = nearness(column(*near, *far, items), 3, 3)
    assert (found.difference, found.test) == (pytest.approx(-0.5), TEST_OF_SEEDS)
    assert found.p < 0.01
    single = nearness(column(near[0], far[0], items), 1, 1)
    alike = nearness(column(*[near[0]] * 3, *[far[0]] * 3, items), 3, 3)
    assert (single.test, alike.test) == (TEST, TEST)
    assert alike.p == pytest.approx(single.p, abs=1e-3)


NEAR = QUIZ.model_copy(
    update={
        "metrics": {"acc": QUIZ.metrics["acc"].model_copy(update={"direction": "nearer_exact"})}
    }
)


def near(run: Path, method: str, values: Any, **changes: Any) -> None:
    write_cell(run, method, items("acc", values), protocol=NEAR, **changes)


def test_the_exact_cell_beside_two_methods_is_what_they_are_read_by(tmp_path: Path) -> None:
    near(tmp_path, "noop", [1.0] * 20)
    near(tmp_path, "npo", [0.5] * 20)
    words = (f"{tmp_path}:noop", f"{tmp_path}:npo")
    assert compared(*words)["quiz.acc"]["verdict"] == "not judged"
    near(tmp_path, "exact_unlearning", [0.1] * 20)
    found = compared(*words)["quiz.acc"]
    assert (found["verdict"], found["test"]) == ("better", "label swap, distance to exact")
    itself = compared(f"{tmp_path}:noop", f"{tmp_path}:exact_unlearning")["quiz.acc"]
    assert itself["verdict"] == "not judged"


def test_an_exact_model_of_another_target_says_nothing(tmp_path: Path) -> None:
    near(tmp_path, "noop", [1.0] * 20)
    near(tmp_path, "npo", [0.5] * 20, target__fingerprint="sha256:other")
    near(tmp_path, "exact_unlearning", [0.1] * 20)
    found = compared(f"{tmp_path}:noop", f"{tmp_path}:npo")["quiz.acc"]
    assert found["verdict"] == "not judged"
    near(tmp_path / "b", "noop", [1.0] * 20)
    near(tmp_path / "b", "npo", [0.5] * 20)
    near(tmp_path / "b", "exact_unlearning", [0.1] * 20, target__fingerprint="sha256:other")
    found = compared(f"{tmp_path / 'b'}:noop", f"{tmp_path / 'b'}:npo")["quiz.acc"]
    assert found["verdict"] == "not judged"


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ([math.nan] * 4, "no item has a value in both"),
        ([math.inf, 1, 1, 1], "a model diverged"),
        ([1.0, math.nan, math.nan, math.nan], "too few independent items"),
    ],
)
def test_missing_infinite_and_few_values_are_not_comparable(second: Any, reason: str) -> None:
    found = judged("higher", [1.0, 1, 1, 1], second)
    assert found.verdict == "not comparable"
    assert reason in found.reason


def test_a_metric_of_unknown_making_is_not_comparable() -> None:
    found = judged("higher", [1.0, 1], [1.0, 1], reduce="")
    assert (found.verdict, found.found) == ("not comparable", None)
