"""A file that ends too early is named, with its end; a copy that lacks files is no copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit import public_files
from tests.unit.data_files import snapshot_folder, write_jsonl, write_parquet
from unlearn_bench.data import gsm8k, realtoxicityprompts, sources, toxigen, wikibio, wikitext
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import (
    DATASETS,
    PUBLIC_SETS,
    load_documents,
    load_edit_set,
    load_validation,
)
from unlearn_bench.errors import CorruptDataError, MissingDataError

Counts = dict[str, tuple[int, ...]]

UNCOUNTED = ("passage", "neighbor_level1", "neighbor_level2")  # of RWKU, see its reader


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty; nothing else is asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a data set be whole with so many rows in each split, from every source."""

    def set_counts(name: str, **counts: int) -> None:
        each: dict[str, Counts] = {
            source: {split.replace("__", "/"): (count,) for split, count in counts.items()}
            for source in ("folder", "hub")
        }
        if name in PUBLIC_SETS:
            known = PUBLIC_SETS[name]
            other = replace(known, dataset=replace(known.dataset, counts=each, released={}))
            monkeypatch.setitem(sources.PUBLIC_SETS, name, other)
        else:
            monkeypatch.setitem(
                sources.DATASETS, name, replace(DATASETS[name], counts=each, released={})
            )

    return set_counts


def options(tmp_path: Path) -> SourceOptions:
    return SourceOptions(tmp_path / "data", True, tmp_path / "cache")


def cut(read: Callable[[], Any]) -> CorruptDataError:
    with pytest.raises(CorruptDataError, match="rows, expected") as caught:
        read()
    return caught.value


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"prompt": {"text": f"So {n}"}, "challenging": n % 2 == 0} for n in range(count)]


class TestTheFileThatIsCut:
    def test_of_two_files_in_a_folder(self, tmp_path: Path, whole: Callable[..., None]) -> None:
        """The challenging prompts are the second file; two of three lines are left of it."""
        whole("realtoxicityprompts", train=4, challenging=3)
        write_jsonl(tmp_path / "data" / realtoxicityprompts.FOLDER_POOL, prompts(4))
        path = tmp_path / "data" / realtoxicityprompts.FOLDER_CHALLENGING
        write_jsonl(path, prompts(2))
        error = cut(lambda: load_documents("realtoxicityprompts", options(tmp_path)))
        assert error.where == f"{path}, line 2"
        assert error.what == "split 'challenging' has 2 rows, expected 3"

    def test_of_one_file_with_two_splits(
        self, tmp_path: Path, whole: Callable[..., None], hub_cache: Path
    ) -> None:
        """Three lines, two of them challenging: the file ends at 3, not at 2."""
        known = DATASETS["realtoxicityprompts"]
        assert known.hub is not None
        whole("realtoxicityprompts", train=3, challenging=3)
        path = snapshot_folder(hub_cache, known.hub) / realtoxicityprompts.HUB_FILE
        write_jsonl(path, prompts(3))
        error = cut(lambda: load_documents("realtoxicityprompts", options(tmp_path)))
        assert error.where == f"{path}, line 3"

    def test_of_two_files_on_the_hub(
        self, tmp_path: Path, whole: Callable[..., None], hub_cache: Path
    ) -> None:
        known = DATASETS["gsm8k"]
        assert known.hub is not None
        whole("gsm8k", train=2, test=2)
        folder = snapshot_folder(hub_cache, known.hub)
        rows = [{"question": f"Q{n}?", "answer": "#### 1"} for n in range(2)]
        write_parquet(folder / gsm8k.HUB_FILES["train"], rows)
        path = write_parquet(folder / gsm8k.HUB_FILES["test"], rows[:1])
        error = cut(lambda: load_documents("gsm8k", options(tmp_path)))
        assert error.where == f"{path}, row 1"

    def test_of_a_table_whose_cells_have_line_breaks(
        self, tmp_path: Path, whole: Callable[..., None]
    ) -> None:
        """A header, and three pages of two lines each: it ends at line 7."""
        whole("wikibio", biographies=4, texts=4)
        public_files.write_wikibio(tmp_path / "data")
        path = tmp_path / "data" / wikibio.RETAIN_TEXTS
        path.write_text("text\n" + '"A page,\ncut."\n' * 3)
        error = cut(lambda: load_edit_set("wikibio", options(tmp_path)))
        assert error.where == f"{path}, line 7"

    def test_of_six_files(self, tmp_path: Path, whole: Callable[..., None]) -> None:
        whole("muse_news", raw__forget=1, raw__retain1=1, raw__retain2=2)
        public_files.write_muse(tmp_path / "data" / "muse" / "news")
        error = cut(lambda: load_edit_set("muse_news", options(tmp_path)))
        path = tmp_path / "data" / "muse" / "news" / "raw" / "retain2-00000-of-00001.parquet"
        assert error.where == f"{path}, row 1"

    def test_of_a_list_of_records(self, tmp_path: Path, whole: Callable[..., None]) -> None:
        whole("rwku_10", forget_level1=25, forget_level2=26)
        public_files.write_rwku(tmp_path / "data" / "rwku")
        error = cut(lambda: load_edit_set("rwku_10", options(tmp_path)))
        assert error.where == f"{tmp_path / 'data' / 'rwku' / 'forget_level2.json'}, record 25"


