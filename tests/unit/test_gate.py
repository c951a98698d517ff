"""The gate on hand-made runs: what passes, what fails, what is never a pass, what is refused."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests.unit.run_doubles import QUIZ
from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from tests.unit.test_paired import column, noise
from unlearn_bench import gate_commands
from unlearn_bench.compare.gate import exit_code, judge
from unlearn_bench.compare.loss import Margin, measure_loss
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.rules import Chosen, Rule
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.tree import Tree
from unlearn_bench.schema import ItemScore

BASE = [1.0] * 30 + [0.0] * 10
PLANTED = [1.0] * 15 + [0.0] * 25  # 15 of 40 lost: 0.375
RULES = "metrics:\n  quiz.acc: {margin: 0.1}\n"


@pytest.fixture(autouse=True)
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc"))
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


class Gate:
    """A baseline run, rules, and candidates made of one metric's values."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rules = folder, folder / "gate.yaml"
        self.rules.write_text(RULES)
        self.baseline = self.cell("baseline", BASE)
        self.made = 0

    def cell(self, name: str, values: Any, **changes: Any) -> str:
        write_cell(self.folder / name, "noop", items("acc", values), **changes)
        return str(self.folder / name)

    def run(self, candidate: str, *more: str, baseline: str = "") -> Any:
        return invoke(
            "gate", "--baseline", baseline or self.baseline, "--candidate", candidate,
            "--rules", str(self.rules), *more,
        )  # fmt: skip

    def judged(self, values: Any, *more: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        self.made += 1
        name = self.cell(f"candidate{self.made}", values, **changes)
        result = self.run(name, "--json", *more)
        found = json.loads(result.stdout)
        return result.exit_code, found["metrics"][0] if found["metrics"] else found


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_the_same_model_twice_passes(gate: Gate) -> None:
    code, acc = gate.judged(BASE)
    assert (code, acc["outcome"], acc["loss"], acc["p"]) == (0, "pass", 0.0, 1.0)


def test_a_planted_loss_beyond_the_margin_fails(gate: Gate) -> None:
    code, acc = gate.judged(PLANTED)
    assert (code, acc["outcome"]) == (1, "regression")
    assert (acc["loss"], acc["margin"], acc["n"]) == pytest.approx((0.375, 0.1, 40))
    assert acc["p_adjusted"] <= 0.05


def test_a_loss_within_the_margin_passes_however_sure_it_is(gate: Gate) -> None:
    gate.rules.write_text("metrics: {quiz.acc: {margin: 0.4}}")
    code, acc = gate.judged(PLANTED)
    assert (code, acc["outcome"]) == (0, "pass")


def test_a_loss_surely_above_zero_but_not_surely_above_the_margin_does_not_fail(gate: Gate) -> None:
    """15 of 40 lost, none gained: no loss at all has p 2⁻¹⁵, but 0.33 is within the interval."""
    gate.rules.write_text("metrics: {quiz.acc: {margin: 0.33}}")
    code, acc = gate.judged(PLANTED)
    assert (code, acc["outcome"]) == (0, "cannot tell")
    assert "may be chance" in acc["reason"]


def test_a_relative_margin_is_a_share_of_the_baseline(gate: Gate) -> None:
    """The baseline is 0.75: half of it is 0.375, exactly what is lost; 0.1 of it is not."""
    for relative, outcome in ((0.5, "pass"), (0.1, "regression")):
        gate.rules.write_text(f"metrics: {{quiz.acc: {{relative: {relative}}}}}")
        _, acc = gate.judged(PLANTED)
        assert acc["outcome"] == outcome
        assert acc["margin"] == pytest.approx(0.75 * relative)


def test_a_gain_passes_in_either_direction(gate: Gate) -> None:
    code, _ = gate.judged([1.0] * 40)
    assert code == 0
    gate.rules.write_text("metrics: {quiz.toxicity: {margin: 0.0}}")
    for name, share in (("clean", 0.0), ("toxic", 1.0)):
        write_cell(gate.folder / name, "noop", items("toxicity", [share] * 40))
    clean, toxic = str(gate.folder / "clean"), str(gate.folder / "toxic")
    assert gate.run(clean, baseline=toxic).exit_code == 0
    assert gate.run(toxic, baseline=clean).exit_code == 1


def test_a_large_difference_of_few_items_is_a_pass_with_a_warning(tmp_path: Path) -> None:
    """Eight items, six lost and one gained: McNemar's one-sided p is 8/128 = 0.0625."""
    gate = Gate(tmp_path)
    few = gate.cell("few", [1.0] * 6 + [0.0, 1.0])
    result = gate.run(gate.cell("lost", [0.0] * 6 + [1.0, 1.0]), "--json", baseline=few)
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["verdict"] == "pass, 1 cannot be told"
    assert report["metrics"][0]["outcome"] == "cannot tell"
    assert report["metrics"][0]["p"] == pytest.approx(0.0625)


def test_too_few_items_to_fail_are_never_a_plain_pass(tmp_path: Path) -> None:
    """Three items: the exact test can give no p below 1/8, so even losing all does not fail."""
    gate = Gate(tmp_path)
    few = gate.cell("few", [1.0] * 3)
    for values in ([0.0] * 3, [1.0] * 3):
        result = gate.run(gate.cell(f"c{values[0]}", values), "--json", baseline=few)
        (metric,) = json.loads(result.stdout)["metrics"]
        assert metric["outcome"] == "cannot tell"
        assert "3 independent items are too few for any loss to fail" in metric["reason"]


def test_what_is_enough_for_one_metric_may_be_too_few_for_two(tmp_path: Path) -> None:
    """Five items can give p 1/32: below 0.05, and above the 0.025 that Holm asks for first."""
    gate = Gate(tmp_path)
    rows = [*items("acc", [1.0] * 5), *items("toxicity", [0.0] * 5)]
    write_cell(tmp_path / "both", "noop", rows)
    for rules, outcome in (
        (RULES, "pass"),
        (f"{RULES}  quiz.toxicity: {{margin: 0.1}}\n", "cannot tell"),
    ):
        gate.rules.write_text(rules)
        result = gate.run(str(tmp_path / "both"), "--json", baseline=str(tmp_path / "both"))
        metrics = json.loads(result.stdout)["metrics"]
        assert {one["outcome"] for one in metrics} == {outcome}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([math.nan] * 40, "40 of the baseline's items have no value"),
        ([*BASE[:-1], math.nan], "1 of the baseline's items have no value, the first is '39'"),
        ([math.inf, *BASE[1:]], "a value is not finite"),
        ([-math.inf, *BASE[1:]], "a value is not finite"),
        (BASE[:-1], "1 are not in both"),
        ([*BASE, 1.0], "1 are not in both"),
        ([], "the candidate has no values of it"),
    ],
)
def test_what_is_missing_infinite_or_fewer_is_never_a_pass(
    gate: Gate, values: Any, said: str
) -> None:
    code, acc = gate.judged(values)
    assert (code, acc["outcome"]) == (3, "incomplete")
    assert said in acc["reason"]


