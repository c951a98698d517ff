"""What the property tests have found: the smallest example of each, told as it should be."""

from __future__ import annotations

import copy
import csv
import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.property import written
from tests.property.columns import metric
from tests.property.data_sets import BYTES, DATA_SETS
from tests.property.well_formed import outcome, require_what_was_said
from tests.unit import stored_cells
from unlearn_bench.compare.aggregate import reduce_metric
from unlearn_bench.compare.calibrate import Calibrated
from unlearn_bench.compare.gate import exit_code, judge
from unlearn_bench.compare.intervals import wilson
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.overall import KEEP, overall
from unlearn_bench.compare.rules import Chosen, Rule
from unlearn_bench.config import load_config
from unlearn_bench.data.files import read_jsonl, verify_sha256sums
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.runs import store
from unlearn_bench.runs.finished import read_cells
from unlearn_bench.runs.sides import read_cell
from unlearn_bench.schema import ItemScore

KEY = "0123456789abcdef" * 4
TEXTS = ("one text", "another text")


# ----- rows: the data set, which of its files, which row, and what stands there instead; of tables
# and parquet files in every row

HALF = "half a pair \ud800"
SINGLE = {
    "Q": "Where?",
    "option1": "a",
    "option2": "b",
    "option3": "c",
    "correct answer": "option1",
}
FACT = {"id": "f", "attribute": "a", "question": "q", "answer": "a", "new_answer": None,
        "paraphrases": ["p"], "wrong_options": ["w"], "cloze": "c"}  # fmt: skip
ROWS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "half a surrogate pair has no hash": ("gsm8k", 1, 0, {"question": HALF}),
    "nor has it in our own files": ("advbench mini", 0, 0, {"prompt": HALF}),
    "nor in a cell of questions": ("wikibio", 1, 0, {"qa": repr([{**SINGLE, "Q": HALF}])}),
    "a text is no list of its letters": ("zsre", 0, 0, {"answers": "Trinity"}),
    "nor are wrong options": ("tofu", 2, 0, {"perturbed_answer": "Nothing"}),
    "nor in fur": ("fur", 0, 0, {"facts": [{**FACT, "wrong_options": "Bern"}]}),
    "a number is no list of texts": ("fur", 0, 0, {"facts": [{**FACT, "paraphrases": 5}]}),
    "an id of their own is not ours": ("gsm8k", 1, 0, {"id": []}),
    "nor in records": ("counterfact", 0, 0, {"id": []}),
    "no id of a fact": ("fur", 0, 0, {"facts": [{**FACT, "id": ["f"]}]}),
    "no name of a split": ("gsm8k mini", 0, 0, {"split": []}),
    "an option in a file that has none": ("tofu", 0, 0, {"perturbed_answer": 5}),
    "a rewording that nobody asked for": ("tofu", 5, 0, {"paraphrased_question": 5}),
    "half a truth": ("truthfulqa", 0, 0, {"mc1_targets": {"Yes": 1, "No": 0.9}}),
    "no label is infinite": ("truthfulqa", 0, 0, {"mc1_targets": {"Yes": math.inf}}),
    "no best answer": ("truthfulqa", 1, 0, {"Best Answer": " "}),
    "no answers at all": ("truthfulqa mini", 0, 0, {"correct_answers": None}),
    "no question": ("truthfulqa mini", 0, 0, {"question": None}),
    "no targets": ("truthfulqa hub", 0, 0, {"mc1_targets": "Yes"}),
    "a list for a question": ("truthfulqa hub", 1, 0, {"question": ["Why?"]}),
    "no statement": ("toxigen_classification hub", 0, 0, {"text": None}),
    "a line break is no text": ("toxigen hub", 0, 0, {"prompt": "\\n"}),
    "no page": ("wikitext mini", 0, 0, {"text": None}),
    "no page on the hub": ("wikitext hub", 0, 0, {"page": None}),
    "no type of an unsafe prompt": ("xstest mini", 0, 1, {"type": None}),
    "no biography": ("fur", 0, 0, {"biography": 5}),
    "a key that cannot be one": ("wikibio", 1, 0, {"qa": "[{[]: 1}]"}),
    "half a pair in a reply": ("behaviour", 1, 0, {"output": HALF}),
}


