"""The real command chooses options on real weights, goes on where it was, and evaluates them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from unlearn_bench.data.sources import SourceOptions, load_validation
from unlearn_bench.errors import MissingDataError

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

SUITE = """
name: small
part: validation
tasks: [fur, realtoxicityprompts, wikitext]
limits: {fur: 8, realtoxicityprompts: 8, wikitext: 1}
samples_per_prompt: 2
paraphrases: 1
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, smollm_folder: Path) -> Run:
    """Runs a command on the embedded model as it is, which needs no training of a target."""
    try:
        load_validation("realtoxicityprompts", SourceOptions())
    except MissingDataError as error:
        pytest.skip(f"no prompts are to be had: {error}")
    (tmp_path / "small.yaml").write_text(SUITE)

    def start(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        fixed = ["--target", str(smollm_folder), "--scorer", "profanity_check"]
        done = subprocess.run(
            [sys.executable, "-m", "unlearn_bench", command, *fixed, *arguments],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return start


def test_tune_resume_and_evaluate_with_the_winner(run: Run, tmp_path: Path) -> None:
    budget = ["--trials", "2", "--seconds", "600", "--methods", "model_surgery,noop"]
    tune = ["tune", *budget, "--suite", "small.yaml", "--set", "model_surgery.comments=40"]
    run(*tune)
    folder = tmp_path / "runs" / "tune"
    content = json.loads((folder / "tuning.json").read_text())
    trials = content["methods"]["model_surgery"]["trials"]
    assert [trial["status"] for trial in trials] == ["success", "success"]
    assert trials[0]["options"] == {"alpha": 16.69, "fraction": 0.02977, "layer": None}
    assert trials[1]["options"] != trials[0]["options"]
    for trial in trials:
        assert 0 <= trial["objective"] <= 1
        assert trial["scores"].keys() >= {"realtoxicityprompts.expected_max_toxicity"}
        assert None not in trial["scores"].values()
    assert content["references"].keys() == {"noop"}  # of one's own target there is no exact model

    before = (folder / "tuning.json").read_bytes()
    again = run(*tune)
    assert (folder / "tuning.json").read_bytes() == before
    assert "prepare the models" not in again.stderr  # nothing is edited or asked again

    winner = yaml.safe_load((folder / "tuned.yaml").read_text())["methods"]["model_surgery"]
    assert winner["options"]["comments"] == 40
    small = ["--suite", "smoke", "--tasks", "fur", "--limit", "4", "--engine", "transformers"]
    tuned = ["--tuned", str(folder / "tuned.yaml")]
    run("evaluate", "--methods", "model_surgery", *small, *tuned)
    (board,) = (tmp_path / "runs").rglob("smoke*.csv")
    rows = {row["method"]: row for row in csv.DictReader(board.open(encoding="utf-8"))}
    assert rows["model_surgery"]["tuning_trials"] == "2"
    assert float(rows["model_surgery"]["tuning_best"]) == winner["best"]
    assert json.loads(rows["model_surgery"]["options"]).items() >= winner["options"].items()
    assert rows["noop"]["tuning_trials"] == ""
