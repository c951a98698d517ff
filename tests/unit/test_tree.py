"""Whether the running source is what its commit says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unlearn_bench.runs import tree
from unlearn_bench.runs.tree import Tree, source_tree


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed package with tasks beside it and something else."""
    for name in ("package/__init__.py", "tasks/one.yaml", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(tree, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(tree, "tasks_folder", lambda: tmp_path / "tasks")
    return tmp_path


def test_a_commit_without_changes(package: Path) -> None:
    (package / "README").write_text("2")  # moves no number
    assert source_tree() == Tree(git(package, "rev-parse", "HEAD"), dirty=False)


@pytest.mark.parametrize("name", ["package/__init__.py", "package/new.py", "tasks/one.yaml"])
def test_changed_and_new_files_are_dirty(package: Path, name: str) -> None:
    (package / name).write_text("2")
    assert source_tree().dirty


def test_a_package_installed_inside_anothers_tree_has_none(package: Path) -> None:
    git(package, "rm", "--quiet", "--cached", "package/__init__.py")
    assert source_tree() == Tree()


def test_a_tree_that_git_cannot_read_is_not_clean(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose checkout is another user's, or without git."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert source_tree() == Tree(dirty=True)
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    monkeypatch.setenv("PATH", "")
    assert source_tree() == Tree(dirty=True)


def test_an_installed_package_needs_no_git(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / ".git").rename(package.parent / "elsewhere")
    assert source_tree() == Tree()
    monkeypatch.setenv("PATH", "")
    assert source_tree() == Tree()
