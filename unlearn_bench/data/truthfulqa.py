"""TruthfulQA (Lin et al. 2022, Apache-2.0), in the columns of lm-eval's stock tasks.

lm-eval's mc1 takes the first choice for the right one and mc2 reads the labels; both orders are
kept as released, which puts mc1's right choice first (checked here for every question).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearn_bench.data.dataset import (
    Dataset,
    HubFiles,
    Splits,
    last_place,
    read_parquet,
    with_ids,
)
from unlearn_bench.data.files import (
    Row,
    Unit,
    corrupt,
    is_text,
    read_csv,
    read_json_records,
    read_jsonl,
    refuse_repeats,
    require_released,
    require_texts,
    require_unique_ids,
)

CONTENT = ("question", "mc1_targets", "mc2_targets")
ASKED = ("question", "best_answer", "correct_answers[]", "incorrect_answers[]")
COLUMNS = ("Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
MINI_KEYS = ("id", "category", "question", "best_answer", "correct_answers", "incorrect_answers")
FOLDER_TARGETS = "truthfulqa/mc_task.json"
FOLDER_ANSWERS = "truthfulqa/TruthfulQA.csv"
HUB_TARGETS = "multiple_choice/validation-00000-of-00001.parquet"
HUB_ANSWERS = "generation/validation-00000-of-00001.parquet"
REVISED = 790  # questions of the authors' revision of 2025, whose files these are
RELEASED = {
    FOLDER_TARGETS: "c90d853454fd48c676accb33e16923ac438dbb6fb37ecc7c6a70e33c9e556e87",
    FOLDER_ANSWERS: "b8d8ef1e12f98b4f2a9f47abc9765da0640b182b6c5d9b92f0c1a1f2f1e02e5c",
}


def read_folder(root: Path) -> Splits:
    """`truthfulqa/mc_task.json` and `TruthfulQA.csv`: the authors' own files, same order."""
    path = root / FOLDER_TARGETS
    questions = read_json_records(path, CONTENT)
    table = root / FOLDER_ANSWERS
    answers = read_csv(table, COLUMNS)
    if len(questions) != len(answers):
        what = f"{len(answers)} questions here, {len(questions)} in {path.name}"
        raise corrupt(table, last_place(table)[0], what)
    rows = []
    for number, (targets, (line, texts)) in enumerate(
        zip(questions, answers, strict=True), start=1
    ):
        asked = _asked(targets, path, number)
        if asked["question"].strip() != texts["Question"].strip():
            raise corrupt(table, line, f"not the question of record {number} of {path.name}")
        rows.append(asked | _answered(texts, table, line))
    if len(rows) == REVISED:
        for name, sha256 in RELEASED.items():
            require_released(root / name, sha256)
    refuse_repeats(rows, path, *CONTENT, unit="record")
    return {"validation": with_ids("truthfulqa", rows, CONTENT)}


def read_hub(root: Path) -> Splits:
    """The hub's two configurations, joined by question."""
    answer_columns = ("category", "question", "best_answer", "correct_answers", "incorrect_answers")
    asked, answered = root / HUB_TARGETS, root / HUB_ANSWERS
    answer_rows = read_parquet(answered, answer_columns)
    require_texts(answer_rows, answered, *ASKED, unit="row")
    refuse_repeats(answer_rows, answered, *answer_columns, unit="row")
    answers = {
        row["question"]: _with_answers(row, answered, number, "row")
        for number, row in enumerate(answer_rows, start=1)
    }
    rows = []
    found = read_parquet(asked, CONTENT)
    require_texts(found, asked, "question", unit="row")
    for number, row in enumerate(found, start=1):
        if row["question"] not in answers:
            raise corrupt(answered, 0, f"lacks the question {row['question']!r}")
        rows.append(_with_targets(row, asked, number, "row") | answers[row["question"]])
    refuse_repeats(rows, asked, *CONTENT, unit="row")
    return {"validation": with_ids("truthfulqa", rows, CONTENT)}


