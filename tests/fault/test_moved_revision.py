"""A data set whose repository moved on, or whose file was replaced: never scored as the old one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data_files import REAL_DATA, needs_real_data, snapshot_folder, write_jsonl
from tests.unit.test_cli import invoke
from unlearn_bench.data import realtoxicityprompts
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import DATASETS, load_documents, load_edit_set
from unlearn_bench.errors import CorruptDataError, MissingDataError

NAME, NEW = "realtoxicityprompts", "f" * 40


def rows(word: str) -> list[dict[str, Any]]:
    """Twelve prompts, half of them challenging, each with the word."""
    return [
        {"prompt": {"text": f"Once upon a time {n}{word}", "toxicity": 0.1}, "challenging": n < 6}
        for n in range(12)
    ]


@pytest.fixture(autouse=True)
def any_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be shorter than the real ones."""
    monkeypatch.setitem(DATASETS, NAME, replace(DATASETS[NAME], counts={}, released={}))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this machine, in which `main` is a commit after the pinned one."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    pinned = snapshot_folder(cache, DATASETS[NAME].hub)
    write_jsonl(pinned.with_name(NEW) / "prompts.jsonl", rows(" moved"))
    refs = pinned.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(NEW)
    return cache


@needs_real_data
@pytest.mark.parametrize(
    ("dataset", "name", "old", "new"),
    [
        ("truthfulqa", "truthfulqa/TruthfulQA.csv", "Nothing", "Something"),
        ("gsm8k", "gsm8k/test.jsonl", "Janet", "Karen"),
        ("xstest", "xstest/xstest_prompts.csv", "Python", "Perl"),
        ("tofu_forget01", "tofu/world_facts_perturbed.json", "Sputnik 1", "Sputnik 3"),
    ],
)
def test_a_changed_file_with_as_many_rows_is_refused(
    dataset: str, name: str, old: str, new: str, tmp_path: Path
) -> None:
    """The released ones pass; of one word another, nothing is asked."""
    data = tmp_path / "data"
    load: Any = load_edit_set if dataset.startswith("tofu") else load_documents
    shutil.copytree(REAL_DATA / name.split("/")[0], data / name.split("/")[0])
    options = SourceOptions(data, True, tmp_path / "cache")
    load(dataset, options)
    content = (data / name).read_bytes()
    assert old.encode() in content
    (data / name).write_bytes(content.replace(old.encode(), new.encode(), 1))
    with pytest.raises(CorruptDataError, match="is not the released file") as caught:
        load(dataset, options)
    assert caught.value.where == str(data / name)
    assert "--tasks FILE.yaml" in caught.value.next_step


def test_a_later_commit_of_the_repository_is_not_the_data_set(
    hub_cache: Path, tmp_path: Path
) -> None:
    options = SourceOptions(cache=tmp_path / "cache", offline=True)
    with pytest.raises(MissingDataError, match="is not in the hub's cache"):
        load_documents(NAME, options)
    pinned = snapshot_folder(hub_cache, DATASETS[NAME].hub)
    write_jsonl(pinned / "prompts.jsonl", rows(" pinned"))
    documents = load_documents(NAME, options)
    assert documents.origin.revision == pinned.name
    texts = [str(row) for split in documents.splits.values() for row in split]
    assert texts
    assert all("pinned" in text for text in texts)


def test_a_file_that_was_replaced_makes_other_cells_which_no_command_compares(
    long_tiny_folder: Path, tmp_path: Path
) -> None:
    run = [
        *("evaluate", "--target", str(long_tiny_folder), "--methods", "noop", "--offline"),
        *("--engine", "transformers", "--scorer", "profanity_check", "--tasks", NAME),
        *("--limit", "4", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "run")),
    ]
    cells: list[Path] = []
    for word in (" first", " second"):
        for name in (realtoxicityprompts.FOLDER_POOL, realtoxicityprompts.FOLDER_CHALLENGING):
            write_jsonl(tmp_path / "data" / name, rows(word))
        result = invoke(*run)
        assert result.exit_code == 0, result.output
        assert "already done" not in result.output
        (cell,) = set((tmp_path / "run" / "cells").iterdir()) - set(cells)
        cells.append(cell)
    compared = invoke("compare", *map(str, cells))
    assert compared.exit_code == 3
    assert "data_sha256" in compared.output
    (board,) = (tmp_path / "run").glob("leaderboards/**/*.json")
    assert len(json.loads(board.read_text())["rows"]) == 1
