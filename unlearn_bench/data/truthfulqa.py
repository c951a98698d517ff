"""TruthfulQA (Lin et al. 2022, Apache-2.0), in the columns of lm-eval's stock tasks.

lm-eval's mc1 takes the first choice for the right one and mc2 reads the labels; both orders are
kept as released, which puts mc1's right choice first (checked here for every question).
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, read_parquet, with_ids
from unlearn_bench.data.files import Row, corrupt, read_jsonl, read_text, require_unique_ids

CONTENT = ("question", "mc1_targets", "mc2_targets")
MINI_KEYS = ("id", "category", "question", "best_answer", "correct_answers", "incorrect_answers")
HUB_TARGETS = "multiple_choice/validation-00000-of-00001.parquet"
HUB_ANSWERS = "generation/validation-00000-of-00001.parquet"


def read_folder(root: Path) -> Splits:
    """`truthfulqa/mc_task.json` and `TruthfulQA.csv`: the authors' own files, same order."""
    path = root / "truthfulqa" / "mc_task.json"
    try:
        questions = json.loads(read_text(path))
    except ValueError as error:
        raise corrupt(path, 0, f"not valid JSON: {error}") from error
    table = root / "truthfulqa" / "TruthfulQA.csv"
    answers = list(csv.DictReader(io.StringIO(read_text(table), newline="")))
    if not isinstance(questions, list) or len(questions) != len(answers):
        raise corrupt(table, 0, f"{len(answers)} questions here, not as many in mc_task.json")
    rows = []
    for number, (targets, texts) in enumerate(zip(questions, answers, strict=True), start=1):
        try:
            if targets["question"].strip() != texts["Question"].strip():
                raise corrupt(table, number + 1, f"not the question of mc_task.json ({number})")
            row = {
                "question": targets["question"],
                "mc1_targets": _from_mapping(targets["mc1_targets"]),
                "mc2_targets": _from_mapping(targets["mc2_targets"]),
                "category": texts["Category"],
                "best_answer": texts["Best Answer"],
                "correct_answers": _split_answers(texts["Correct Answers"]),
                "incorrect_answers": _split_answers(texts["Incorrect Answers"]),
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise corrupt(path, number, f"lacks or has in another form: {error}") from error
        rows.append(_checked(row, path, number))
    return {"validation": with_ids("truthfulqa", rows, CONTENT)}


def read_hub(root: Path) -> Splits:
    """The hub's two configurations, joined by question."""
    answer_columns = ("category", "question", "best_answer", "correct_answers", "incorrect_answers")
    targets = read_parquet(root / HUB_TARGETS, CONTENT)
    answers = {row["question"]: row for row in read_parquet(root / HUB_ANSWERS, answer_columns)}
    rows = []
    for number, row in enumerate(targets, start=1):
        if row["question"] not in answers:
            raise corrupt(root / HUB_ANSWERS, 0, f"lacks the question {row['question']!r}")
        rows.append(_checked(row | answers[row["question"]], root / HUB_TARGETS, number))
    return {"validation": with_ids("truthfulqa", rows, CONTENT)}


def read_mini(path: Path) -> Splits:
    """Our own questions; mc1 is the best answer against all false ones, mc2 all against all."""
    rows = []
    for number, row in enumerate(read_jsonl(path, MINI_KEYS), start=1):
        right, wrong = row["correct_answers"], row["incorrect_answers"]
        row["mc1_targets"] = _targets([row["best_answer"]], wrong)
        row["mc2_targets"] = _targets(right, wrong)
        rows.append(_checked(row, path, number))
    require_unique_ids(rows, path)
    return {"validation": rows}


def _checked(row: Row, path: Path, number: int) -> Row:
    """Raise unless mc1 has its one right choice first, mc2 has right and wrong ones, and so have
    the reference answers of the generation task.
    """
    for key in ("mc1_targets", "mc2_targets"):
        choices, labels = row[key]["choices"], row[key]["labels"]
        if len(choices) != len(labels) or set(labels) != {0, 1} or labels[0] != 1:
            raise corrupt(path, number, f"{key} of question {number} does not start with a truth")
    for key in ("correct_answers", "incorrect_answers"):
        if not isinstance(row[key], list) or not any(str(answer).strip() for answer in row[key]):
            raise corrupt(path, number, f"question {number} has no {key}")
    if sum(row["mc1_targets"]["labels"]) != 1:
        raise corrupt(path, number, f"mc1_targets of question {number} has several truths")
    return row


def _from_mapping(targets: dict[str, int]) -> dict[str, list[Any]]:
    return {"choices": list(targets), "labels": [int(label) for label in targets.values()]}


def _targets(right: list[str], wrong: list[str]) -> dict[str, list[Any]]:
    return {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}


def _split_answers(text: str) -> list[str]:
    return [answer.strip() for answer in text.split(";") if answer.strip()]


DATASET = Dataset(
    name="truthfulqa",
    folder_files=("truthfulqa/mc_task.json", "truthfulqa/TruthfulQA.csv"),
    read_folder=read_folder,
    hub=HubFiles(
        repo="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        patterns=(HUB_TARGETS, HUB_ANSWERS),
    ),
    read_hub=read_hub,
    # 817 questions were published; the authors' revision of 2025 keeps 790 of them.
    counts={"folder": {"validation": (790, 817)}, "hub": {"validation": (817,)}},
    mini_file="truthfulqa/mini/questions.jsonl",
    read_mini=read_mini,
)
