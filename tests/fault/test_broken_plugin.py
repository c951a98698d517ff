"""Plugins that are broken, and a target that changes under a run: all else goes on, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_resolve import resolved
from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.models.load import load_model
from unlearn_bench.registry import find_card, load_function
from unlearn_bench.runs.steps import ModelSteps

METHOD = """
from unlearn_bench.registry import method

@method("wiggle", paper="none", needs=("forget",), goals=("forget",), targets=("*",))
def wiggle(context):
    \"\"\"Nothing.\"\"\"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str, str], Run]:
    """Puts a package `wiggly` with one method's entry point where Python looks for packages.

    init, method: the texts of its two files.
    """
    site = tmp_path / "site"

    def install(init: str, method: str) -> Run:
        package = site / "wiggly"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(init)
        (package / "method.py").write_text(method)
        info = site / "wiggly-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wiggly\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[unlearn_bench.methods]\nwiggle = wiggly.method\n")
        return run

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "unlearn_bench", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            text=True,
            capture_output=True,
            check=False,
        )

    return install


def test_a_package_that_fails_at_import_leaves_the_others_listed(
    installed: Callable[[str, str], Run],
) -> None:
    done = installed("raise OSError('no licence server')", METHOD)("list", "methods")
    assert done.returncode == 0, done.stderr
    assert "npo" in done.stdout
    assert "wiggle" not in done.stdout
    assert done.stderr.count("OSError: no licence server") == 1
    assert "Traceback" not in done.stderr


def test_a_module_that_is_gone_leaves_the_others_listed(
    installed: Callable[[str, str], Run], tmp_path: Path
) -> None:
    run = installed("", METHOD)
    (tmp_path / "site" / "wiggly" / "method.py").unlink()
    done = run("list", "methods")
    assert (done.returncode, "npo" in done.stdout) == (0, True)
    assert "there is no such module" in done.stderr


def test_a_method_that_fails_at_import_is_left_out_of_all_and_refused_by_name(
    installed: Callable[[str, str], Run], tiny_folder: Path
) -> None:
    run = installed("", METHOD + "\nimport no_such_library\n")
    plan = ("evaluate", "--target", str(tiny_folder), "--offline", "--dry-run", "--suite", "smoke")
    done = run(*plan, "--tasks", "fur", "--engine", "transformers", "--methods", "all")
    assert done.returncode == 0, done.stderr
    assert "wiggle left out" in " ".join((done.stdout + done.stderr).split())
    done = run(*plan, "--tasks", "fur", "--engine", "transformers", "--methods", "wiggle")
    assert done.returncode == 2
    assert "No module named 'no_such_library'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_second_look_names_the_same_cause(tmp_path: Path) -> None:
    """A module that failed half-way must not be found half made."""
    file = tmp_path / "mine.py"
    file.write_text(METHOD + "\nraise RuntimeError('halfway')\n")
    card = find_card("method", "wiggle", (file,))
    for _ in range(2):
        with pytest.raises(UsageError, match="RuntimeError: halfway"):
            load_function(card)


def test_a_file_in_other_letters_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_bytes(b"# caf\xe9\n" + METHOD.encode())
    with pytest.raises(UsageError, match="not in UTF-8"):
        find_card("method", "wiggle", (file,))


def test_a_target_that_changes_under_the_run_ends_it(tiny_folder: Path, tmp_path: Path) -> None:
    """Before the first cell, and between two: never two models under one name."""
    model, tokenizer = load_model(tiny_folder)
    mine = tmp_path / "mine"
    model.save_pretrained(mine)
    tokenizer.save_pretrained(mine)
    plan = resolved(tiny_folder, target=str(mine), methods=("random_noise",))
    steps = ModelSteps(plan, print)
    steps.prepare(lambda what, done, total: None)
    steps.edit(plan.cells[0], tmp_path / "first", lambda what, done, total: None)
    model.model.norm.weight.data[0] += 1
    model.save_pretrained(mine)
    with pytest.raises(CorruptDataError, match="changed since the run began"):
        steps.edit(plan.cells[1], tmp_path / "second", lambda what, done, total: None)
    with pytest.raises(CorruptDataError, match="changed since the run began"):
        ModelSteps(plan, print).prepare(lambda what, done, total: None)
