"""The rules file: what it may say, and that nothing of it stays unchecked in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from unlearn_bench.compare.loss import Margin
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.rules import Rules, choose_metrics, load_rules
from unlearn_bench.errors import UsageError
from unlearn_bench.runs import candidate
from unlearn_bench.schema import Direction


def measure(name: str, direction: Direction = "higher", reduce: str = "mean") -> Measure:
    task, _, metric = name.partition(".")
    return Measure(task, metric, reduce, direction, "share")


HAD = [
    measure("fur.retain_a"), measure("fur.retain_b"), measure("fur.forget_c", "lower"),
    measure("fur.words", "nearer_exact"), measure("fur.count", "none"), measure("x.y", reduce=""),
]  # fmt: skip
TESTABLE = [one.name for one in HAD if one.name != "fur.retain_b"]


def read(tmp_path: Path, text: str) -> Rules:
    (tmp_path / "gate.yaml").write_text(text)
    return load_rules(tmp_path / "gate.yaml")


def chosen(tmp_path: Path, text: str) -> dict[str, Any]:
    found = choose_metrics(read(tmp_path, text), HAD, TESTABLE)
    return {one.measure.name: one for one in found}


def test_a_pattern_names_many_and_the_last_rule_counts(tmp_path: Path) -> None:
    found = chosen(
        tmp_path,
        "metrics:\n  fur.*: {margin: 0.1}\n  fur.retain_a: {relative: 0.5, required: false}\n",
    )
    assert list(found) == ["fur.retain_a", "fur.retain_b", "fur.forget_c", "fur.words", "fur.count"]
    assert found["fur.retain_a"].rule.allowed == Margin(0.5, relative=True)
    assert not found["fur.retain_a"].rule.required
    assert found["fur.forget_c"].rule.allowed == Margin(0.1)
    assert found["fur.forget_c"].rule.required
    assert found["fur.forget_c"].unjudged == ""
    assert found["fur.words"].unjudged == "the exact model's value is its best"
    assert found["fur.count"].unjudged == "no value is its best"
    assert found["fur.retain_b"].unjudged == "too few independent items to test"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("fur.retian_a", "names no metric of the baseline; did you mean fur.retain_a"),
        ("toxigen.*", "names no metric of the baseline"),
        ("fur.words", "names nothing that can be judged: fur.words: the exact model"),
        ("fur.retain_b", "too few independent items"),
        ("x.*", "nobody here knows how its items make its value"),
    ],
)
def test_a_rule_that_checks_nothing_is_refused(tmp_path: Path, pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(tmp_path, f"metrics: {{fur.retain_a: {{margin: 0}}, '{pattern}': {{margin: 0}}}}")


@pytest.mark.parametrize(
    "rule",
    [
        "{margin: -0.1}", "{margin: .nan}", "{margin: .inf}", "{margin: '5%'}", "{margin: true}",
        "{relative: -1}", "{relative: true}", "{}", "{margin: 0.1, relative: 0.1}", "0.1", "null",
        "{margin: 0.1, direction: higher}", "{margin: 0.1, requird: true}",
    ],
)  # fmt: skip
def test_bad_margins_and_unknown_words_are_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(UsageError, match="the rules are wrong"):
        read(tmp_path, f"metrics: {{fur.retain_a: {rule}}}")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "metrics: {}", "metrics: [a]", "metrics: {a: {margin: 0}}\nlevels: 0.1",
        "metrics: {a: {margin: 0}}\nlevel: 0", "metrics: {a: {margin: 0}}\nlevel: 0.5",
        "metrics: {a: {margin: 0}}\nlevel: .nan", "metrics: {a: {margin: 0}",
        "metrics: {a: {margin: 0}, a: {margin: 1}}", "metrics: {a: {margin: 0, margin: 1}}",
        "metrics: {a: {margin: 0}}\nmetrics: {b: {margin: 0}}", "? [a]\n: 1", "a: &x [*x]",
        "metrics: !!python/object:builtins.dict {}", "\x00", "[" * 5000,
        "!!python/object/apply:os.system ['touch ran']",
    ],
)  # fmt: skip
def test_what_is_no_rules_is_refused_and_nothing_runs(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        read(tmp_path, text)
    assert not (tmp_path / "ran").exists()


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gate init"):
        load_rules(tmp_path / "gate.yaml")
    (tmp_path / "gate.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_rules(tmp_path / "gate.yaml")


@pytest.mark.parametrize(
    "rules",
    ["metrics: {quiz.nope: {margin: 0}}", "metrics: {quiz.acc: {margin: -1}}", "!!python/name:os"],
)
def test_wrong_rules_are_refused_before_a_candidate_is_evaluated(
    tmp_path: Path, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError("the rules are wrong: nothing is to be evaluated")

    monkeypatch.setattr(candidate, "plan_candidate", never)
    write_cell(tmp_path / "run", "noop", items("acc", [1, 0, 1, 1, 1, 1, 0, 1]))
    (tmp_path / "gate.yaml").write_text(rules)
    result = invoke(
        "gate", "--baseline", str(tmp_path / "run"), "--candidate", "org/model",
        "--rules", str(tmp_path / "gate.yaml"), "--allow-dirty",
    )  # fmt: skip
    assert result.exit_code == 2, result.output
