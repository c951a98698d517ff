"""Biographies as LLM Surgery forgets and updates them (arXiv 2409.13054, §4 and its repository).

The authors' tables: 238 true biographies of Wikipedia (from Manakul et al. 2023, arXiv 2303.08896,
CC BY-SA 3.0), each with an invented one and ten questions of three options about either; and web
texts to retain (OpenWebText) with their questions. The first half of the subjects is updated, the
second forgotten. Texts are trained on, questions only asked.
"""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path
from typing import Any

from unlearn_bench.data.dataset import Dataset, Splits
from unlearn_bench.data.files import Row, corrupt, find_file, read_text, require_texts
from unlearn_bench.data.fur import FurSets
from unlearn_bench.data.public import PublicSet, PublicSource, Question
from unlearn_bench.schema import Example, Origin

BIOGRAPHIES = "wikibio/gpt4_wiki_bios_full_evaluation_benchmark.csv"
RETAIN_QUESTIONS = "wikibio/gpt4_evaluation_benchmark_2200owt10k_mcqa.csv"
RETAIN_TEXTS = "wikibio/openwebtext-10k.csv"
SUBJECTS = 238
RETAINED = 2000
OPTIONS = ("option1", "option2", "option3")
CELL_LIMIT = 10_000_000  # characters: csv's own limit is shorter than some web pages


def read_folder(root: Path) -> Splits:
    """The three tables. Raises CorruptDataError naming file and row."""
    biographies = _table(
        find_file(root, BIOGRAPHIES),
        ("wiki_bio_text", "gpt4_bio_text"),
        ("wiki_bio_text_qa", "gpt4_inaccurate_text_qa"),
    )
    texts = _table(find_file(root, RETAIN_TEXTS), ("text",), ())[:RETAINED]
    questions = _table(find_file(root, RETAIN_QUESTIONS), (), ("qa",))[:RETAINED]
    return {
        "biographies": _numbered("wikibio", biographies),
        "texts": _numbered("openwebtext", texts),
        "questions": _numbered("openwebtext", questions),
    }


def build(splits: Splits, origin: Origin) -> PublicSet:
    """The first half of the subjects is updated, the second forgotten (`data_split` 0.5)."""
    half = len(splits["biographies"]) // 2
    updated, forgotten = splits["biographies"][:half], splits["biographies"][half:]
    return PublicSet(
        sets=FurSets(
            forget=_texts(forgotten, "wiki_bio_text"),
            old=_texts(updated, "wiki_bio_text"),
            update=_texts(updated, "gpt4_bio_text"),
            retain=_texts(splits["texts"], "text"),
        ),
        questions=(
            *_questions(forgotten, "wiki_bio_text_qa", "forget"),
            *_questions(updated, "wiki_bio_text_qa", "update_old"),
            *_questions(updated, "gpt4_inaccurate_text_qa", "update_new"),
            *_questions(splits["questions"], "qa", "retain"),
        ),
        origin=origin,
    )


def _table(path: Path, texts: tuple[str, ...], questions: tuple[str, ...]) -> list[Row]:
    csv.field_size_limit(CELL_LIMIT)
    try:
        lines = io.StringIO(read_text(path), newline="")
        rows: list[Row] = list(csv.DictReader(lines, strict=True))
    except csv.Error as error:
        raise corrupt(path, 0, f"not a readable table: {error}") from error
    if not rows:
        raise corrupt(path, 0, "has no rows")
    if absent := [key for key in (*texts, *questions) if key not in rows[0]]:
        raise corrupt(path, 1, f"lacks {', '.join(absent)}")
    require_texts(rows, path, *texts, *questions, unit="record")
    return rows


def _numbered(name: str, rows: list[Row]) -> list[Row]:
    return [row | {"id": f"{name}-{number}"} for number, row in enumerate(rows)]


def _texts(rows: list[Row], column: str) -> tuple[Example, ...]:
    return tuple(Example(f"{row['id']}:{column}", "", row[column]) for row in rows)


def _questions(rows: list[Row], column: str, part: str) -> list[Question]:
    """A cell is a Python list, as its language model wrote it.

    What is no such list, or names no right option, is left out, as the authors' own reader does.
    """
    return [
        question
        for row in rows
        for number, item in enumerate(_list(row[column]))
        if (question := _question(item, f"{row['id']}-{column}-{number}", part, row["id"]))
    ]


def _list(cell: str) -> list[Any]:
    try:
        items = ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
    return items if isinstance(items, list) else []


def _question(item: Any, identity: str, part: str, subject: str) -> Question | None:
    keys = ("Q", "correct answer", *OPTIONS)
    if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in keys):
        return None
    if any("\ud800" <= letter <= "\udfff" for key in keys for letter in item[key]):
        return None  # half a surrogate pair, which no file can be written with
    options = [item[option] for option in OPTIONS]
    named = item["correct answer"]
    right = item[named] if named in OPTIONS else named
    if options.count(right) != 1 or len(set(options)) < len(options):
        return None
    wrong = tuple(option for option in options if option != right)
    return Question(identity, part, subject, item["Q"], right, wrong_options=wrong)


SOURCES = (
    PublicSource(
        Dataset(
            name="wikibio",
            folder_files=(BIOGRAPHIES, RETAIN_QUESTIONS, RETAIN_TEXTS),
            read_folder=read_folder,
            hub=None,
            read_hub=read_folder,
            # Of the retained texts' questions the authors read 2,079 rows, we the first 2,000.
            counts={
                "folder": {
                    "biographies": (SUBJECTS,),
                    "texts": (RETAINED,),
                    "questions": (RETAINED,),
                }
            },
            split_files={
                "folder": {
                    "biographies": BIOGRAPHIES,
                    "texts": RETAIN_TEXTS,
                    "questions": RETAIN_QUESTIONS,
                }
            },
        ),
        build,
    ),
)