class TestToxigenOnTheHub:
    @staticmethod
    def write(cache: Path, *, rows: int) -> Path:
        hub = toxigen.DATASET.hub
        assert hub is not None
        folder = snapshot_folder(cache, hub)
        for name in toxigen.HUB_FILES:
            write_parquet(folder / name, [{"prompt": f"- {name} {n}"} for n in range(rows)])
        return folder

    def test_a_copy_without_one_of_the_groups_is_none(
        self, tmp_path: Path, hub_cache: Path
    ) -> None:
        """15 groups in both labels and one that has no neutral list: 31 files."""
        assert len(toxigen.HUB_FILES) == 2 * 16 - 1
        folder = self.write(hub_cache, rows=1)
        absent = "prompts/neutral_women_1k-00000-of-00001.parquet"
        (folder / absent).unlink()
        with pytest.raises(MissingDataError) as caught:
            load_documents("toxigen", options(tmp_path))
        assert f"the hub's cache of toxigen/toxigen-data lacks {absent}" in caught.value.what

    def test_fewer_prompts_than_the_authors_wrote(self, tmp_path: Path, hub_cache: Path) -> None:
        """31 files of 1,000 prompts are 31,000."""
        folder = self.write(hub_cache, rows=2)
        error = cut(lambda: load_documents("toxigen", options(tmp_path)))
        assert error.what == "split 'test' has 62 rows, expected 31000"
        assert error.where == str(folder / "prompts")

    def test_a_file_of_another_name_is_no_group(self, tmp_path: Path) -> None:
        path = tmp_path / "prompts" / "hate_martian_1k-00000-of-00001.parquet"
        write_parquet(path, [{"prompt": "- a"}])
        with pytest.raises(CorruptDataError, match="no label and group") as caught:
            toxigen.read_hub(tmp_path)
        assert caught.value.where == str(path)


def test_wikitexts_validation_pages_on_the_hub_are_counted(tmp_path: Path, hub_cache: Path) -> None:
    held_out = wikitext.HELD_OUT
    assert held_out.hub is not None
    path = snapshot_folder(hub_cache, held_out.hub) / wikitext.HUB_VALIDATION_FILE
    write_parquet(path, [{"page": f" = {n} = \n"} for n in range(59)])
    error = cut(lambda: load_validation("wikitext", options(tmp_path)))
    assert error.what == "split 'validation' has 59 rows, expected 60"
    assert error.where == f"{path}, row 59"


def test_what_is_asked_beside_the_texts_is_counted_too() -> None:
    """WikiBio's questions are read from as many rows as the texts."""
    counts = PUBLIC_SETS["wikibio"].dataset.counts["folder"]
    assert counts["questions"] == counts["texts"] == (2000,)


def test_every_split_is_looked_for_in_a_file_of_its_source() -> None:
    """In what the folder must have, and in what the hub is asked for."""
    for dataset in (*DATASETS.values(), *(known.dataset for known in PUBLIC_SETS.values())):
        known = {"folder": dataset.folder_files, "hub": dataset.hub.patterns if dataset.hub else ()}
        for source, files in dataset.split_files.items():
            for split, file in files.items():
                assert any(name == file or name.startswith(f"{file}/") for name in known[source])
                assert split in dataset.counts[source] or split in UNCOUNTED