def read_mini(path: Path) -> Splits:
    """Our own questions; mc1 is the best answer against all false ones, mc2 all against all."""
    rows = []
    found = read_jsonl(path, MINI_KEYS)
    require_texts(found, path, *ASKED)
    for number, row in enumerate(found, start=1):
        right, wrong = row["correct_answers"], row["incorrect_answers"]
        row["mc1_targets"] = _targets([row["best_answer"]], wrong)
        row["mc2_targets"] = _targets(right, wrong)
        rows.append(_with_answers(_with_targets(row, path, number), path, number))
    require_unique_ids(rows, path)
    return {"validation": rows}


def _asked(targets: Row, path: Path, number: int) -> Row:
    """A record of `mc_task.json` in lm-eval's columns."""
    try:
        row = {
            "question": targets["question"],
            "mc1_targets": _from_mapping(targets["mc1_targets"]),
            "mc2_targets": _from_mapping(targets["mc2_targets"]),
        }
    except (TypeError, AttributeError) as error:
        raise corrupt(path, number, f"has targets in another form: {error}", "record") from error
    if not isinstance(row["question"], str):
        raise corrupt(path, number, "question is not a text", "record")
    return _with_targets(row, path, number, "record")


def _answered(texts: Row, table: Path, line: int) -> Row:
    """A row of the table in the columns of lm-eval's generation task."""
    row = {
        "category": texts["Category"],
        "best_answer": texts["Best Answer"],
        "correct_answers": _split_answers(texts["Correct Answers"]),
        "incorrect_answers": _split_answers(texts["Incorrect Answers"]),
    }
    return _with_answers(row, table, line)


def _with_targets(row: Row, path: Path, number: int, unit: Unit = "line") -> Row:
    """Raise unless mc1 has its one right choice first, and mc2 has right and wrong ones."""
    for key in ("mc1_targets", "mc2_targets"):
        choices, labels = _lists_of(row[key])
        # The released file has an empty choice, in record 285; lm-eval asks it too.
        if not all(isinstance(choice, str) for choice in choices):
            raise corrupt(path, number, f"{key} has a choice that is no text", unit)
        if len(choices) != len(labels) or set(labels) != {0, 1} or labels[0] != 1:
            raise corrupt(path, number, f"{key} does not start with a truth", unit)
    if sum(row["mc1_targets"]["labels"]) != 1:
        raise corrupt(path, number, "mc1_targets has several truths", unit)
    return row


def _with_answers(row: Row, path: Path, number: int, unit: Unit = "line") -> Row:
    """Raise unless the generation task has right and wrong reference answers."""
    if not is_text(row["best_answer"]):
        raise corrupt(path, number, "has no best_answer", unit)
    for key in ("correct_answers", "incorrect_answers"):
        if not isinstance(row[key], list) or not any(str(answer).strip() for answer in row[key]):
            raise corrupt(path, number, f"has no {key}", unit)
    return row


def _lists_of(targets: Any) -> tuple[list[Any], list[Any]]:
    """Choices and labels; empty where they are no such lists."""
    found = targets if isinstance(targets, dict) else {}
    choices, labels = found.get("choices"), found.get("labels")
    if not (isinstance(choices, list) and isinstance(labels, list)):
        return [], []
    return choices, [label for label in labels if isinstance(label, int)]


def _from_mapping(targets: dict[str, int]) -> dict[str, list[Any]]:
    return {"choices": list(targets), "labels": list(targets.values())}


def _targets(right: list[str], wrong: list[str]) -> dict[str, list[Any]]:
    return {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}


def _split_answers(text: str) -> list[str]:
    return [answer.strip() for answer in text.split(";") if answer.strip()]


DATASET = Dataset(
    name="truthfulqa",
    folder_files=(FOLDER_TARGETS, FOLDER_ANSWERS),
    read_folder=read_folder,
    hub=HubFiles(
        repo="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        patterns=(HUB_TARGETS, HUB_ANSWERS),
    ),
    read_hub=read_hub,
    # 817 questions were published; the authors' revision of 2025 keeps 790 of them.
    counts={"folder": {"validation": (REVISED, 817)}, "hub": {"validation": (817,)}},
    mini_file="truthfulqa/mini/questions.jsonl",
    read_mini=read_mini,
)
