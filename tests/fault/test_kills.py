"""The real command killed at moments of its work: `benchmarks/kills.py`, for a minute at most."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

import pytest

from benchmarks import kills

SMALL = (
    *("--tasks", "toxigen_mini", "--limit", "13", "--dtype", "float32", "--offline"),
    *("--scorer", "profanity_check"),
)
SEED = 80364  # kills all processes at 45 % of the time, then the command at 62 %


@pytest.mark.slow
def test_after_two_kills_answers_and_scores_are_the_same_to_the_byte(
    long_tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, once to the command and once to all its processes; another run ends each round."""
    monkeypatch.setattr(kills, "METHODS", ("noop", "random_noise"))
    monkeypatch.setattr(kills, "SMALL", SMALL)
    monkeypatch.setattr(kills, "MOST_KILLS", 1)
    monkeypatch.setattr(kills, "VICTIMS", dict.fromkeys(("all", "command"), (signal.SIGKILL,)))
    arguments = argparse.Namespace(output=tmp_path, engine="transformers", seed=SEED, prepare=False)
    whole = tmp_path / "undisturbed"
    began = time.monotonic()
    assert kills.start(arguments, long_tiny_folder, whole).wait() == 0
    longest = time.monotonic() - began
    assert len(kills.answers(whole)) == 2 * len(kills.ANSWERS)
    for run in (tmp_path / "round-1", tmp_path / "round-2"):
        tally = kills.disturb(arguments, long_tiny_folder, run, longest)
        assert tally.kills == 1
        assert tally.wrong + kills.compare(run, whole) == []
