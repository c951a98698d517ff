"""Cells on disk: whatever was measured comes back as it was, and damage never as another number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.bounds import bounded
from tests.unit import report_cells, stored_cells
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.baseline import read_baseline, write_baseline
from unlearn_bench.runs.finished import open_cell, read_cells
from unlearn_bench.runs.sides import MeasuredCell, read_cell, read_side
from unlearn_bench.runs.tree import Tree
from unlearn_bench.schema import SCORED, ItemScore, Sample, Score, TokenLikelihoods

T = TypeVar("T")
KEY = "0123456789abcdef" * 4
TEXTS = st.text(max_size=20)
FLOATS = st.floats()
SINGLES = st.floats(width=32)
# File names that are no UTF-8 reach messages as lone surrogates of this range.
ODD_BYTES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
REASONS = st.text(st.characters(codec="utf-8") | ODD_BYTES, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


ANY_TEXT = st.text(st.characters(), max_size=10)  # lone surrogates as well


def lists(part: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(part, max_size=size).map(tuple)


TOKENS = st.builds(
    TokenLikelihoods,
    log_probs=lists(SINGLES),
    greedy=lists(st.booleans()),
    means=lists(SINGLES),
    deviations=lists(SINGLES),
)
SAMPLES = st.builds(
    Sample,
    task=TEXTS,
    item_id=TEXTS,
    filter=TEXTS,
    prompt=TEXTS,
    outputs=lists(TEXTS),
    values=st.dictionaries(TEXTS, FLOATS | st.tuples(FLOATS, FLOATS), max_size=3),
    document=st.dictionaries(TEXTS, JSON, max_size=3),
    likelihoods=lists(st.tuples(FLOATS, st.booleans())),
    tokens=lists(TOKENS, 2),
    under_target=lists(FLOATS),
)
ITEMS = st.builds(
    ItemScore,
    task=TEXTS,
    metric=TEXTS,
    item_id=TEXTS,
    group=TEXTS,
    value=FLOATS,
    weight=FLOATS,
    cluster=TEXTS,
)
SCORES = st.builds(
    Score,
    task=REASONS,
    metric=REASONS,
    value=FLOATS,
    stderr=FLOATS,
    n=st.integers(0),
    missing=st.integers(0),
    direction=st.sampled_from(("higher", "lower", "nearer_exact", "none")),
    unit=REASONS,
    low=FLOATS,
    high=FLOATS,
)


def spelled(value: Any) -> str:
    """By what two values are told apart: NaN is itself, and −0 is not 0."""
    return repr(value)


@bounded(60)
@given(samples=st.lists(SAMPLES, max_size=3))
def test_samples_come_back_with_missing_and_infinite_values(
    tmp_path: Path, samples: list[Sample]
) -> None:
    """A document is JSON: there, NaN and infinity become the words for them."""
    store.write_samples(tmp_path / "samples.parquet", samples)
    told = [{**vars(sample), "document": store.to_json(sample.document)} for sample in samples]
    found = [vars(sample) for sample in store.read_samples(tmp_path / "samples.parquet")]
    assert spelled(found) == spelled(told)


@bounded(60)
@given(items=st.lists(ITEMS, max_size=4))
def test_items_come_back(tmp_path: Path, items: list[ItemScore]) -> None:
    store.write_items(tmp_path / "items.parquet", items)
    assert spelled(store.read_items(tmp_path / "items.parquet")) == spelled(items)


@bounded(60)
@given(scores=st.lists(SCORES, max_size=3))
def test_scores_come_back(tmp_path: Path, scores: list[Score]) -> None:
    store.write_json(tmp_path / "scores.json", scores)
    json.loads((tmp_path / "scores.json").read_bytes(), parse_constant=pytest.fail)
    assert spelled(store.read_scores(tmp_path / "scores.json")) == spelled(scores)


RECORDS = st.builds(
    store.Record,
    method=TEXTS,
    seed=st.integers(),
    key=TEXTS,
    status=st.sampled_from(store.STATUSES),
    reason=REASONS,
    started=TEXTS,
    finished=TEXTS,
    seconds=st.dictionaries(TEXTS, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)


@bounded(60)
@given(record=RECORDS)
def test_a_record_comes_back(tmp_path: Path, record: store.Record) -> None:
    store.write_record(tmp_path, record)
    assert spelled(store.read_record(tmp_path, record.key)) == spelled(record)
    if record.status not in SCORED:  # else it has to name the scores
        assert open_cell(tmp_path).record == record


@bounded(100)
@given(one=JSON, other=JSON)
def test_two_values_have_one_hash_only_if_they_are_one_json(one: Any, other: Any) -> None:
    def spelling(value: Any) -> str:
        return json.dumps(store.to_json(value), sort_keys=True)

    assert (store.digest(one) == store.digest(other)) == (spelling(one) == spelling(other))
    assert store.digest(one) == store.digest(json.loads(spelling(one)))


@dataclass(frozen=True)
class Damage:
    """One fault of a disk or a hand: what it does to a file, at which share of its length."""

    kind: str
    place: float
    byte: int

    @contextmanager
    def done_to(self, path: Path) -> Iterator[None]:
        """Damage the file, and mend it afterwards."""
        whole = path.read_bytes()
        at = int(self.place * len(whole))
        broken = {
            "changed": whole[:at] + bytes([whole[at] ^ self.byte]) + whole[at + 1 :],
            "cut": whole[:at],
            "removed": whole[:at] + whole[at + 1 :],
            "inserted": whole[:at] + bytes([self.byte]) + whole[at:],
        }
        if self.kind == "gone":
            path.unlink()
        else:
            path.write_bytes(broken[self.kind])
        try:
            yield
        finally:
            path.write_bytes(whole)


DAMAGE = st.builds(
    Damage,
    kind=st.sampled_from(("changed", "cut", "removed", "inserted", "gone")),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(1, 255),
)


def any_file(data: st.DataObject, folder: Path) -> Path:
    return data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))


def outcome(read: Callable[[], T]) -> T | CorruptDataError:
    """What reading gives, or how it is refused. Nothing else may come of it."""
    try:
        return read()
    except CorruptDataError as error:
        return error


def is_refusal(found: object, place: Path) -> bool:
    """Whether it was refused with its place."""
    return isinstance(found, CorruptDataError) and found.where.startswith(str(place))


def numbers(cell: MeasuredCell) -> str:
    """All that a comparison, a board or a gate reads of a cell."""
    return spelled({**vars(cell), "rows": None})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two methods, one of them with a diverged seed and with missing values."""
    folder = tmp_path_factory.mktemp("run")
    values = [1.0, 0.0, math.nan, -math.inf, 0.25, 1e-300]
    stored_cells.write_cell(folder, "noop", stored_cells.items("acc", values), seed=90999)
    stored_cells.write_cell(folder, "npo", stored_cells.items("acc", values[::-1]))
    stored_cells.write_cell(folder, "npo", [], seed=1, status="diverged", reason="loss is nan ☠")
    return folder


