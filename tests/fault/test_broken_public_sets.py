"""Damaged files of public sets are refused with file and line, record or row, never scored."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit import public_files
from tests.unit.data_files import write_jsonl
from unlearn_bench.data import counterfact, rwku, tofu, zsre
from unlearn_bench.data.files import read_json_records, read_jsonl
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_edit_set
from unlearn_bench.errors import CorruptDataError

Rows = list[dict[str, Any]]

# What JSON can hold where a text is expected.
NOT_A_TEXT = st.none() | st.booleans() | st.integers() | st.floats() | st.just("") | st.just(" \n")
NOT_A_TEXT |= st.lists(st.text(), max_size=2) | st.dictionaries(st.text(), st.none(), max_size=1)
HERE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["tofu", "counterfact", "zsre", "rwku"])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[], Any]]:
    """One file of a set, and how the set's reader reads the folder that it is in."""
    if request.param == "tofu":
        public_files.write_tofu(tmp_path)
        path = tmp_path / "forget01_perturbed.json"
        return path, lambda: tofu.read_split(tmp_path, name="forget01")
    if request.param == "counterfact":
        path = tmp_path / counterfact.FILE
        public_files.write_json(path, public_files.counterfact_records(3))
        return path, lambda: counterfact.read_folder(tmp_path)
    if request.param == "zsre":
        public_files.write_zsre(tmp_path)
        return tmp_path / zsre.FILE, lambda: zsre.read_folder(tmp_path)
    public_files.write_rwku(tmp_path)
    return tmp_path / "passage.json", lambda: rwku.read_files(tmp_path)


def refused(path: Path, read: Callable[[], Any]) -> CorruptDataError:
    with pytest.raises(CorruptDataError) as caught:
        read()
    assert str(path) in caught.value.where
    return caught.value


@HERE
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(
    cut: float, released: tuple[Path, Callable[[], Any]]
) -> None:
    """Cut at a line's end TOFU's file is whole JSON lines, but no longer its forget set."""
    path, read = released
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(cut * (len(whole) - 1))])
        with pytest.raises(CorruptDataError):
            read()
    finally:
        path.write_bytes(whole)


@HERE
@given(data=st.data(), value=NOT_A_TEXT)
def test_a_field_of_another_type_is_refused_with_its_record(
    data: st.DataObject, value: Any, released: tuple[Path, Callable[[], Any]]
) -> None:
    path, read = released
    whole = path.read_text()
    lines = path.name == "forget01_perturbed.json"
    rows = [json.loads(line) for line in whole.splitlines()] if lines else json.loads(whole)
    texts = {"question", "answer", "prompt", "subject", "src", "alt", "loc_ans", "text"}
    keys = sorted(texts & rows[0].keys())
    number = data.draw(st.integers(0, len(rows) - 1))
    rows[number][data.draw(st.sampled_from(keys))] = value
    try:
        if lines:
            write_jsonl(path, rows)
        else:
            public_files.write_json(path, rows)
        place = f"{'line' if lines else 'record'} {number + 1}"
        assert refused(path, read).where == f"{path}, {place}"
    finally:
        path.write_text(whole)


@HERE
@given(content=st.binary(max_size=60))
def test_no_bytes_get_past_the_readers_unread(content: bytes, tmp_path: Path) -> None:
    """Whatever a file holds, it is rows with the wanted keys, or refused by name."""
    path = tmp_path / "file.json"
    path.write_bytes(content)
    for read in (read_jsonl, read_json_records):
        rows: Rows = []
        with contextlib.suppress(CorruptDataError):
            rows = read(path, ("question",))
            assert rows
        assert all("question" in row for row in rows)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"question": ' * 50_000])
