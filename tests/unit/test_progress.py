"""What a reader sees: a bar on a terminal, few plain lines elsewhere, quiet libraries."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import unlearn_bench
from unlearn_bench.runs.progress import QUIET_ENVIRONMENT, Reporter

ROOT = Path(unlearn_bench.__file__).parent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def reporter(*, terminal: bool = False) -> tuple[Reporter, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=120, force_terminal=terminal)
    return Reporter(console, clock), stream, clock


def test_plain_lines_have_the_time_the_step_and_its_seconds() -> None:
    report, stream, clock = reporter()
    with report.step("train"):
        clock.now = 7.25
    first, last = stream.getvalue().splitlines()
    assert first[2] == first[5] == ":"
    assert first.endswith("train")
    assert last.endswith("train: 7.2 s")


def test_short_steps_take_one_line() -> None:
    report, stream, clock = reporter()
    with report.step("look"):
        clock.now = 0.5
    assert len(stream.getvalue().splitlines()) == 1


def test_long_steps_speak_now_and_then_not_at_every_tick() -> None:
    report, stream, clock = reporter()
    with report.step("train") as tick:
        for step in range(100):
            clock.now = float(step)
            tick("step", step, 100)
    lines = [line for line in stream.getvalue().splitlines() if "/100" in line]
    assert 5 <= len(lines) <= 10


def test_a_step_that_fails_says_so() -> None:
    report, stream, _ = reporter()
    with pytest.raises(ValueError, match="x"), report.step("train"):
        raise ValueError("x")
    assert "train: stopped after" in stream.getvalue()


def test_a_terminal_gets_a_bar_with_counts() -> None:
    report, stream, clock = reporter(terminal=True)
    with report.step("evaluate") as tick:
        tick("items", 3, 4)
        clock.now = 3.0
    assert "items 3/4" in stream.getvalue()


def test_texts_from_outside_are_no_markup() -> None:
    report, stream, _ = reporter()
    report.say("[bold]name[/bold] [/nonsense]")
    assert "[bold]name[/bold] [/nonsense]" in stream.getvalue()


@pytest.mark.parametrize("verbose", [True, False])
def test_libraries_are_quiet_unless_asked_and_users_settings_stand(verbose: bool) -> None:
    program = (
        "import time\n"
        "from unlearn_bench.runs.progress import silence_libraries\n"
        f"silence_libraries(verbose={verbose})\n"
        "import logging, tqdm\n"
        "for _ in tqdm.tqdm(range(3), disable=False): pass\n"
        "bar = tqdm.tqdm(total=2); bar.update(1); time.sleep(0.01)\n"
        "assert bar.n == 1 and bar.format_dict['elapsed'] > 0  # vLLM divides by it\n"
        "logging.getLogger('transformers').warning('chatter')\n"
        "import os; print(os.environ['VLLM_LOGGING_LEVEL'])\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in QUIET_ENVIRONMENT
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environment, "VLLM_LOGGING_LEVEL": "DEBUG", "PYTHONPATH": os.getcwd()},
        check=True,
    )
    assert done.stdout.strip() == "DEBUG"
    assert ("chatter" in done.stderr) == verbose
    assert ("3/3" in done.stderr) == verbose


def test_the_bar_ends_with_what_the_whole_run_still_takes() -> None:
    report, stream, _ = reporter(terminal=True)
    told = iter(range(50, 0, -1))
    report.outlook = lambda: f"about {next(told)} min left"
    with report.step("train") as tick:
        tick("step", 1, 2)
    assert "about 50 min left" in stream.getvalue()
    assert "about 49 min left" in stream.getvalue()  # it is asked whenever the bar is drawn


def test_no_screen_turns_words_between_colons_into_pictures() -> None:
    """rich does so in every text, JSON among them, unless its console is told otherwise. What
    `show` prints is made of Text, which is left alone.
    """
    made = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Console"
        and not any(word.arg == "emoji" for word in node.keywords)
    ]
    assert [place.partition(":")[0] for place in made] == ["cli/show.py"]
