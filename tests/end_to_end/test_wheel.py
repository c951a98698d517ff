"""What is published is the wheel, so the wheel is what gets installed and asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS = {"fur", "gsm8k", "realtoxicityprompts", "toxigen", "truthfulqa", "wikitext"}
Command = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    options = ["--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([sys.executable, "-m", "build", *options, str(REPOSITORY)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs the installed `unlearn-bench` of a new environment, outside the repository."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    # The dependencies are borrowed as a plain path entry: behind the wheel's own files, and without
    # the .pth file by which this environment may itself point at the repository.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    borrowed = os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages"))
    site = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    environment = clean | {"PYTHONPATH": os.pathsep.join((site, borrowed))}
    (folder / "elsewhere").mkdir()

    def run(*command: str) -> str:
        path = python.parent / command[0]
        return subprocess.check_output(
            [str(path), *command[1:]], cwd=folder / "elsewhere", env=environment, text=True
        )

    return run


def test_wheel_carries_every_task_file_and_nothing_built(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"unlearn_bench/{file.relative_to(REPOSITORY)}"
        for file in (REPOSITORY / "tasks").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert wanted
    assert not wanted - inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith("tests/")]
    assert [name for name in inside if name.endswith("licenses/LICENSE")]


def test_wheel_carries_the_reports_templates(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    folder = "unlearn_bench/board/templates"
    wanted = {f"{folder}/{file.name}" for file in (REPOSITORY / folder).iterdir()}
    assert f"{folder}/report.html" in wanted
    assert wanted <= inside


def test_installed_package_is_the_wheels(installed: Command) -> None:
    where = installed("python", "-c", "import unlearn_bench; print(unlearn_bench.__file__)")
    assert "installed" in where
    assert str(REPOSITORY) not in where


def test_installed_command_lists_methods(installed: Command) -> None:
    names = unindented(installed("unlearn-bench", "list", "methods"))
    files = {file.stem for file in (REPOSITORY / "unlearn_bench" / "methods").glob("*.py")}
    assert {"noop", "random_noise", "model_surgery"} <= names
    assert names <= files  # method id = file name


def test_installed_command_lists_tasks(installed: Command) -> None:
    assert unindented(installed("unlearn-bench", "list", "tasks")) >= TASKS


def test_listing_takes_under_a_second(installed: Command) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        installed("unlearn-bench", "list", "methods")
        return time.perf_counter() - start

    seconds()  # the first call compiles the package's files
    assert min(seconds() for _ in range(3)) < 1.0


def unindented(listing: str) -> set[str]:
    """The names in a listing: details about them are indented."""
    return {line for line in listing.splitlines() if line and not line.startswith(" ")}
