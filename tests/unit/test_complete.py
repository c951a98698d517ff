"""What the shell is offered after Tab, asked as the shells' own scripts ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearn_bench.cli.complete import complete_names

ROOT = Path(__file__).parents[2]


def offered(line: str) -> list[str]:
    """What bash would offer for the last word of the line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from unlearn_bench.cli import app; app(prog_name='unlearn-bench')"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_UNLEARN_BENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("unlearn-bench evaluate --methods ext_", ["ext_sub", "ext_sub_negation", "ext_sub_plain"]),
        ("unlearn-bench evaluate --methods npo,gradi", ["npo,gradient_ascent"]),
        ("unlearn-bench evaluate --methods al", ["all", "altpo"]),
        ("unlearn-bench evaluate --suite q", ["quick"]),
        ("unlearn-bench list m", ["methods", "models"]),
        ("unlearn-bench seq", ["sequence"]),
    ],
)
def test_names_are_offered(line: str, expected: list[str]) -> None:
    assert sorted(offered(line)) == sorted(expected)


def test_a_name_that_is_typed_already_is_not_offered_again() -> None:
    offer = complete_names("methods")
    assert "npo,npo" not in dict(offer("npo,n"))
    assert "npo,noop" in dict(offer("npo,n"))


def test_each_name_comes_with_its_summary() -> None:
    assert dict(complete_names("suites")("quick"))["quick"].startswith("All six tasks")