@pytest.mark.usefixtures("small_sets")
@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_well_formed_or_refused(case: str, tmp_path: Path) -> None:
    name, which, row, changes = ROWS[case]
    files = DATA_SETS[name].make(TEXTS)
    rows = copy.deepcopy(files[which].rows)
    for own in rows if files[which].form in ("parquet", "table") else [rows[row]]:
        own |= changes
    files[which] = replace(files[which], rows=rows)
    for file in files:
        file.write(tmp_path, file.content(escaped=True))
    found = outcome(DATA_SETS[name], tmp_path, files)
    require_what_was_said(name, found, files)


def test_a_rating_that_is_no_number_makes_no_statement_harmless(tmp_path: Path) -> None:
    data_set = DATA_SETS["toxigen_classification hub"]
    (file,) = data_set.make(TEXTS)
    rows = [row | {"toxicity_human": math.nan} for row in file.rows]
    file.write(tmp_path, replace(file, rows=rows).content(escaped=True))
    with pytest.raises(CorruptDataError, match="ratings"):
        data_set.read(tmp_path)


# ----- bytes: the data set, which of its files, the damage and where

FILES: dict[str, tuple[str, int, str, float]] = {
    "nesting without end": ("truthfulqa", 0, "nesting", 0.0),
    "nesting in pairs": ("behaviour", 1, "nesting", 0.0),
    "a cell that csv does not read": ("truthfulqa", 1, "huge cell", 0.9),
    "such a comment": ("behaviour", 0, "huge cell", 0.9),
}


@pytest.mark.usefixtures("small_sets")
@pytest.mark.parametrize("case", FILES)
def test_a_file_is_read_or_refused(case: str, tmp_path: Path) -> None:
    name, which, damage, place = FILES[case]
    csv.field_size_limit(131_072)  # Python's own; wikibio's reader raises it for all
    files = DATA_SETS[name].make(TEXTS)
    for file in files:
        content = file.content(escaped=True)
        file.write(tmp_path, BYTES[damage](content, place) if file is files[which] else content)
    outcome(DATA_SETS[name], tmp_path, files)


def test_a_gzipped_file_whose_packing_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
    with pytest.raises(CorruptDataError):
        read_jsonl(path)


def test_a_parquet_file_with_other_letters_is_refused(tmp_path: Path) -> None:
    data_set = DATA_SETS["advbench hub"]
    files = data_set.make(TEXTS)
    path = files[0].write(tmp_path, files[0].content(escaped=True))
    path.write_bytes(path.read_bytes().replace(b"one text", b"one\xfftext"))
    assert isinstance(outcome(data_set, tmp_path, files), CorruptDataError)


@pytest.mark.parametrize("name", ["/", "../other"])
def test_hashes_are_of_files_in_their_own_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(CorruptDataError) as caught:
        verify_sha256sums(tmp_path)
    assert caught.value.where == f"{tmp_path / 'SHA256SUMS'}, line 1"


# ----- records

