"""What is said of a number's making."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from unlearn_bench.runs import provenance
from unlearn_bench.runs.resolve import EVALUATION_CODE


def test_code_hash_follows_imports_within_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pkg"
    (package / "room").mkdir(parents=True)
    (package / "a.py").write_text("from pkg.room import b\nimport os\n")
    (package / "room" / "b.py").write_text("import pkg.c\n")
    (package / "c.py").write_text("X = 1\n")
    (package / "unrelated.py").write_text("Y = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    before = provenance.code_sha256([package / "a.py"])
    (package / "unrelated.py").write_text("Y = 2\n")
    assert provenance.code_sha256([package / "a.py"]) == before
    (package / "c.py").write_text("X = 2\n")
    assert provenance.code_sha256([package / "a.py"]) != before


def test_a_new_source_of_models_changes_no_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "unlearn_bench"
    shutil.copytree(provenance.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", package)
    edit = [package / "methods" / "npo.py", package / "methods" / "run.py"]

    def changed(*names: str) -> str:
        for name in names:
            with (package / name).open("a") as file:
                file.write("# changed\n")
        return provenance.code_sha256(edit)

    before = provenance.code_sha256(edit)
    assert changed("models/embedded.py", "models/open.py", "models/hub.py") == before
    assert changed("training/prepare.py") != before


def test_code_hash_of_a_users_file_does_not_depend_on_its_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("import math\n")
    one, two = (provenance.code_sha256([tmp_path / f / "mine.py"]) for f in ("one", "two"))
    assert one == two


def test_versions_name_vllm_only_when_it_runs() -> None:
    assert "vllm" not in provenance.versions("transformers")
    assert "vllm" in provenance.versions("vllm")
    assert provenance.versions("vllm")["torch"]


def test_no_host_name_is_recorded() -> None:
    facts = provenance.machine()
    assert platform.node() not in map(str, facts.values())
    assert int(facts["memory_bytes"]) > 0


def test_file_hash_covers_every_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = provenance.file_sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert provenance.file_sha256(tmp_path) != before
    assert provenance.file_sha256(tmp_path / "a") == before


def test_evaluation_code_is_what_numbers_pass_through_and_no_more() -> None:
    """An option more on the command line makes no cell another one."""
    roots = [provenance.PACKAGE / name for name in (*EVALUATION_CODE, "engine/vllm_engine.py")]
    names = {str(file.relative_to(provenance.PACKAGE)) for file in provenance._closure(roots)}
    assert {"engine/under_target.py", "engine/likelihood.py", "protocols/scoring.py"} <= names
    assert not {"config.py", "registry.py", "runs/execute.py", "board/publish.py"} & names
