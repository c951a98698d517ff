"""Readers of data sets, on any file: well-formed items, or an error of ours that names the file."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.bounds import bounded
from tests.property.data_sets import BYTES, DATA_SETS, File
from tests.property.well_formed import outcome, require_what_was_said
from unlearn_bench.data import wikitext
from unlearn_bench.data.files import verify_sha256sums
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError

# No file may hang a reader.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("small_sets")]

# Words are left where a written line break (ToxiGen's hub has them) is made a real one.
TEXT = st.text(min_size=1, max_size=12).filter(lambda text: text.replace("\\n", "\n").strip())
TEXTS = st.lists(TEXT, min_size=2, max_size=4, unique_by=str.strip)
HUGE = 10**400  # no float holds it
ODD = st.sampled_from((math.nan, math.inf, -math.inf, HUGE, -HUGE, "\ud800", "", " \n", "a\0b"))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | ODD,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=5,
)
# What a parquet file can hold in place of a text or a number.
COLUMNS = st.sampled_from(
    (None, True, 7, math.nan, math.inf, "", " \n", "a\0b", b"\xff", [], ["a"], [None], {"a": 1})
)
CHANGES = ("dropped", "another type", "another type", "more", "repeated", "no rows")


@pytest.mark.parametrize("name", DATA_SETS)
@bounded(6)
@given(texts=TEXTS, escaped=st.booleans())
def test_whole_files_are_read_whatever_the_texts(
    name: str, texts: list[str], escaped: bool, tmp_path: Path
) -> None:
    files = DATA_SETS[name].make(texts)
    for file in files:
        file.write(tmp_path, file.content(escaped))
    found = outcome(DATA_SETS[name], tmp_path, files)
    assert not isinstance(found, UnlearnBenchError), found


@pytest.mark.parametrize("name", DATA_SETS)
@bounded(15)
@given(
    texts=TEXTS,
    escaped=st.booleans(),
    damage=st.sampled_from(sorted(BYTES)),
    place=st.floats(0, 1, exclude_max=True),
    unpacked=st.booleans(),
    data=st.data(),
)
def test_no_bytes_do_anything_else(
    name: str,
    texts: list[str],
    escaped: bool,
    damage: str,
    place: float,
    unpacked: bool,
    data: st.DataObject,
    tmp_path: Path,
) -> None:
    """unpacked: what gzip packs is damaged, and not what it makes of it."""
    files = DATA_SETS[name].make(texts)
    broken = data.draw(st.sampled_from(files))
    for file in files:
        content = file.content(escaped)
        own = file is broken
        path = file.write(tmp_path, BYTES[damage](content, place) if own and unpacked else content)
        if own and not unpacked:
            path.write_bytes(BYTES[damage](path.read_bytes(), place))
    outcome(DATA_SETS[name], tmp_path, files)


def with_rows_changed(file: File, change: str, row: int, key: str, junk: Any) -> File:
    """A parquet file's column has one type: there, every row changes."""
    rows = copy.deepcopy(file.rows)
    for number in range(len(rows)) if file.form == "parquet" else [row]:
        if change == "dropped":
            del rows[number][key]
        elif change == "another type":
            rows[number][key] = junk
        elif change == "more":
            rows[number][str(junk)[:8] if row % 2 else "id"] = junk
    if change == "repeated":
        rows.append(rows[row])
    return replace(file, rows=[] if change == "no rows" else rows)


@pytest.mark.parametrize("name", DATA_SETS)
@bounded(25)
@given(texts=TEXTS, change=st.sampled_from(CHANGES), data=st.data())
def test_rows_of_another_form_do_nothing_else(
    name: str, texts: list[str], change: str, data: st.DataObject, tmp_path: Path
) -> None:
    files = DATA_SETS[name].make(texts)
    which = data.draw(st.integers(0, len(files) - 1))
    row = data.draw(st.integers(0, len(files[which].rows) - 1))
    key = data.draw(st.sampled_from(sorted(files[which].rows[row])))
    junk = data.draw(COLUMNS if files[which].form == "parquet" else JUNK)
    files[which] = with_rows_changed(files[which], change, row, key, junk)
    for file in files:
        file.write(tmp_path, file.content(escaped=True))
    found = outcome(DATA_SETS[name], tmp_path, files)
    require_what_was_said(name, found, files)
    knows_lines = files[which].form in ("lines", "list") and name != "behaviour"
    if isinstance(found, UnlearnBenchError) and change == "dropped" and knows_lines:
        path, _, place = found.where.rpartition(", ")
        assert path == str(tmp_path / files[which].path)
        assert place in (f"line {row + 1}", f"record {row + 1}")


LINES = st.lists(st.sampled_from((" = A = ", " = = B = = ", "= C =", "text = x", " ", "")))


@bounded(100)
@given(lines=LINES)
def test_pages_are_all_of_the_text_but_blank_lines_before_the_first(lines: list[str]) -> None:
    text = "\n".join(lines)
    pages = list(wikitext.split_pages(text))
    joined = "\n".join(pages)
    assert text.endswith(joined)
    assert not text[: len(text) - len(joined)].strip()
    assert all(page.lstrip().startswith("=") for page in pages[1:])


@bounded(40)
@given(text=st.text(max_size=40))
def test_no_other_text_is_wikitext(text: str, tmp_path: Path) -> None:
    for file, read in (
        (File(wikitext.FOLDER_FILE, "lines", []), wikitext.read_folder),
        (File(wikitext.FOLDER_VALIDATION_FILE, "lines", []), wikitext.read_folder_validation),
    ):
        path = file.write(tmp_path, text.encode())
        with pytest.raises(CorruptDataError) as caught:
            read(tmp_path)
        assert caught.value.where == str(path)


@bounded(80)
@given(
    content=st.binary(max_size=80)
    | st.builds("{}  {}\n".format, st.just("0" * 64), st.text(st.characters(), max_size=6)).map(
        lambda line: line.encode(errors="replace")
    )
)
def test_any_list_of_hashes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(content)
    try:
        sums = verify_sha256sums(tmp_path)
    except UnlearnBenchError as error:
        sums = {}
        named = error.where
    else:
        named = str(tmp_path)
    assert not sums
    assert named.startswith(str(tmp_path))
