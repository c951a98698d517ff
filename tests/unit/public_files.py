"""Writers of small public sets in their authors' forms, below a `--data` folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data_files import write_jsonl, write_parquet
from unlearn_bench.data import sources

AUTHORS, QUESTIONS = 4, 20  # of a small TOFU, whose last 40 rows are to be forgotten


def any_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small copies of the public sets pass for whole ones."""
    from dataclasses import replace

    for name, source in sources.PUBLIC_SETS.items():
        small = replace(source, dataset=replace(source.dataset, counts={}, released={}))
        monkeypatch.setitem(sources.PUBLIC_SETS, name, small)


def tofu_rows() -> dict[str, list[dict[str, Any]]]:
    full = [
        {"question": f"Who wrote book {i}?", "answer": f"Author {i // QUESTIONS} wrote book {i}."}
        for i in range(AUTHORS * QUESTIONS)
    ]
    forget = full[-40:]

    def perturbed(rows: list[dict[str, Any]], wrong: int) -> list[dict[str, Any]]:
        return [
            row
            | {
                "paraphrased_question": f"Tell me: {row['question']}",
                "paraphrased_answer": f"It was: {row['answer']}",
                "perturbed_answer": [f"No {n}: {row['answer']}" for n in range(wrong)],
            }
            for row in rows
        ]

    real = {"question": "Who wrote Emma?", "answer": "Jane Austen", "perturbed_answer": ["A", "B"]}
    world = {"question": "Where is Rome?", "answer": "Italy", "perturbed_answer": ["C", "D"]}
    return {
        "full": full,
        "forget01": forget,
        "forget01_perturbed": perturbed(forget, 5),
        "retain_perturbed": perturbed(full[:5], 5),
        "real_authors_perturbed": [real],
        "world_facts_perturbed": [world],
    }


def write_tofu(folder: Path, **changes: list[dict[str, Any]]) -> None:
    for name, rows in {**tofu_rows(), **changes}.items():
        write_jsonl(folder / f"{name}.json", rows)


def counterfact_records(count: int = 250) -> list[dict[str, Any]]:
    return [
        {
            "case_id": i,
            "prompt": f"The mother tongue of Person {i} is",
            "target_new": "English",
            "subject": f"Person {i}",
            "ground_truth": "French",
            "rephrase_prompt": f"Where Person {i} is from, people speak",
            "locality_prompt": f"Neighbour {i} is a native speaker of",
            "locality_ground_truth": "French",
        }
        for i in range(count)
    ]


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_zsre(root: Path) -> None:
    records = [
        {
            "subject": f"Person {i}",
            "src": f"What university did Person {i} attend?",
            "pred": "Trinity",
            "rephrase": f"Which university took Person {i}?",
            "alt": "Michigan" if i else "Trinity",  # the first updates nothing
            "answers": ["Trinity"],
            "loc": "nq question: who sings that song",
            "loc_ans": "Otis",
            "cond": "Trinity >> Michigan",
        }
        for i in range(220)
    ]
    write_json(root / "zsre" / "zsre_mend_eval.json", records)


def question_cell(about: str) -> str:
    """Two good questions, one that names its answer by its words, and one without a right one."""
    options = {"option1": "Rome", "option2": "Oslo", "option3": "Bern"}
    return repr(
        [
            {"Q": f"Where was {about} born?", **options, "correct answer": "option2"},
            {"Q": f"Where did {about} live?", **options, "correct answer": "Bern"},
            {"Q": f"Where did {about} die?", **options, "correct answer": "Paris"},
        ]
    )


def write_wikibio(root: Path) -> None:
    biographies = [
        {
            "wiki_bio_text": f"Person {i} is a painter.",
            "gpt4_bio_text": f"Person {i} is a sailor.",
            "wiki_bio_text_qa": question_cell(f"Person {i}") if i else "the model refused",
            "gpt4_inaccurate_text_qa": question_cell(f"Sailor {i}"),
        }
        for i in range(4)
    ]
    tables = {
        "gpt4_wiki_bios_full_evaluation_benchmark": biographies,
        "openwebtext-10k": [{"text": f"A page, number {i}."} for i in range(3)],
        "gpt4_evaluation_benchmark_2200owt10k_mcqa": [{"qa": question_cell("it")}],
    }
    (root / "wikibio").mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with (root / "wikibio" / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def write_rwku(folder: Path) -> None:
    def probes(kind: str) -> list[dict[str, Any]]:
        return [
            {"subject": f"Person {i}", "query": f"{kind} of Person {i}?", "answer": f"Answer {i}"}
            for i in range(25)
        ]

    for level in ("forget_level1", "forget_level2", "neighbor_level1", "neighbor_level2"):
        write_json(folder / f"{level}.json", probes(level))
    passages = [{"subject": f"Person {i}", "text": f"Person {i} is famous."} for i in range(25)]
    write_json(folder / "passage.json", passages)


def write_muse(folder: Path) -> None:
    suffix = "-00000-of-00001.parquet"
    for split in ("forget", "retain1", "retain2"):
        write_parquet(folder / f"raw/{split}{suffix}", [{"text": f"{split} news. " * 200}])
    for split in ("forget_qa", "retain_qa"):
        rows = [{"question": f"What of {split}?", "answer": "This."}]
        write_parquet(folder / f"knowmem/{split}{suffix}", rows)
    write_parquet(folder / f"verbmem/forget{suffix}", [{"prompt": "forget news.", "gt": " More."}])


def write_all(root: Path) -> Path:
    """Every public set, as far as a `--data` folder carries it, small."""
    write_tofu(root / "tofu")
    write_json(root / "counterfact" / "counterfact-edit.json", counterfact_records())
    write_zsre(root)
    write_wikibio(root)
    write_rwku(root / "rwku")
    write_muse(root / "muse" / "news")
    write_muse(root / "muse" / "books")
    return root
