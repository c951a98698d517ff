"""A gate and a comparison that are given weights: asked exactly as the other side was, through the
main command.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from unlearn_bench.runs import candidate, store
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.sides import read_cell, read_side
from unlearn_bench.runs.tree import Tree

SUITE = """
name: small
tasks: [fur, truthfulqa, toxigen]
limits: {fur: 8, truthfulqa: 12, toxigen: 26}
paraphrases: 1
samples_per_prompt: 2
"""
READING = """
name: reading
tasks: [wikitext, toxigen]
limits: {wikitext: 6, toxigen: 26}
paraphrases: 1
samples_per_prompt: 1
"""
PERPLEXITY = {"relative": 0.1}
TOXICITY = {"margin": 0.2, "required": False}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory, long_tiny_folder: Path) -> Path:
    """A folder with a run of the tiny model, its baseline file and rules."""
    rules = {"truthfulqa_mini.mc*": {"margin": 0.2}, "toxigen_mini.mean_toxicity": TOXICITY}
    return baseline_of(tmp_path_factory.mktemp("gate"), long_tiny_folder, SUITE, rules)


def baseline_of(folder: Path, model: Path, suite: str, rules: dict[str, Any]) -> Path:
    (folder / "small.yaml").write_text(suite)
    result = invoke(
        *("evaluate", "--target", str(model), "--methods", "noop", "--seeds", "3,"),
        *("--suite", str(folder / "small.yaml"), "--engine", "transformers", "--offline"),
        *("--scorer", "profanity_check", "--output", str(folder / "run")),
    )
    assert result.exit_code == 0, result.output
    result = invoke("gate", "init", str(folder / "run"), "-o", str(folder), "--allow-dirty")
    assert result.exit_code == 0, result.output
    write_rules(folder, rules)
    return folder


def write_rules(folder: Path, rules: dict[str, Any]) -> None:
    (folder / "gate.yaml").write_text(json.dumps({"metrics": rules}))


@pytest.fixture(autouse=True)
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc"))


def gate(baseline: Path, model: Path | str, output: Path, *more: str) -> Any:
    return invoke(
        "gate", "--baseline", str(baseline / "baseline.json"), "--candidate", str(model),
        "--rules", str(baseline / "gate.yaml"), "--output", str(output), "--offline",
        "--allow-dirty", *more,
    )  # fmt: skip


def test_the_same_weights_are_asked_the_same_and_pass(
    baseline: Path, long_tiny_folder: Path, tmp_path: Path
) -> None:
    result = gate(baseline, long_tiny_folder, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    judged = {one["metric"]: one for one in found["metrics"]}
    assert judged["truthfulqa_mini.mc1"]["outcome"] == "pass"
    assert judged["truthfulqa_mini.mc1"]["n"] == 12
    assert {one["loss"] for one in found["metrics"] if "loss" in one} == {0.0}
    (folder,) = (tmp_path / "out" / "cells").iterdir()
    plan = json.loads((folder / "plan.json").read_text())
    before = json.loads(next((baseline / "run").glob("cells/*/plan.json")).read_text())
    assert plan == before  # its key too: the very same cell
    again = gate(baseline, long_tiny_folder, tmp_path / "out", "--json")
    assert json.loads(again.stdout)["metrics"] == found["metrics"]
    assert "already done" in again.stderr


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, long_tiny_folder: Path) -> Path:
    """As `baseline`, of how well the model reads six pages and what it writes."""
    rules = {"wikitext_mini.word_perplexity": PERPLEXITY, "toxigen_mini.mean_toxicity": TOXICITY}
    return baseline_of(tmp_path_factory.mktemp("reading"), long_tiny_folder, READING, rules)


def edited(
    make_tiny_model: Callable[..., Any], folder: Path, to: Path, edit: Callable[[Any], None]
) -> Path:
    """The tiny model of `folder` as `edit` leaves it."""
    import torch

    model = make_tiny_model(max_position_embeddings=8192)
    with torch.no_grad():
        edit(model)
    copied = Path(shutil.copytree(folder, to))
    model.save_pretrained(copied)
    return copied


def compare(first: Path | str, second: Path | str, *more: str) -> Any:
    return invoke("compare", str(first), str(second), "--offline", "--json", *more)


def judged(result: Any) -> dict[str, Any]:
    return {one["metric"]: one for one in json.loads(result.stdout)["metrics"]}


def test_weights_that_differ_a_little_pass(
    reading: Path, make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    def nudge(model: Any) -> None:
        model.model.norm.weight.mul_(1.0001)

    model = edited(make_tiny_model, long_tiny_folder, tmp_path / "edited", nudge)
    result = gate(reading, model, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    perplexity = judged(result)["wikitext_mini.word_perplexity"]
    assert perplexity["outcome"] == "pass"
    assert 0 < abs(perplexity["loss"]) < 0.01 * perplexity["baseline"]


def test_an_edit_that_ruins_the_model_is_a_regression(
    reading: Path, make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    """A final norm thirty times as large makes a random model sure of what is wrong."""

    def shout(model: Any) -> None:
        model.model.norm.weight.mul_(30)

    model = edited(make_tiny_model, long_tiny_folder, tmp_path / "edited", shout)
    result = gate(reading, model, tmp_path / "out", "--json")
    assert result.exit_code == 1, result.output
    perplexity = judged(result)["wikitext_mini.word_perplexity"]
    assert perplexity["outcome"] == "regression"
    assert perplexity["loss"] > perplexity["baseline"]
    chosen = ("--metrics", "wikitext_mini.word_perplexity")  # six pages are too few beside others
    told = compare(reading / "run", model, "--output", str(tmp_path / "out"), *chosen)
    assert "already done" in told.stderr  # asked the very same
    (pair,) = json.loads(told.stdout)["pairs"]
    assert [one["verdict"] for one in pair["metrics"]] == ["worse"]


def test_two_models_are_asked_one_suite_and_compared(
    make_tiny_model: Callable[..., Any],
    long_tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def other(model: Any) -> None:
        model.model.norm.weight.mul_(-1)

    monkeypatch.setenv("UNLEARN_BENCH_ENGINE", "transformers")
    suite = {"name": "two", "tasks": ["truthfulqa"], "limits": {"truthfulqa": 6}}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    model = edited(make_tiny_model, long_tiny_folder, tmp_path / "edited", other)
    more = ("--suite", str(tmp_path / "suite.yaml"), "--output", str(tmp_path / "out"))
    result = compare(long_tiny_folder, model, *more)
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.stdout)["pairs"]
    found = {one["metric"]: one for one in pair["metrics"]}
    assert found.keys() == {"truthfulqa_mini.mc1", "truthfulqa_mini.mc2"}
    assert found["truthfulqa_mini.mc2"]["n"] == 6
    assert found["truthfulqa_mini.mc2"]["difference"] != 0
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


def test_what_a_model_cannot_be_compared_with_is_said_before_it_is_asked(
    reading: Path, long_tiny_folder: Path, tmp_path: Path
) -> None:
    refused = compare(reading / "run", long_tiny_folder, "--suite", "smoke")
    assert refused.exit_code == 2
    assert "--suite is for two models" in refused.stderr
    write_cell(tmp_path / "failed", "noop", [], status="failed", reason="boom")
    refused = compare(tmp_path / "failed", long_tiny_folder)
    assert refused.exit_code == 3
    assert "has no scores to compare with: seed 0 failed: boom" in refused.stderr
    absent = compare(reading / "run", "nothing", "--output", str(tmp_path / "out"))
    assert absent.exit_code == 2
    assert "nothing is no run or cell: it is evaluated as a model" in absent.stderr
    assert "unknown model 'nothing'" in json.loads(absent.stdout)["error"]


def test_a_scorer_that_dies_at_the_candidate_is_never_a_pass(
    reading: Path, long_tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its metric is not required: that is for a candidate that was not asked it. Once
    the scorer works again, the answers are judged and the same weights pass.
    """
    pytest.importorskip("profanity_check")

    def fail(texts: list[str]) -> Any:
        raise OSError("no answer")

    toxicity = "toxigen_mini.mean_toxicity"
    folder = Path(shutil.copytree(reading, tmp_path / "reading"))
    with monkeypatch.context() as patch:
        patch.setattr("profanity_check.predict_prob", fail)
        for required in (True, False):
            write_rules(folder, {toxicity: {**TOXICITY, "required": required}})
            result = gate(folder, long_tiny_folder, tmp_path / "out", "--json")
            assert result.exit_code == 3, result.output
            assert judged(result)[toxicity]["outcome"] == "incomplete"
            assert "items have no value" in judged(result)[toxicity]["reason"]
    result = gate(folder, long_tiny_folder, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert judged(result)[toxicity]["loss"] == 0.0


@pytest.mark.parametrize("how", ["pickled", "auto_map"])
def test_an_artefact_that_would_run_code_is_4(
    baseline: Path, long_tiny_folder: Path, tmp_path: Path, how: str
) -> None:
    unsafe = Path(shutil.copytree(long_tiny_folder, tmp_path / "unsafe"))
    if how == "pickled":
        (unsafe / "model.safetensors").rename(unsafe / "pytorch_model.bin")
    else:
        config = json.loads((unsafe / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
        (unsafe / "config.json").write_text(json.dumps(config))
    result = gate(baseline, unsafe, tmp_path / "out", "--junit", str(tmp_path / "junit.xml"))
    assert result.exit_code == 4, result.output
    assert 'errors="1"' in (tmp_path / "junit.xml").read_text()
    assert compare(baseline / "run", unsafe, "--output", str(tmp_path / "out")).exit_code == 4


def test_an_installation_that_would_ask_otherwise_is_refused_before_it_asks(
    baseline: Path, long_tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError("nothing is to be evaluated")

    monkeypatch.setattr(candidate, "evaluate_candidate", never)
    body = json.loads((baseline / "baseline.json").read_text())
    del body["self_sha256"]
    body["cells"][0]["facts"]["versions"]["lm-eval"] = "0.3"
    body["self_sha256"] = store.digest(body)
    (tmp_path / "baseline.json").write_text(json.dumps(body))
    shutil.copy(baseline / "gate.yaml", tmp_path / "gate.yaml")
    result = gate(tmp_path, long_tiny_folder, tmp_path / "out")
    assert result.exit_code == 3
    assert "versions.lm-eval is 0.3 in the baseline and" in result.output
    assert "in this installation" in result.output


@pytest.mark.parametrize(
    ("suite", "edit_set", "name"),
    [("quick", "fur", "quick"), ("quick-fur", "fur", "quick-fur"), ("mine-tofu", "tofu", "mine")],
)
def test_the_suite_is_the_baselines_under_its_tasks_real_names(
    tmp_path: Path, suite: str, edit_set: str, name: str
) -> None:
    """A public set's name is appended again by the plan; a narrowed suite stays narrowed."""
    changes = {"suite__part": "validation", "target__edit_set__name": edit_set}
    cell = read_cell(write_cell(tmp_path, "noop", items("acc", [1, 0]), suite=suite, **changes))
    assert candidate.suite_of(cell) == {
        "name": name, "tasks": ["quiz"], "limits": {"quiz": 40}, "samples_per_prompt": 4,
        "paraphrases": 1, "part": "validation",
    }  # fmt: skip


def test_folders_of_the_baselines_run_are_used_unless_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def record(settings: dict[str, Any]) -> Any:
        seen.append(settings)
        raise Stopped

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(candidate, "load_config", record)
    write_cell(tmp_path / "run", "noop", items("acc", [1, 0]), seed=7)
    (tmp_path / "run" / "run.json").write_text('{"data": "there", "limit": 3, "engine": "auto"}')
    side = read_side(str(tmp_path / "run"))
    for given in ({}, {"data": Path("here"), "offline": None}):
        with pytest.raises(Stopped):
            candidate.plan_candidate(side, "org/model", given, tmp_path / "out", Reporter())
    assert [settings["data"] for settings in seen] == ["there", Path("here")]
    (first, _) = seen
    assert first.keys() == {
        "data", "edit_set", "engine", "dtype", "scorer", "suite", "target", "methods", "output",
        "seeds",
    }  # fmt: skip
    assert (first["engine"], first["seeds"], first["target"]) == ("fake", [7], "org/model")


def test_no_model_there_is_said(baseline: Path, tmp_path: Path) -> None:
    assert gate(baseline, tmp_path / "nothing", tmp_path / "out").exit_code == 3
    assert gate(baseline, "nothing", tmp_path / "out").exit_code == 2


def test_a_candidate_that_takes_the_process_with_it_is_reported(
    baseline: Path, long_tiny_folder: Path, tmp_path: Path
) -> None:
    """As the system does where memory runs out: the gate says 3, and JUnit that it was no loss."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "unlearn_bench", "gate", "--allow-dirty", "--offline",
            *("--baseline", str(baseline / "baseline.json")),
            *("--rules", str(baseline / "gate.yaml")),
            *("--candidate", str(long_tiny_folder), "--output", str(tmp_path / "out")),
            *("--junit", str(tmp_path / "junit.xml"), "--json"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/cells/*/record.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "its process was ended by SIGKILL" in said
    assert json.loads(printed)["exit_code"] == 3
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("failures") == "0"
    assert suite.get("errors") == suite.get("tests") != "0"
