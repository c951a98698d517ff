"""The real command on a small random model, for faults that only a whole run meets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def evaluate(
    tmp_path: Path, long_tiny_folder: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`unlearn-bench evaluate` with noop and these methods, into `out` and `boards`."""

    def run(*methods: object, target: Path = long_tiny_folder) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "unlearn_bench", "evaluate"),
                *("--methods", ",".join(["noop", *map(str, methods)])),
                *("--target", str(target), "--suite", "smoke", "--tasks", "fur"),
                *("--engine", "transformers", "--scorer", "profanity_check", "--offline"),
                *("--output", str(tmp_path / "out"), "--leaderboards", str(tmp_path / "boards")),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )

    return run
