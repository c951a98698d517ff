"""Cells on disk: faithful, atomic, verified on reading."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_bench.errors import CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.schema import ItemScore, Sample, Score

TEXTS = st.text(max_size=40)
FLOATS = st.floats(allow_nan=False)
SAMPLES = st.builds(
    Sample,
    task=TEXTS,
    item_id=TEXTS,
    filter=TEXTS,
    prompt=TEXTS,
    outputs=st.lists(TEXTS, max_size=3).map(tuple),
    values=st.dictionaries(TEXTS, st.one_of(FLOATS, st.tuples(FLOATS, FLOATS)), max_size=3),
    document=st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.lists(TEXTS)), max_size=3),
    likelihoods=st.lists(st.tuples(FLOATS, st.booleans()), max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(samples=st.lists(SAMPLES, max_size=4))
def test_samples_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.parquet"
    store.write_samples(path, samples)
    assert store.read_samples(path) == samples


def test_texts_keep_newlines_nulls_and_every_script(tmp_path: Path) -> None:
    text = "a\r\nb\x00c\u2028 \ufffd 漢字 🙂 \t  "
    sample = Sample("t", "1", "none", text, (text, ""), {"m": math.inf}, {"q": text})
    store.write_samples(tmp_path / "s.parquet", [sample])
    assert store.read_samples(tmp_path / "s.parquet") == [sample]


def test_items_keep_missing_values_missing(tmp_path: Path) -> None:
    items = [
        ItemScore("t", "m", "1", "", math.nan, 1.0),
        ItemScore("t", "m", "2", "g", -0.1, 3.0),
        ItemScore("t", "m", "3", "", -math.inf, 1.0),
    ]
    store.write_items(tmp_path / "i.parquet", items)
    back = store.read_items(tmp_path / "i.parquet")
    assert math.isnan(back[0].value)
    assert back[1:] == items[1:]


def test_scores_keep_non_finite_values(tmp_path: Path) -> None:
    score = Score("t", "m", math.inf, math.nan, 3, 1, "lower", "")
    store.write_json(tmp_path / "scores.json", [score])
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    (back,) = store.read_scores(tmp_path / "scores.json")
    assert back.value == math.inf
    assert math.isnan(back.stderr)
    assert (back.n, back.missing) == (3, 1)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    sample = Sample("t", "1", "none", "p", ("o",), {"m": 1.0}, {})
    hashes = {store.write_samples(tmp_path / name, [sample]) for name in ("a", "b")}
    assert len(hashes) == 1


def finished(folder: Path, key: str = "k" * 64) -> store.Record:
    files = {"scores.json": store.write_json(folder / "scores.json", [])}
    record = store.Record("npo", 0, key, "success", seconds={"edit": 1.5}, files=files)
    store.write_record(folder, record)
    return record


def test_a_record_comes_back_verified(tmp_path: Path) -> None:
    record = finished(tmp_path)
    assert store.read_record(tmp_path, record.key) == record


def test_no_record_means_none(tmp_path: Path) -> None:
    assert store.read_record(tmp_path, "k") is None


def test_a_record_of_another_key_is_not_this_cell(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(CorruptDataError, match="another cell"):
        store.read_record(tmp_path, "other")


@pytest.mark.parametrize("name", ["..", "../x", "a/../../..", "/etc"])
def test_no_name_leads_out_of_the_output_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        store.inside(tmp_path, name)


def test_a_link_does_not_lead_out_either(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError):
        store.inside(tmp_path / "out", "link", "cell")


def test_two_runs_never_share_an_output_folder(tmp_path: Path) -> None:
    with (
        store.exclusive(tmp_path),
        pytest.raises(UnlearnBenchError, match="another process"),
        store.exclusive(tmp_path),
    ):
        pass
    with store.exclusive(tmp_path):  # free again
        pass


def test_set_aside_keeps_every_damaged_cell(tmp_path: Path) -> None:
    places = []
    for _ in range(2):
        folder = tmp_path / "cells" / "abc-npo-s0"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("?")
        places.append(store.set_aside(tmp_path, folder))
    assert len(set(places)) == 2
    assert all((place / "record.json").read_text() == "?" for place in places)


def test_to_json_takes_what_methods_return() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": {3, 1}, "d": Path("x"), "e": math.nan}
    assert store.to_json(value) == {"a": 0.5, "b": [0, 1], "c": [1, 3], "d": "x", "e": "nan"}


def test_canonical_json_ignores_the_order_of_keys_only() -> None:
    assert store.canonical_json({"a": 1, "b": [1, 2]}) == store.canonical_json(
        {"b": [1, 2], "a": 1}
    )
    assert store.canonical_json([1, 2]) != store.canonical_json([2, 1])
