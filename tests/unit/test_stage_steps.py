"""Stages on a real, tiny model: where an edit starts, what it reads, what its reference is."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.test_execute import Screen
from unlearn_bench import commands
from unlearn_bench.config import RunConfig
from unlearn_bench.data.fur import load_fur
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.runs.requests import parse_requests
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.runs.sequence import SequencePlan, checkpoint_of, plan_sequence
from unlearn_bench.runs.stage_steps import StageSteps
from unlearn_bench.schema import EditReport

# Adds 1 to the final norm, and says what it was given.
METHOD = '''
import torch
from unlearn_bench.registry import method

SETS = ("forget", "old", "update")

@method(
    "count",
    kind="edit",
    needs=("forget", "old", "update", "retain", "reference"),
    optional=("forget", "old", "update"),
    targets=("model.norm.weight",),
)
def count(context):
    """Count the edits in one weight."""
    before = context.reference().model.norm.weight.detach().clone()
    with torch.no_grad():
        context.model.model.norm.weight.add_(1.0)
    read = {name: [text.id for text in getattr(context.data, name)] for name in SETS}
    return {"reference": before.tolist(), "retain": len(context.data.retain), **read}
'''


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sequence(tiny_folder: Path, tmp_path: Path) -> SequencePlan:
    (tmp_path / "count.py").write_text(METHOD)
    config = RunConfig(
        target=str(tiny_folder),
        methods=("count.py", "grad_diff"),
        tasks=("fur",),
        suite="requests",
        offline=True,
        engine="transformers",
        set={"grad_diff": {"lr": 1e-3, "steps": 2, "batch_size": 4}},
    )
    requests = parse_requests(config.requests, load_fur())
    return plan_sequence(resolve_plan(config, Screen()), requests, lenient=False)


@pytest.fixture
def steps(sequence: SequencePlan) -> Any:
    made = StageSteps(sequence.plan, lambda text: None)
    made.prepare(quiet)
    yield made
    made.close()


def quiet(what: str, done: int, total: int) -> None:
    pass


def edit(sequence: SequencePlan, steps: StageSteps, chain: int, stage: int) -> EditReport:
    """One stage with its checkpoint left behind, and the identity that scoring would record."""
    cell = sequence.chains[chain][stage - 1]
    checkpoint = checkpoint_of(sequence.plan.output, cell)
    report = steps.edit(cell, checkpoint, quiet)
    facts = {"weights_fingerprint": fingerprint(checkpoint)}
    (checkpoint.parent / "provenance.json").write_text(json.dumps(facts))
    return report


def norm(folder: Path) -> torch.Tensor:
    return load_model(folder)[0].get_parameter("model.norm.weight").detach()


def test_each_stage_starts_from_the_one_before_which_is_also_its_reference(
    sequence: SequencePlan, steps: StageSteps, tiny_folder: Path
) -> None:
    start = norm(tiny_folder)
    for stage in (1, 2, 3):
        report = edit(sequence, steps, 0, stage)
        left = norm(checkpoint_of(sequence.plan.output, sequence.chains[0][stage - 1]))
        assert torch.equal(left, start + stage)
        assert torch.equal(torch.tensor(report.details["reference"]), start + stage - 1)
        assert [change.name for change in report.changes] == ["model.norm.weight"]


def test_a_stage_reads_its_own_requests_texts(sequence: SequencePlan, steps: StageSteps) -> None:
    fur = load_fur()
    forget, update, rest = (edit(sequence, steps, 0, stage).details for stage in (1, 2, 3))
    whole = fur.edit_sets()
    assert forget["old"] == forget["update"] == update["forget"] == rest["update"] == []
    assert sorted(forget["forget"] + rest["forget"]) == sorted(text.id for text in whole.forget)
    assert update["old"] == [text.id for text in whole.old]
    assert update["update"] == [text.id for text in whole.update]
    assert forget["retain"] == update["retain"] == rest["retain"] == len(whole.retain)
    subjects = {text.partition(".")[0].partition(":")[0] for text in forget["forget"]}
    assert subjects == set(sequence.requests[0].subjects)


def test_a_trained_method_goes_on_from_the_last_stage_it_served(
    sequence: SequencePlan, steps: StageSteps
) -> None:
    """grad_diff cannot serve the update: stage 3 starts from stage 1's weights, not from θ₀."""
    first, second, third = sequence.chains[1]
    assert second.obstacle
    edit(sequence, steps, 1, 1)
    left = checkpoint_of(sequence.plan.output, first)
    assert fingerprint(left) != fingerprint(steps.target)
    assert steps.start_of(third, quiet) == left
    report = edit(sequence, steps, 1, 3)
    assert report.changes
    assert fingerprint(checkpoint_of(sequence.plan.output, third)) != fingerprint(left)


