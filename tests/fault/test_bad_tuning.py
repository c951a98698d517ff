"""Bad input to `tune`, and to `evaluate --tuned`, is refused before any model is trained."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from unlearn_bench import cli
from unlearn_bench.runs import steps


@pytest.fixture(autouse=True)
def _nothing_expensive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No engine, no training, no network, an empty cache, and a folder of its own."""

    def expensive(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("expensive work was started")

    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise OSError("network is unreachable")

    monkeypatch.setattr(steps.ModelSteps, "prepare", expensive)
    monkeypatch.setattr(steps, "open_engine", expensive)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("small.yaml").write_text("name: small\npart: validation\ntasks: [fur, wikitext]\n")


def call(*arguments: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1"})
    return runner.invoke(cli.app, [*arguments, "--offline"], catch_exceptions=False)


def tune(tiny_folder: Path, *arguments: str) -> Any:
    model = ("--model", str(tiny_folder), "--suite", "small.yaml", "--engine", "transformers")
    return call("tune", *model, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "0"], "--trials"),
        (["--trials", "-3"], "--trials"),
        (["--trials", "many"], "--trials"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "inf"], "finite number of seconds"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "seeds are whole numbers"),
        (["--methods", "npoo"], "npo"),
        (["--methods", "random_noise"], "there is nothing to tune; not tuned: random_noise"),
        (["--methods", "exact_unlearning"], "there is nothing to tune"),
        (["--methods", "npo", "--suite", "quick"], "suite 'quick' asks test items"),
        (["--methods", "npo", "--suite", "validaton"], "validation"),
        (["--methods", "npo", "--set", "npo.bta=1"], "beta"),
        (["--methods", "npo", "--set", "npo.beta=-1"], "npo.beta"),
        (["--methods", "npo", "--set", "pke.steps=1"], "unknown method 'pke'"),
        (["--methods", "npo", "--output", "../elsewhere"], "leaves the current folder"),
        (["--methods", "model_surgery"], "does not measure realtoxicityprompts"),
        (["--methods", "absent.py"], "absent.py"),
        (["--sweet"], "--sweet"),
    ],
)
def test_tune_refuses_what_cannot_be(tiny_folder: Path, arguments: list[str], said: str) -> None:
    result = tune(tiny_folder, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not Path("runs").exists()


def test_tuning_does_not_start_from_tuned_options(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_TUNED", "some.yaml")
    result = tune(tiny_folder, "--methods", "npo")
    assert result.exit_code == 2
    assert "unset UNLEARN_BENCH_TUNED" in result.output


def test_a_dry_run_says_what_would_be_drawn(tiny_folder: Path) -> None:
    result = tune(
        tiny_folder, "--methods", "npo,random_noise", "--trials", "3", "--seconds", "60",
        "--dry-run", "--set", "npo.epochs=2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "beta 0.025 to 0.4, log" in result.output
    assert "epochs" not in result.output
    assert "not tuned: random_noise, a control" in result.output
    assert "1 x 3 trials within 60 s each" in result.output
    result = tune(tiny_folder, "--methods", "npo", "--trials", "3", "--dry-run", "--json")
    told = json.loads(result.stdout)
    (npo,) = told["methods"]
    assert npo["space"]["beta"] == "0.025 to 0.4, log"
    assert told["budget"] == {"trials": 3, "seconds": 900.0}
    assert told["total"]["trials"] == 3
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("format: 1\n", "cannot be read: model"),
        ("- npo\n", "cannot be read"),
    ],
)
def test_evaluate_refuses_a_file_that_holds_no_winners(text: str | None, said: str) -> None:
    if text is not None:
        Path("tuned.yaml").write_text(text)
    result = call("evaluate", "--methods", "npo", "--tuned", "tuned.yaml")
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_evaluate_makes_no_board_of_the_validation_items() -> None:
    result = call("evaluate", "--methods", "npo", "--suite", "validation")
    assert result.exit_code == 2, result.output
    assert "asks the items on which options are chosen" in result.output
    assert "quick" in result.output
