"""What a user calls things becomes part of paths: a name is refused before any work, or what is
written lies in the output folder all the same.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.harness_files import write_index
from tests.unit.test_cli import invoke
from unlearn_bench.config import Suite
from unlearn_bench.errors import UsageError

NAMES = {"upwards": "../x", "a drive": r"C:\x", "a NUL": "a\0b", "long": "x" * 300}
METHOD = """
from unlearn_bench.registry import method

@method({name!r}, paper="", kind="edit", needs=(), targets=(), goals=())
def edit(context):
    return {{}}
"""
Options = dict[str, str]
where_possible = contextlib.suppress(OSError, ValueError)  # else there is nothing of that name


def suite(name: str, model: Path) -> Options:
    Path("mine.yaml").write_text(f"name: {json.dumps(name)}\ntasks: [toxigen_mini]\n")
    return {"--suite": "mine.yaml"}


def output(name: str, model: Path) -> Options:
    return {"--output": name}


def method(name: str, model: Path) -> Options:
    Path("mine.py").write_text(METHOD.format(name=name))
    return {"--methods": "mine.py"}


def method_file(name: str, model: Path) -> Options:
    with where_possible:
        Path(f"{name}.py").write_text(METHOD.format(name="mine"))
    return {"--methods": f"{name}.py"}


def model_folder(name: str, model: Path) -> Options:
    with where_possible:
        shutil.copytree(model, name)
    return {"--target": name}


ONLY_READ = (method_file, model_folder)  # these may lie anywhere


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
@pytest.mark.parametrize(
    "thing", [suite, output, method, *ONLY_READ], ids=lambda thing: thing.__name__
)
def test_no_name_leads_out_of_the_output_folder(
    thing: Callable[[str, Path], Options],
    name: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real command on a small model. The drive of another system is a plain name on this."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    write_index(tmp_path / "cache")
    options = {
        "--output": "runs", "--suite": "smoke", "--target": str(tiny_folder), "--methods": "noop",
        "--tasks": "toxigen_mini", "--limit": "1", "--scorer": "profanity_check",
        "--engine": "transformers",
    } | thing(name, tiny_folder)  # fmt: skip
    before = set(tmp_path.rglob("*"))
    words = [word for option in options.items() for word in option]
    done = invoke("evaluate", "--offline", *words)
    new = set(tmp_path.rglob("*")) - before
    made = {path for path in new if path.is_file() and path.suffix != ".pyc"}  # that is Python's
    there = Path(options["--output"]).absolute()
    outside = {path for path in made if not path.is_relative_to(tmp_path / "cache")}
    if done.exit_code == 0:
        assert all(path.is_relative_to(there) for path in outside)
        records = {path for path in outside if path.name == "record.json"}
        assert records == set(there.glob("cells/*/record.json")) != set()
    else:
        assert done.exit_code == 2, done.output
        assert thing not in ONLY_READ or name in (NAMES["a NUL"], NAMES["long"])
        assert "error" in done.output.lower()
        assert not outside


def test_a_task_file_may_be_called_anything() -> None:
    suite = Suite(name="smoke", tasks=("fur",))
    assert suite.narrowed((r"C:\my task.yaml",), None).name == "smoke-C-my-task"


def test_a_name_that_grows_too_long_by_what_it_is_narrowed_to_is_refused() -> None:
    suite = Suite(name="x" * 128, tasks=("fur",))
    for narrow in (lambda: suite.narrowed(None, 5), lambda: suite.over("tofu_forget10")):
        with pytest.raises(UsageError, match="name"):
            narrow()
