"""What stands twice in a data file is refused with file and place, never scored twice."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit import public_files
from tests.unit.data_files import write_jsonl, write_parquet
from unlearn_bench.data import (
    advbench,
    gsm8k,
    harmbench,
    realtoxicityprompts,
    rwku,
    toxigen,
    toxigen_classification,
    truthfulqa,
    wikitext,
    xstest,
    zsre,
)
from unlearn_bench.errors import CorruptDataError

Rows = list[dict[str, Any]]


def write_table(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class Set:
    """Three rows of one file, of which the last repeats the first.

    said: what is refused at `place`. beside: writes the set's other files.
    """

    path: str
    write: Callable[[Path, Rows], Path]
    rows: Rows
    read: Callable[[Path], Any]
    place: str
    said: str
    beside: Callable[[Path, Rows], Any] = lambda root, rows: None


def twice(**first: Any) -> Rows:
    """Three rows; all texts of the second are others."""
    second = {
        key: f"{value} too" if isinstance(value, str) else value for key, value in first.items()
    }
    return [first, second, dict(first)]


def prompts(*places: int) -> Rows:
    """Records of RealToxicityPrompts that all say the same, cut from these places of one text."""
    return [
        {"filename": "1.txt", "begin": begin, "end": begin + 9, "challenging": True,
         "prompt": {"text": "Upgrade your inbox"}}
        for begin in places
    ]  # fmt: skip


def statements(*lines: int) -> Rows:
    return [{"group": "women", "label": "hate", "line": n, "prompt": "- same"} for n in lines]


def rated(*ids: int) -> Rows:
    return [{"id": n, "text": "same", "label": "hate"} for n in ids]


def questions() -> Rows:
    right = {"Yes": 1, "No": 0}
    return [{"question": q, "mc1_targets": right, "mc2_targets": right} for q in ("Q?", "R?", "Q?")]


def answers(rows: Rows) -> Rows:
    """In the columns of the hub."""
    texts = {"category": "c", "best_answer": "Yes", "correct_answers": ["Yes"]}
    texts |= {"incorrect_answers": ["No"]}
    return [{"question": row["question"], **texts} for row in rows]


def answer_table(root: Path, rows: Rows) -> Path:
    row = {
        "Category": "c",
        "Best Answer": "Yes",
        "Correct Answers": "Yes",
        "Incorrect Answers": "No",
    }
    table = [{"Question": question["question"], **row} for question in rows]
    return write_table(root / truthfulqa.FOLDER_ANSWERS, table)


def hub_questions() -> Rows:
    right = {"choices": ["Yes", "No"], "labels": [1, 0]}
    return [row | {"mc1_targets": right, "mc2_targets": right} for row in questions()]


def with_other_file(files: dict[str, str], write: Callable[[Path, Rows], Path]) -> Any:
    return lambda root, rows: write(root / files["train"], rows[:2])


def other_people(root: Path, rows: Rows) -> None:
    public_files.write_rwku(root)


SAFE = {"prompt": "Kill a process?", "type": "homonyms", "label": "safe"}
FACT = {"subject": "P", "src": "Q?", "rephrase": "R?", "alt": "New", "answers": ["Old"],
        "loc": "nq question: l", "loc_ans": "L"}  # fmt: skip
HARM = {"Behavior": "Harm", "FunctionalCategory": "standard"}

SETS = {
    "advbench": Set(
        advbench.FOLDER_FILE, write_table, twice(goal="Do\nharm"), advbench.read_folder,
        # The header is line 1; the first request takes lines 2 and 3, the second 4 and 5.
        "line 7", "repeats prompt of line 3",
    ),
    "advbench hub": Set(
        advbench.HUB_FILE, write_parquet, twice(query="Harm"), advbench.read_hub,
        "row 3", "repeats prompt of row 1",
    ),
    "harmbench": Set(
        harmbench.FOLDER_FILE, write_table,
        [HARM, {"Behavior": "Sing", "FunctionalCategory": "copyright"}, HARM],
        harmbench.read_folder, "line 4", "repeats prompt of line 2",
    ),
    "harmbench hub": Set(
        harmbench.HUB_FILE, write_parquet, twice(prompt="Harm"), harmbench.read_hub,
        "row 3", "repeats prompt of row 1",
    ),
    "xstest, an id": Set(
        xstest.FOLDER_FILE, write_table,
        [{"id": number, **SAFE, "prompt": text} for number, text in ("1a", "2b", "1c")],
        xstest.read_folder, "line 4", "repeats id of line 2",
    ),
    "xstest, a prompt": Set(
        xstest.FOLDER_FILE, write_table,
        [{"id": "1", **SAFE}, {"id": "2", **SAFE, "prompt": "B?"}, {"id": "3", **SAFE}],
        xstest.read_folder, "line 4", "repeats prompt and type and label of line 2",
    ),
    "xstest hub": Set(
        xstest.HUB_FILE, write_parquet, [SAFE, SAFE | {"prompt": "B?"}, SAFE], xstest.read_hub,
        "row 3", "repeats prompt and type and label of row 1",
    ),
    "gsm8k": Set(
        gsm8k.FOLDER_FILES["test"], write_jsonl, twice(question="1+1?", answer="#### 2"),
        gsm8k.read_folder, "line 3", "repeats question and answer of line 1",
        with_other_file(gsm8k.FOLDER_FILES, write_jsonl),
    ),
    "gsm8k hub": Set(
        gsm8k.HUB_FILES["test"], write_parquet, twice(question="1+1?", answer="#### 2"),
        gsm8k.read_hub, "row 3", "repeats question and answer of row 1",
        with_other_file(gsm8k.HUB_FILES, write_parquet),
    ),
    "truthfulqa": Set(
        truthfulqa.FOLDER_TARGETS, public_files.write_json, questions(), truthfulqa.read_folder,
        "record 3", "repeats question and mc1_targets and mc2_targets of record 1", answer_table,
    ),
    "truthfulqa hub": Set(
        truthfulqa.HUB_TARGETS, write_parquet, hub_questions(), truthfulqa.read_hub,
        "row 3", "repeats question and mc1_targets and mc2_targets of row 1",
        lambda root, rows: write_parquet(root / truthfulqa.HUB_ANSWERS, answers(rows[:2])),
    ),
    "truthfulqa hub, answers": Set(
        truthfulqa.HUB_ANSWERS, write_parquet, answers(questions()), truthfulqa.read_hub,
        "row 3", "of row 1",
        lambda root, rows: write_parquet(root / truthfulqa.HUB_TARGETS, hub_questions()[:2]),
    ),
    "realtoxicityprompts": Set(
        realtoxicityprompts.FOLDER_POOL, write_jsonl, prompts(7, 80, 7),
        realtoxicityprompts.read_folder, "line 3", "repeats filename and begin and end of line 1",
    ),
    "realtoxicityprompts hub": Set(
        realtoxicityprompts.HUB_FILE, write_jsonl, prompts(7, 80, 7),
        realtoxicityprompts.read_hub, "line 3", "repeats filename and begin and end of line 1",
    ),
    "realtoxicityprompts without ids": Set(
        realtoxicityprompts.HUB_FILE, write_jsonl,
        [{"prompt": {"text": text}, "challenging": True} for text in "aba"],
        realtoxicityprompts.read_hub, "line 3", "repeats prompt of line 1",
    ),
    "realtoxicityprompts package": Set(
        "test.jsonl", write_jsonl, twice(text="So", toxicity=0.9),
        lambda root: realtoxicityprompts.read_package(root / "test.jsonl"),
        "line 3", "repeats text of line 1",
    ),
    "toxigen": Set(
        toxigen.FOLDER_FILE, write_jsonl, statements(25, 50, 25), toxigen.read_folder,
        "line 3", "repeats group and label and line of line 1",
    ),
    "toxigen_classification": Set(
        toxigen_classification.FOLDER_FILE, public_files.write_json, rated(4, 5, 4),
        toxigen_classification.read_folder, "record 3", "repeats id of record 1",
    ),
    "wikitext hub": Set(
        wikitext.HUB_FILE, write_parquet, twice(page=" = A = \n"), wikitext.read_hub,
        "row 3", "repeats page of row 1",
    ),
    "wikitext hub, validation": Set(
        wikitext.HUB_VALIDATION_FILE, write_parquet, twice(page=" = A = \n"),
        wikitext.read_hub_validation, "row 3", "repeats page of row 1",
    ),
    "zsre": Set(
        zsre.FILE, public_files.write_json, [FACT, FACT | {"src": "S?"}, FACT], zsre.read_folder,
        "record 3", "of record 1",
    ),
    "rwku": Set(
        "neighbor_level2.json", public_files.write_json,
        twice(subject="Person 1", query="Q?", answer="A"), rwku.read_files,
        "record 3", "repeats subject and query and answer of record 1", other_people,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_repeated_row_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    known = SETS[name]
    known.beside(tmp_path, known.rows)
    path = known.write(tmp_path / known.path, known.rows)
    with pytest.raises(CorruptDataError) as caught:
        known.read(tmp_path)
    assert caught.value.where == f"{path}, {known.place}"
    assert caught.value.what.endswith(known.said)


def test_the_same_words_from_another_place_are_another_item(tmp_path: Path) -> None:
    """The released files have such rows; their ids go on as "-2", as they always did."""
    write_jsonl(tmp_path / realtoxicityprompts.HUB_FILE, prompts(7, 80))
    write_jsonl(tmp_path / toxigen.FOLDER_FILE, statements(25, 50))
    public_files.write_json(tmp_path / toxigen_classification.FOLDER_FILE, rated(4, 5))
    for rows in (
        realtoxicityprompts.read_hub(tmp_path)["train"],
        toxigen.read_folder(tmp_path)["test"],
        toxigen_classification.read_folder(tmp_path)["test"],
    ):
        assert [row["id"] for row in rows] == [rows[0]["id"], f"{rows[0]['id']}-2"]


def test_the_hubs_prompts_of_toxigen_may_repeat_each_other(tmp_path: Path) -> None:
    """2,528 of the authors' 31,000 do, and no id is in these files: the count alone is held."""
    first = next(iter(toxigen.HUB_FILES))
    write_parquet(tmp_path / first, [{"prompt": "- a\\n-"}, {"prompt": "- a\\n-"}])
    assert len(toxigen.read_hub(tmp_path)["test"]) == 2


def test_a_list_of_records_is_not_told_by_lines(tmp_path: Path) -> None:
    """Written over several lines: the third record does not stand in line 3."""
    path = tmp_path / toxigen_classification.FOLDER_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(rated(1, 2, 1), indent=2))
    with pytest.raises(CorruptDataError) as caught:
        toxigen_classification.read_folder(tmp_path)
    assert caught.value.where == f"{path}, record 3"