def test_another_number_of_items_names_both_files(gate: Gate) -> None:
    _, acc = gate.judged(BASE[:-1])
    said = "the candidate …/candidate1 has 39 items and the baseline …/baseline 40"
    assert acc["reason"].startswith(said)


@pytest.mark.parametrize("status", ["failed", "diverged", "cancelled", "started"])
def test_a_candidate_without_scores_is_incomplete(gate: Gate, status: Any) -> None:
    code, acc = gate.judged(BASE, status=status, reason="why")
    assert (code, acc["outcome"]) == (3, "incomplete")
    assert gate.run(gate.baseline, baseline=f"{gate.folder}/candidate1").exit_code == 3


def test_a_dead_scorer_is_incomplete_even_where_the_metric_is_not_required(gate: Gate) -> None:
    gate.rules.write_text("metrics: {quiz.acc: {margin: 0.1, required: false}}")
    code, _ = gate.judged([math.nan] * 40, status="incomplete")
    assert code == 3


def test_items_that_the_baseline_lacks_too_are_left_out(gate: Gate) -> None:
    gappy = gate.cell("gappy", [math.nan, *BASE[1:]])
    result = gate.run(gate.cell("same", [math.nan, *BASE[1:]]), "--json", baseline=gappy)
    (metric,) = json.loads(result.stdout)["metrics"]
    assert (result.exit_code, metric["n"], metric["missing"]) == (0, 39, 1)