def test_a_missing_checkpoint_is_edited_again_down_to_the_target(
    sequence: SequencePlan, steps: StageSteps
) -> None:
    for stage in (1, 2):
        edit(sequence, steps, 0, stage)
    folders = [checkpoint_of(sequence.plan.output, cell) for cell in sequence.chains[0]]
    expected = norm(folders[1])
    shutil.rmtree(folders[0])
    shutil.rmtree(folders[1])
    edit(sequence, steps, 0, 3)
    assert torch.equal(norm(folders[1]), expected)
    assert torch.equal(norm(folders[2]), expected + 1)


def test_a_checkpoint_that_is_not_the_scored_one_is_never_built_upon(
    sequence: SequencePlan, steps: StageSteps
) -> None:
    edit(sequence, steps, 0, 1)
    kept, cell = checkpoint_of(sequence.plan.output, sequence.chains[0][0]), sequence.chains[0][1]
    right = fingerprint(kept)
    shutil.rmtree(kept)
    shutil.copytree(steps.target, kept)
    assert steps.start_of(cell, quiet) == kept
    assert fingerprint(kept) == right  # edited again
    (kept.parent / "provenance.json").write_text('{"weights_fingerprint": "sha256:other"}')
    with pytest.raises(UnlearnBenchError, match="other weights than those that were scored"):
        steps.edit(cell, kept.parent.parent / "next", quiet)


def test_the_target_itself_is_what_it_is_in_any_run(
    sequence: SequencePlan, steps: StageSteps
) -> None:
    (target,) = sequence.targets
    assert steps.start_of(target, quiet) == steps.target
    assert steps.data_of(target) == sequence.plan.data


def run(requests: str, tiny_folder: Path) -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
    """The whole command on the tiny model, with the real engine, and the table that it wrote."""
    given = {
        "target": str(tiny_folder),
        "methods": "count.py,grad_diff",
        "requests": requests,
        "tasks": "fur",
        "limit": 24,
        "set": ["grad_diff.lr=0.001", "grad_diff.steps=2", "grad_diff.batch_size=4"],
        "engine": "transformers",
        "offline": True,
        "output": "out",
    }
    code = commands.run_sequence(given, file=None, dry_run=False, verbose=False)
    (file,) = Path("out/leaderboards").rglob("*.csv")
    with file.open() as lines:
        return code, {(row["method"], row["stage"]): row for row in csv.DictReader(lines)}


def test_the_whole_command_and_a_longer_sequence_afterwards(
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "silence_libraries", lambda **_: None)  # for good, else
    (tmp_path / "count.py").write_text(METHOD)
    code, table = run("forget:1/2,update", tiny_folder)
    assert code == 0
    assert list(table) == [
        ("noop", "0"), ("count", "1"), ("count", "2"), ("grad_diff", "1"), ("grad_diff", "2"),
    ]  # fmt: skip
    assert table["grad_diff", "2"]["status"] == "not_applicable"
    assert table["noop", "0"]["forget:1/2.forget_extraction_strength.n"] == "3"
    assert not list(tmp_path.rglob("checkpoint"))
    records = [json.loads(path.read_bytes()) for path in Path("out").glob("cells/*/record.json")]
    times = {own["method"]: own["seconds"] for own in records if "start" in own["seconds"]}
    assert list(times) == ["noop"]  # one engine, started by the first cell, served all
    assert min(times["noop"].values()) > 0
    capsys.readouterr()
    code, longer = run("forget:1/2,update,forget:2/2", tiny_folder)
    assert code == 0
    said = capsys.readouterr().err
    assert said.count("already done") == 4  # the target, and three stages that were computed
    assert said.count("its checkpoint is gone, editing again") == 3
    for key in table:
        assert longer[key]["cell_key"] == table[key]["cell_key"]
        assert longer[key]["weights_fingerprint"] == table[key]["weights_fingerprint"]
    prints = {row["weights_fingerprint"] for row in longer.values() if row["weights_fingerprint"]}
    assert len(prints) == 6  # the target, three stages of one method and two of the other
    assert longer["count", "3"]["forget:1/2.relearned"]
    assert longer["count", "3"]["parameters_touched"] == "32"