@bounded(80)
@given(data=st.data(), damage=DAMAGE)
def test_a_damaged_cell_is_refused_or_says_what_it_said(
    run: Path, data: st.DataObject, damage: Damage
) -> None:
    """White space between the words of record.json may change, and nothing else may."""
    path = any_file(data, run / "cells")
    before = numbers(read_cell(path.parent))
    with damage.done_to(path):
        found = outcome(lambda: numbers(read_cell(path.parent)))
    assert found == before or is_refusal(found, path.parent)


@bounded(60)
@given(data=st.data(), damage=DAMAGE)
def test_a_damaged_cell_never_stops_the_others_from_being_read(
    run: Path, data: st.DataObject, damage: Damage
) -> None:
    """`show`, `report` and the boards read all cells; the damaged one is named."""
    path = any_file(data, run / "cells")
    whole = read_cells([run]).cells
    with damage.done_to(path):
        found = read_cells([run])
        has_record = (path.parent / store.RECORD).exists()
    named = [line.partition(":")[0] for line in found.damaged]
    rest = [cell for cell in whole if cell.folder != path.parent]
    assert [cell for cell in found.cells if cell.folder != path.parent] == rest
    assert len(found.cells) + len(named) == len(whole) - (not has_record)
    assert set(named) <= {path.parent.name}