RECORDS: dict[str, dict[str, Any]] = {
    "a seed without end": {"seed": math.inf},
    "a success without files": {},
    "a list of files": {"files": []},
    "a file elsewhere": {"files": {"../secret": "0" * 64}},
    "a file that none can be called": {"files": {"a\0b": "0" * 64}},
    "no time": {"started": 5},
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_of_another_form_hides_no_other(case: str, tmp_path: Path) -> None:
    """Its own hash is right, as that of a program of another version would be."""
    stored_cells.write_cell(tmp_path, "noop", [], status="failed")
    whole = {"format": store.FORMAT, **vars(store.Record("npo", 0, KEY, "success"))}
    body = whole | RECORDS[case]
    cell = tmp_path / "cells" / "forged"
    cell.mkdir()
    text = json.dumps({**body, "self_sha256": store.digest(body)})
    (cell / store.RECORD).write_text(text)
    with pytest.raises(CorruptDataError):
        read_cell(cell)
    found = read_cells([tmp_path])
    assert len(found.cells) + len(found.damaged) == 2


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_usage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        store.cell_folder(tmp_path, KEY, name, 0)


# ----- numbers


def test_none_of_seven_is_in_its_own_interval() -> None:
    """Rounding made its lower end 3e-17."""
    assert wilson(0.0, 7.0).low == 0


def test_a_gap_of_groups_is_in_its_own_interval() -> None:
    """Two groups with the same mean: each resample has a gap, and the value is none."""
    values, groups, clusters = (0.0, 0.0, 0.0625, 0.0, -0.0625), "xyxyx", "aaabb"
    rows = [
        ItemScore("t", "m", str(n), groups[n], value, 1.0, clusters[n])
        for n, value in enumerate(values)
    ]
    found = reduce_metric("t", "m", metric("group_gap"), rows)
    assert found.low <= found.value <= found.high


def test_the_order_of_items_changes_no_interval() -> None:
    """Draws fell on positions: of six items, 0.275 to 2.2 or 0.25 to 2.275."""
    rows = [ItemScore("t", "m", str(n), "", n * n / 8, 1.0) for n in range(6)]
    one, turned = (reduce_metric("t", "m", metric("mean"), own) for own in (rows, rows[::-1]))
    assert (one.low, one.high) == (turned.low, turned.high)


def test_nought_of_either_sign_is_nought() -> None:
    """1/0 + 1/−0 is no number, and the row had neither a score nor a reason."""
    parts = {"forget": {"a": ("a.x",)}, KEEP: {"b": ("b.x",), "c": ("c.x",)}}
    values = {"a.x": 1.0, "b.x": 0.0, "c.x": -0.0}
    scores = {name: Calibrated("kept", value) for name, value in values.items()}
    assert overall(("forget",), parts, scores).value == 0


@pytest.mark.parametrize("kind", ["auc", "macro_mean"])
def test_a_group_of_one_cluster_has_no_known_spread(kind: str) -> None:
    """Group y lies in cluster a alone, which group x shares: draws without a have no y at all, and
    an area divided by the number of y's clusters less one.
    """
    rows = [
        ItemScore("t", "m", str(n), group, n / 8, 1.0, cluster)
        for n, (group, cluster) in enumerate(zip("xyxyx", "aaaab", strict=True))
    ]
    found = reduce_metric("t", "m", metric(kind), rows)
    assert math.isnan(found.stderr)
    assert math.isnan(found.low)


def test_no_draw_leaves_a_group_without_items() -> None:
    """Of five clusters two hold group y: some draws have neither, and then the interval is none."""
    groups, clusters = "xyxyxxx", "aabbcde"
    rows = [
        ItemScore("t", "m", str(n), groups[n], n / 8, 1.0, clusters[n]) for n in range(len(groups))
    ]
    found = reduce_metric("t", "m", metric("macro_mean"), rows)
    assert found.low <= found.value <= found.high


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the infinite
def test_an_infinite_perplexity_of_finite_items_is_no_pass() -> None:
    """e^1000 on both sides: no loss could be told, which is exit code 0."""
    rows = {"t.m": [ItemScore("t", "m", str(n), "", -1000.0, 1.0) for n in range(9)]}
    rule = Chosen(Measure("t", "m", "weighted_exp", "lower", ""), Rule(margin=0.0))
    assert exit_code(judge([rule], [rows], [rows], 0.05, 100)) == 3


# ----- what people write

WORDS = ("!!bool maybe", "!!int ''", "!!timestamp x", "2001-99-99", "0x_", "9" * 5000, "[" * 1000)
UNREAD = [
    (kind, word)
    for kind in ("suite", "configuration", "rules", "tuned options")
    for word in (WORDS if kind != "rules" else WORDS[:3])
]


@pytest.mark.parametrize(
    ("kind", "word"),
    [pytest.param(*case, id=f"{case[0]}: {case[1][:9]}") for case in UNREAD],
)
def test_what_yaml_stumbles_over_is_refused(kind: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"name: {word}\n")
    with pytest.raises(UnlearnBenchError) as caught:
        written.KINDS[kind].read(path)
    assert str(path) in caught.value.where


@pytest.mark.parametrize("word", ["!!bool maybe", "[" * 1000])
def test_so_it_is_on_the_command_line(word: str) -> None:
    with pytest.raises(UsageError):
        load_config({"set": [f"npo.beta={word}"]}, environment={})


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("task", r'include: "a\0b"'),
        ("task", r'include: "\ud800"'),
        ("task whose code is allowed", r'a: !function "a\0b.run"'),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_with_its_line(
    kind: str, line: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"task: mine\n{line}\n")
    found = written.outcome(lambda: written.KINDS[kind].read(path))
    assert not isinstance(found, UnlearnBenchError) or found.where == f"{path}, line 2"
