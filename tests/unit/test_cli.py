"""The command line: what it accepts, what it says, how fast it lists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit import written_commands
from unlearn_bench import __version__, cli, commands
from unlearn_bench.errors import CancelledError, UnsafeArtefactError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "vllm", "pandas", "datasets", "lm_eval", "numpy", "pyarrow")
ISSUE_OPTIONS = (
    "--model", "--methods", "--tasks", "--suite", "--seeds", "--set", "--data", "--engine",
    "--dtype", "--limit", "--offline", "--output", "--config", "--dry-run", "--scorer",
    "--scorer-checkpoint", "--target", "--keep-checkpoints", "--verbose",
)  # fmt: skip


def invoke(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(cli.app, list(arguments))


@pytest.mark.parametrize("kind", ["methods", "tasks", "suites", "models", "scorers"])
def test_listing_takes_less_than_a_second_and_imports_nothing_heavy(kind: str) -> None:
    program = (
        "import sys\n"
        "from unlearn_bench.cli import app\n"
        f"app(['list', {kind!r}], standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy with something else
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        seconds.append(time.monotonic() - began)
        assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout[-500:] + done.stderr[-2000:]
    assert min(seconds) < 1.0


@pytest.mark.parametrize("words", [("tune", "--methods", "npo"), ("sequence", "--methods", "npo")])
def test_what_decides_by_its_own_results_is_refused_under_a_launcher(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which sets these two variables, as tests/end_to_end/test_together.py sees `evaluate` obey."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    done = invoke(*words)
    assert done.exit_code == 2
    assert "without the launcher" in done.output


def test_a_scorer_is_listed_with_what_it_sees_and_needs_in_words() -> None:
    result = invoke("list", "scorers")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.output.splitlines()]
    assert (
        "sees: explicit toxicity only (linear model over words); "
        "needs: nothing: its weights are inside the package"
    ) in lines


def test_every_option_of_evaluate_is_there_with_help() -> None:
    result = invoke("evaluate", "--help")
    assert result.exit_code == 0
    for option in (*ISSUE_OPTIONS, "--tuned"):
        assert re.search(rf"{option}\b.*\w", result.output), option


def test_list_names_what_can_be_asked_for() -> None:
    assert "noop" in invoke("list", "methods").output
    assert "gsm8k_mini" in invoke("list", "tasks").output
    assert "quick" in invoke("list", "suites").output
    assert "smollm2-135m" in invoke("list", "models").output


@pytest.mark.parametrize("kind", ["methods", "tasks", "suites", "models", "scorers"])
def test_a_listing_in_json_says_the_same(kind: str) -> None:
    entries = json.loads(invoke("list", kind, "--json").stdout)
    lines = [line for line in invoke("list", kind).output.splitlines() if line[0] != " "]
    assert [entry["name"] for entry in entries] == lines
    assert all(entry["summary"] for entry in entries)


def test_the_reference_of_the_command_line_is_what_make_docs_writes() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "typer", "unlearn_bench.cli", "utils", "docs"),
            *("--name", "unlearn-bench", "--title", "Command line"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written.strip() == done.stdout.strip(), "make docs"


def test_a_plugin_file_is_listed_without_running_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "raise SystemExit('ran')\n"
        "from unlearn_bench.registry import method\n"
        '@method("mine", kind="edit")\n'
        "def mine(context, *, strength: float = 2.0):\n"
        '    """Mine."""\n'
    )
    result = invoke("list", "methods", "--file", str(file))
    assert result.exit_code == 0
    assert "strength=2.0" in result.output


def test_an_unknown_kind_exits_2_with_the_near_match() -> None:
    result = invoke("list", "metods")
    assert result.exit_code == 2
    assert "methods" in result.output


@pytest.mark.parametrize("arguments", [["evaluat"], ["evaluate", "--sweet", "x"], ["list"]])
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_version() -> None:
    assert invoke("--version").output.strip() == f"unlearn-bench {__version__}"


def test_what_is_not_given_is_left_to_environment_file_and_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def record(given: dict[str, Any], **more: Any) -> int:
        seen.update(given, **more)
        return 0

    monkeypatch.setattr(commands, "run_evaluate", record)
    assert invoke("evaluate", "--methods", "npo", "--set", "npo.beta=1", "-v").exit_code == 0
    given = {name: value for name, value in seen.items() if value is not None}
    assert given == {
        "methods": "npo", "set": ["npo.beta=1"], "dry_run": False, "as_json": False,
        "verbose": True, "again": (),
    }  # fmt: skip


def test_every_option_of_tune_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def record(given: dict[str, Any], **more: Any) -> int:
        seen.update(given, **more)
        return 3

    monkeypatch.setattr(commands, "run_tune", record)
    words = (
        "--methods npo --trials 7 --seconds 90.5 --model m --target t --suite s --seed 5 "
        "--set npo.beta=1 --data d --engine e --engine-arg a=1 --dtype x --scorer j "
        "--scorer-checkpoint c --output o --offline --dry-run --json -v"
    )
    assert invoke("tune", *words.split()).exit_code == 3
    assert seen == {
        "methods": "npo", "trials": 7, "seconds": 90.5, "model": "m", "target": "t", "suite": "s",
        "seeds": [5], "set": ["npo.beta=1"], "data": Path("d"), "engine": "e",
        "engine_args": ["a=1"], "dtype": "x", "scorer": "j", "scorer_checkpoint": Path("c"),
        "output": Path("o"), "offline": True,
        "dry_run": True, "as_json": True, "verbose": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsafeArtefactError("pickled weights", next_step="convert them"), 4),
        (CancelledError("cancelled"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_messages_and_exit_codes(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*args: Any, **kwargs: Any) -> int:
        raise error

    monkeypatch.setattr(commands, "run_evaluate", fail)
    result = invoke("evaluate")
    assert result.exit_code == code
    assert "Traceback" not in result.output
    if isinstance(error, UnsafeArtefactError):
        assert "next:  convert them" in result.output


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["success", "success"], 0),
        (["success", "failed"], 1),
        (["success", "diverged", "incomplete"], 1),
        (["success", "incomplete"], 3),
        (["incomplete", "failed"], 1),
    ],
)
def test_the_exit_code_tells_how_the_cells_ended(statuses: list[str], code: int) -> None:
    results: list[Any] = [
        SimpleNamespace(record=SimpleNamespace(status=status)) for status in statuses
    ]
    assert commands.exit_code(results) == code


def test_every_help_has_examples() -> None:
    lacking = [path for path, one in written_commands.commands().items() if not one.epilog]
    assert lacking == []


def test_sequence_takes_what_evaluate_takes_and_requests() -> None:
    result = invoke("sequence", "--help")
    assert result.exit_code == 0
    for option in (*ISSUE_OPTIONS, "--requests", "--leaderboards"):
        assert re.search(rf"{option}\b.*\w", result.output), option


def test_a_wrong_request_is_refused_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unlearn_bench.runs import resolve

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the request is wrong: nothing is to be resolved")

    monkeypatch.setattr(resolve, "resolve_plan", never)
    result = invoke("sequence", "--methods", "npo", "--requests", "forget:3/2")
    assert result.exit_code == 2
    assert "kind:i/n" in result.output


@pytest.mark.parametrize("command", ["tune", "sequence"])
@pytest.mark.parametrize(
    ("name", "value"), [("executor", "ray"), ("mirror", "memory://x"), ("time_limit", "9")]
)
def test_what_only_evaluate_can_do_is_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch, command: str, name: str, value: str
) -> None:
    monkeypatch.setenv(f"UNLEARN_BENCH_{name.upper()}", value)
    result = invoke(command, "--methods", "npo")
    assert result.exit_code == 2
    assert f"{command} takes no {name}" in result.output


def test_a_time_limit_without_a_process_to_end_is_refused() -> None:
    """`invoke` works in this process, as a launcher's processes do."""
    result = invoke("evaluate", "--methods", "npo", "--time-limit", "9")
    assert result.exit_code == 2
    assert "a time limit needs a process of its own" in result.output


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unlearn_bench", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.strip() == f"unlearn-bench {__version__}"


def test_doctor_says_what_is_there_and_downloads_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    result = invoke("doctor", "--offline")
    assert result.exit_code == 0, result.output
    for room in ("packages", "engine", "machine", "models", "data"):
        assert f"{room}\n" in result.output
    assert "ok torch: " in result.output
    assert "ok gsm8k: our mini set would stand in" in result.output
    assert "!! realtoxicityprompts: nothing stands in" in result.output
    assert not (tmp_path / "cache").exists()
    found = json.loads(invoke("doctor", "--offline", "--json").stdout)
    (torch,) = (entry for entry in found if entry["name"] == "torch")
    assert torch == {"room": "packages", "name": "torch", "state": torch["state"], "ok": True}
    assert f"ok torch: {torch['state']}" in result.output