def test_nesting_without_end_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    for read in (read_jsonl, read_json_records):
        refused(path, lambda read=read: read(path))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("full", lambda rows: rows[:-1] + rows[-2:-1], "repeats question and answer of line 79"),
        ("forget01", lambda rows: rows[::-1], "not the last rows of full.json"),
        ("forget01_perturbed", lambda rows: rows[::-1], "not the questions of forget01_perturbed"),
        ("retain_perturbed", lambda rows: [{**rows[0], "answer": "Else."}], "is not in full.json"),
        (
            "world_facts_perturbed",
            lambda rows: [rows[0] | {"perturbed_answer": ["Italy", "Spain"]}],
            "a wrong option is the answer",
        ),
        (
            "world_facts_perturbed",
            lambda rows: [rows[0] | {"perturbed_answer": []}],
            "perturbed_answer is not a list of texts",
        ),
        (
            "forget01_perturbed",
            lambda rows: [{k: v for k, v in row.items() if k[:9] != "paraphras"} for row in rows],
            "line 1",
        ),
        (
            "forget01_perturbed",
            lambda rows: [rows[0], rows[1] | {"paraphrased_answer": " "}, *rows[2:]],
            "paraphrased_answer is not a text",
        ),
        (
            "retain_perturbed",
            lambda rows: [rows[0] | {"paraphrased_answer": rows[0]["perturbed_answer"][1]}],
            "a wrong option is the answer",
        ),
    ],
)
def test_tofu_files_that_do_not_fit_each_other(
    name: str, damage: Callable[[Rows], Rows], words: str, tmp_path: Path
) -> None:
    public_files.write_tofu(tmp_path, **{name: damage(public_files.tofu_rows()[name])})
    with pytest.raises(CorruptDataError) as caught:
        tofu.read_split(tmp_path, name="forget01")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"case_id": 0}, "repeats case_id of record 1"),
        ({"case_id": "one"}, "case_id is not a whole number"),
        ({"target_new": "French"}, "nothing is updated"),
    ],
)
def test_counterfact_records_that_cannot_be(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    records = public_files.counterfact_records(3)
    records[1] |= change
    path = public_files.write_json(tmp_path / counterfact.FILE, records)
    error = refused(path, lambda: counterfact.read_folder(tmp_path))
    assert words in error.what
    assert error.where == f"{path}, record 2"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tofu_forget01", "split 'full' has 80 rows, expected 4000"),
        ("counterfact_100", "split 'records' has 250 rows, expected 10000"),
        ("wikibio", "split 'biographies' has 4 rows, expected 238"),
        ("rwku_10", "split 'forget_level1' has 25 rows, expected 3268"),
        ("muse_news", "split 'raw/forget' has 1 rows, expected 889"),
    ],
)
def test_another_number_of_rows_than_the_authors_released(
    name: str, words: str, tmp_path: Path
) -> None:
    options = SourceOptions(public_files.write_all(tmp_path / "data"), True, tmp_path / "cache")
    with pytest.raises(CorruptDataError) as caught:
        load_edit_set(name, options)
    assert words in str(caught.value)


def test_the_count_names_the_file_of_its_split(tmp_path: Path) -> None:
    rows = public_files.tofu_rows()
    rows["full"] = [{"question": f"Q{i}?", "answer": "A."} for i in range(3960)] + rows["forget01"]
    rows["retain_perturbed"] = [
        rows["full"][0]
        | {"paraphrased_question": "Q?", "paraphrased_answer": "C", "perturbed_answer": ["B"]}
    ]
    public_files.write_tofu(tmp_path / "tofu", **rows)
    with pytest.raises(CorruptDataError) as caught:
        load_edit_set("tofu_forget01", SourceOptions(tmp_path, True, tmp_path / "cache"))
    assert caught.value.where.endswith("retain_perturbed.json, line 1")
    assert "has 1 rows, expected 400" in caught.value.what


def test_a_person_without_a_passage_would_be_forgotten_unlearned(tmp_path: Path) -> None:
    public_files.write_rwku(tmp_path)
    path = tmp_path / "passage.json"
    passages = json.loads(path.read_text())
    public_files.write_json(path, passages[:7] + passages[8:])
    error = refused(path, lambda: rwku.read_files(tmp_path))
    assert error.what == "has no passage about 'Person 7'"