def test_absent_metrics_are_skipped_only_where_they_are_not_required(gate: Gate) -> None:
    rows = [*items("acc", BASE), *items("toxicity", BASE)]
    write_cell(gate.folder / "two", "noop", rows)
    for required, code in (("true", 3), ("false", 0)):
        gate.rules.write_text(
            "metrics:\n  quiz.acc: {margin: 0.1}\n"
            f"  quiz.toxicity: {{margin: 0.1, required: {required}}}\n"
        )
        assert gate.run(gate.baseline, baseline=str(gate.folder / "two")).exit_code == code


def test_a_gate_that_judged_nothing_does_not_pass() -> None:
    assert exit_code([]) == 3


def test_a_regression_counts_more_than_what_is_missing(gate: Gate) -> None:
    rows = [*items("acc", BASE), *items("toxicity", BASE)]
    write_cell(gate.folder / "two", "noop", rows)
    gate.rules.write_text("metrics: {quiz.*: {margin: 0.1}}")
    worse = gate.cell("worse", PLANTED)
    assert gate.run(worse, baseline=str(gate.folder / "two")).exit_code == 1


def test_another_protocol_is_refused_with_the_field(gate: Gate) -> None:
    other = gate.cell("other", BASE, suite__tasks__quiz__data_sha256="x")
    result = gate.run(other)
    assert result.exit_code == 3
    assert "suite.tasks.quiz.data_sha256 is d in" in result.output


def test_a_damaged_candidate_is_refused(gate: Gate) -> None:
    other = gate.cell("other", PLANTED)
    next(Path(other).glob("cells/*/items.parquet")).write_bytes(b"x")
    assert gate.run(other).exit_code == 3


def test_limited_runs_need_a_flag_and_are_marked(gate: Gate) -> None:
    small = gate.cell("small", BASE, suite="quick-limit40")
    for baseline, candidate in ((small, gate.baseline), (gate.baseline, small)):
        refused = gate.run(candidate, baseline=baseline)
        assert refused.exit_code == 2
        assert "--allow-limited" in refused.output
        taken = gate.run(candidate, "--allow-limited", "--json", baseline=baseline)
        assert taken.exit_code == 0
        assert "is limited" in str(json.loads(taken.stdout)["notes"])