@bounded(60)
@given(data=st.data(), damage=DAMAGE)
def test_samples_of_a_damaged_cell_are_refused_or_the_same(
    tmp_path: Path, data: st.DataObject, damage: Damage
) -> None:
    if not (tmp_path / "cells").exists():
        report_cells.write_cell(tmp_path, "npo", says="漢字 \x00 🙂")
    path = any_file(data, tmp_path / "cells")
    before = open_cell(path.parent).samples
    with damage.done_to(path):
        found = outcome(lambda: open_cell(path.parent).samples)
    assert found == before or is_refusal(found, path.parent)


@bounded(60)
@given(damage=DAMAGE)
def test_a_damaged_baseline_is_refused_or_says_what_it_said(
    run: Path, tmp_path: Path, damage: Damage
) -> None:
    path = tmp_path / "baseline.json"
    if not path.exists():
        write_baseline(path, read_side(f"{run}:noop"), Tree("abc"))
    before = spelled(read_baseline(path).side.cells)
    with damage.done_to(path):
        found = outcome(lambda: spelled(read_baseline(path).side.cells))
    assert found == before or is_refusal(found, path)


WHOLE: dict[str, Any] = {"format": store.FORMAT, **vars(store.Record("npo", 0, KEY, "success"))}
FORGED = st.dictionaries(
    st.sampled_from((*WHOLE, "more")),
    JSON | st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=2),
    max_size=2,
).map(lambda changes: WHOLE | changes)


def read_own(folder: Path) -> store.Record | None:
    return store.read_record(folder, KEY)


@bounded(80)
@given(body=FORGED, absent=st.none() | st.sampled_from(tuple(WHOLE)))
def test_a_record_of_another_form_is_refused_whoever_wrote_it(
    tmp_path: Path, body: dict[str, Any], absent: str | None
) -> None:
    """With a hash of its own that fits, as a program of another version would write it: one such
    cell must not keep `show` from the others.
    """
    body = {name: value for name, value in body.items() if name != absent}
    cell = tmp_path / "cells" / "forged"
    cell.mkdir(parents=True, exist_ok=True)
    stored_cells.write_cell(tmp_path, "noop", [], status="failed")
    text = json.dumps({**body, "self_sha256": store.digest(body)})  # NaN and Infinity as they are
    (cell / store.RECORD).write_text(text)
    for read in (read_cell, open_cell, read_own):
        found = outcome(partial(read, cell))
        assert not isinstance(found, CorruptDataError) or is_refusal(found, cell)
    cells = read_cells([tmp_path])
    assert len(cells.cells) + len(cells.damaged) == 2


@bounded(100)
@given(name=ANY_TEXT | st.sampled_from(("a/../../b", "/etc/hostname", "..", "../secret")))
def test_a_record_that_names_other_files_is_refused(tmp_path: Path, name: str) -> None:
    """Its own hash may fit, and that of the file elsewhere: it is not this cell's."""
    folder = tmp_path / "cell"
    (tmp_path / "secret").write_bytes(b"")
    nothing = hashlib.sha256(b"").hexdigest()
    store.write_record(folder, store.Record("npo", 0, KEY, "success", files={name: nothing}))
    with pytest.raises(CorruptDataError):
        store.read_record(folder, KEY)


@bounded(150)
@given(parts=st.lists(ANY_TEXT | st.sampled_from(
    ("..", ".", "/", "a/..", "\0", "link", "x" * 300, "~")), min_size=1, max_size=4))  # fmt: skip
def test_no_parts_lead_out_of_a_folder(tmp_path: Path, parts: list[str]) -> None:
    root = tmp_path / "root"
    if not root.exists():
        root.mkdir()
        (root / "link").symlink_to(tmp_path)
    try:
        found = store.inside(root, *parts)
    except UsageError:
        return
    assert root in found.resolve().parents


@bounded(60)
@given(method=ANY_TEXT, seed=st.integers(0, 2**32 - 1))
def test_no_name_of_a_method_leads_out_of_the_cells(tmp_path: Path, method: str, seed: int) -> None:
    try:
        found = store.cell_folder(tmp_path, KEY, method, seed)
    except UnlearnBenchError:
        return
    assert tmp_path / "cells" in found.resolve().parents
