"""Source that is not what its commit says, in a real git tree: a run is marked, a gate refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_tree import git
from unlearn_bench.runs.sides import read_side
from unlearn_bench.runs.tree import Tree

ROOT = Path(__file__).parents[2]
CHANGED = "unlearn_bench/board/planes.py"  # in no cell's key


class Copy:
    """This package as it is here, committed; and a process that runs it, one for all commands
    since it takes seconds to start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "copy"
        for name in ("unlearn_bench", "tasks"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / ".gitignore", self.folder)
        git(self.folder, "init", "--quiet")
        git(self.folder, "add", ".")
        git(self.folder, "commit", "--quiet", "-m", "one")
        (folder / "gate.yaml").write_text("metrics: {quiz.acc: {margin: 0.1}}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.in_a_copy"],
            env={**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}"},
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        package, code, said = json.loads(self.process.stdout.readline())
        assert Path(package).parent == self.folder / "unlearn_bench"
        return code, said

    def gate(self, baseline: str, candidate: str, *more: str) -> tuple[int, str]:
        named = ("--baseline", baseline, "--candidate", candidate, "--rules", "gate.yaml")
        return self.run("gate", *named, *more)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    made = Copy(tmp_path)
    yield made
    made.process.communicate(timeout=60)


def test_a_run_of_changed_source_is_refused_when_the_changes_are_gone(
    copy: Copy, tmp_path: Path
) -> None:
    copy.run("run", "committed")
    with (copy.folder / CHANGED).open("a") as file:
        file.write("\n")
    copy.run("run", "changed")
    code, said = copy.gate("committed", "committed")
    assert code == 2
    assert "the source that runs here is not that of its commit" in said
    git(copy.folder, "checkout", "--quiet", CHANGED)

    commit = git(copy.folder, "rev-parse", "HEAD")
    sides = [read_side(str(tmp_path / name)) for name in ("committed", "changed")]
    assert [side.cells[0].tree for side in sides] == [Tree(commit), Tree(commit, dirty=True)]
    assert sides[0].cells[0].key == sides[1].cells[0].key
    code, said = copy.gate("committed", "committed")
    assert code == 0
    assert f"the source that made the candidate: commit {commit} " in said
    for baseline, candidate, whose in (
        ("committed", "changed", "candidate"),
        ("changed", "committed", "baseline"),
    ):
        code, said = copy.gate(baseline, candidate)
        assert code == 2
        assert f"the source that made the {whose} is not that of its commit" in said
        assert "or add --allow-dirty" in said
    code, said = copy.gate("changed", "changed", "--allow-dirty")
    assert code == 0
    assert f"the source that made the baseline: commit {commit}, with changes" in said