def test_changed_source_needs_a_flag_and_is_marked(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc", dirty=True))
    refused = gate.run(gate.baseline)
    assert refused.exit_code == 2
    assert "--allow-dirty" in refused.output
    taken = gate.run(gate.baseline, "--allow-dirty", "--json")
    assert taken.exit_code == 0
    assert "is not that of its commit" in str(json.loads(taken.stdout)["notes"])


def test_a_run_that_does_not_say_what_source_made_it_is_taken_and_told(gate: Gate) -> None:
    told = json.loads(gate.run(gate.cell("new", BASE, tree=Tree("def")), "--json").stdout)
    assert told["exit_code"] == 0
    assert "the source that made the baseline: not recorded" in told["notes"]
    assert "the source that made the candidate: commit def" in told["notes"]


def test_one_seed_of_changed_source_is_enough_to_refuse(gate: Gate) -> None:
    """tests/fault/test_changed_source.py has the whole way, in a git tree."""
    for seed, tree in enumerate((Tree("abc"), Tree("abc", dirty=True), Tree(dirty=True))):
        name = gate.cell(f"from{seed}", BASE, tree=tree, seed=1)
        gate.cell(f"from{seed}", BASE, tree=Tree("abc"))
        assert gate.run(name, "--json").exit_code == (2 if tree.dirty else 0)
        assert gate.run(name, "--allow-dirty").exit_code == 0


def test_source_that_git_cannot_read_needs_the_flag_too(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree(dirty=True))
    refused = gate.run(gate.baseline)
    assert refused.exit_code == 2
    assert "git could not say" in refused.output
    assert gate.run(gate.baseline, "--allow-dirty").exit_code == 0


def test_a_fault_of_the_gate_itself_is_no_regression(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gate_commands, "_choose", broken)
    result = gate.run(gate.baseline)
    assert result.exit_code == 3
    assert "RuntimeError: out of luck" in result.output


def test_a_summary_that_cannot_be_written_is_no_regression(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(gate.folder))
    result = gate.run(gate.baseline)
    assert result.exit_code == 3
    assert "IsADirectoryError" in result.output


def printed_to(stream: BinaryIO, gate: Gate) -> int:
    """The exit code of a gate of a model against itself whose output goes to the stream."""
    request = gate_commands.GateRequest(gate.baseline, gate.baseline, gate.rules, gate.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="utf-8"))
        patch.setenv("COLUMNS", "200")
        try:
            return gate_commands.run_gate(request, {}, verbose=True)
        except UnlearnBenchError as error:
            return error.exit_code


def test_a_pass_that_cannot_be_printed_is_no_regression(gate: Gate) -> None:
    """On a full disk the write fails; where nobody reads the pipe, rich would end with 1."""
    with open("/dev/full", "wb") as full:
        assert printed_to(full, gate) == 3
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as broken:
        assert printed_to(broken, gate) == 3


def test_what_stopped_the_gate_is_in_its_json_too(gate: Gate) -> None:
    other = gate.cell("other", BASE, suite__tasks__quiz__data_sha256="x")
    for candidate, code in ((other, 3), (f"{gate.folder}/absent:npo", 2)):
        result = gate.run(candidate, "--json")
        told = json.loads(result.stdout)
        assert (result.exit_code, told["exit_code"], told["metrics"]) == (code, code, [])
        assert told["error"] in result.stderr.replace(str(gate.folder), "…")


def test_a_word_between_colons_stays_what_it_is(gate: Gate) -> None:
    gate.cell("odd", BASE, status="failed", reason="boom :x: here")
    odd = f"{gate.folder}/odd:noop"
    for more in ((), ("--json",)):
        assert "boom :x: here" in gate.run(odd, *more).stdout


@pytest.mark.parametrize("left_out", ["--baseline", "--candidate", "--rules"])
def test_the_three_parts_are_asked_for(left_out: str) -> None:
    given = {"--baseline": "a", "--candidate": "b", "--rules": "c"}
    words = [word for name, value in given.items() if name != left_out for word in (name, value)]
    assert invoke("gate", *words).exit_code == 2


def loss_of(candidate: Any, baseline: Any, margin: Margin, **marks: Any) -> Any:
    return measure_loss(column(candidate, baseline, **marks), 1, "higher", margin, 2000)


def test_p_is_the_larger_of_the_exact_and_the_margins_test() -> None:
    """Ten items that all lose 1: the exact p is 2⁻¹⁰; every resample loses 1, more than 0.5."""
    found = loss_of(np.zeros(10), np.ones(10), Margin(0.5))
    assert (found.value, found.p, found.least) == (1.0, pytest.approx(2**-10), 2**-10)
    assert loss_of(np.zeros(10), np.ones(10), Margin(1.0)).p == 1.0


def test_a_share_of_a_negative_baseline_still_allows_a_loss() -> None:
    assert Margin(0.5, relative=True).of(np.array([-2.0, 4.0])).tolist() == [1.0, 2.0]


def test_p_is_never_zero() -> None:
    """Forty items: the exact p is 2⁻⁴⁰, and none of 2,000 resamples is within the margin."""
    assert loss_of(np.zeros(40), np.ones(40), Margin(0.5)).p == pytest.approx(1 / 2001)


def test_clusters_are_what_counts() -> None:
    found = loss_of(np.zeros(9), np.ones(9), Margin(0.5), clusters="aaabbbccc")
    assert (found.p, found.least) == (0.125, 0.125)


def test_several_seeds_keep_the_exact_test() -> None:
    """Two seeds on each side, four items that all lose: the bootstrap alone would be sure."""
    models = [np.zeros(4), np.full(4, 0.01), np.ones(4), np.full(4, 1.01)]
    found = measure_loss(column(*models), 2, "higher", Margin(0.0), 1000)
    assert found.found.test == "bootstrap, t over seeds"
    assert found.found.p < 0.01
    assert found.p == pytest.approx(2**-4)


def test_seeds_of_both_sides_count_together_and_none_may_be_missing(gate: Gate) -> None:
    for name, values in (("base", BASE), ("like", BASE), ("lost", PLANTED)):
        for seed in range(3):
            turned = [*values[seed:], *values[:seed]] if name == "like" else values
            write_cell(gate.folder / name, "noop", items("acc", turned), seed=seed)
    base = str(gate.folder / "base")
    assert gate.run(str(gate.folder / "like"), baseline=base).exit_code == 0
    assert gate.run(str(gate.folder / "lost"), baseline=base).exit_code == 1
    write_cell(gate.folder / "like", "noop", [], seed=3, status="failed")
    assert gate.run(str(gate.folder / "like"), baseline=base).exit_code == 3


def cell(values: Any) -> dict[str, list[ItemScore]]:
    return {
        f"quiz.m{number}": [ItemScore("quiz", f"m{number}", str(n), "", float(value), 1.0)
                            for n, value in enumerate(row)]
        for number, row in enumerate(values)
    }  # fmt: skip


@pytest.mark.parametrize("reduce", ["mean", "weighted_exp"])
def test_a_model_against_its_like_fails_no_more_often_than_declared(reduce: str) -> None:
    """400 pairs that differ by noise alone, three metrics of 20 skewed items, no margin: at most
    7.2 % have any regression (0.05 and two standard errors of a share of 400 draws).
    """
    chosen = [
        Chosen(Measure("quiz", f"m{number}", reduce, "higher", ""), Rule(margin=0.0))
        for number in range(3)
    ]
    alarms = 0
    for seed in range(400):
        one, other = np.exp(noise(seed, 2, 3, 20)) / 3
        found = judge(chosen, [cell(one)], [cell(other)], 0.05, resamples=400)
        alarms += any(judgement.outcome == "regression" for judgement in found)
    assert alarms <= 28


def test_a_loss_of_exactly_the_margin_fails_about_as_seldom() -> None:
    """200 pairs with a true loss of the margin, one metric of 40 items: the bootstrap's own test
    is no exact one, so 10 % are granted.
    """
    chosen = [Chosen(Measure("quiz", "m0", "mean", "higher", ""), Rule(margin=0.3))]
    alarms = 0
    for seed in range(200):
        one, other = noise(seed, 2, 1, 40)
        found = judge(chosen, [cell(one)], [cell(other - 0.3)], 0.05, resamples=400)
        alarms += found[0].outcome == "regression"
    assert 2 <= alarms <= 20


def test_the_quiz_is_no_task_of_the_catalog() -> None:
    """So its reduction comes from the stored value, as for lm-eval's own tasks."""
    from unlearn_bench.protocols.catalog import list_protocols

    assert QUIZ.name not in list_protocols()
