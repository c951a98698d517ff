"""Our task files against lm-eval's own, which they inherit from: every request about every released
document, and what is made of the same made-up answers.

benchmarks/parity.py compares answers, with one task on both sides. Here the stock side is lm-eval's
YAML as it is installed, over rows that this file reads by itself, in the form that the hub has.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from tests.unit.data_files import REAL_DATA, needs_real_data
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.evaluate import FEWSHOT_SEED, load_tasks
from unlearn_bench.protocols.catalog import find_protocol

STOCK = Path(lm_eval.__file__).parent / "tasks"
SIMILARITIES = 40  # of so many requests one is scored where BLEU and ROUGE take half a second each
Splits = dict[str, list[dict[str, Any]]]

pytestmark = needs_real_data


def truthfulqa() -> Splits:
    def targets(mapping: dict[str, int]) -> dict[str, list[Any]]:
        return {"choices": list(mapping), "labels": list(mapping.values())}

    released = json.loads((REAL_DATA / "truthfulqa" / "mc_task.json").read_text("utf-8"))
    return {
        "validation": [
            {"question": one["question"],
             **{key: targets(one[key]) for key in ("mc1_targets", "mc2_targets")}}
            for one in released
        ]
    }  # fmt: skip


def truthfulqa_gen() -> Splits:
    with (REAL_DATA / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        released = list(csv.DictReader(file))
    return {
        "validation": [
            {"question": one["Question"], "best_answer": one["Best Answer"],
             **{f"{kind}_answers": one[f"{kind.title()} Answers"].split("; ")
                for kind in ("correct", "incorrect")}}
            for one in released
        ]
    }  # fmt: skip


def gsm8k() -> Splits:
    folder = REAL_DATA / "gsm8k"
    packed = gzip.decompress((folder / "train.jsonl.gz").read_bytes()).decode()
    return {
        split: [json.loads(line) for line in text.splitlines()]
        for split, text in {
            "train": packed,
            "test": (folder / "test.jsonl").read_text("utf-8"),
        }.items()
    }


def wikitext() -> Splits:
    """The hub's pages: from one heading of the first order to the next."""
    text = (REAL_DATA / "wikitext" / "wiki.test.raw").read_text("utf-8")
    starts = [found.start() for found in re.finditer(r"^ = [^=].*[^=] = $", text, re.MULTILINE)]
    # Whose maker joined a page's lines again, so that the break before the next heading is lost.
    ends = [start - 1 for start in starts[1:]]
    pages = [text[at:end] for at, end in zip(starts, [*ends, len(text)], strict=True)]
    return {"test": [{"page": page} for page in pages]}


def toxigen() -> Splits:
    """SafeNLP's labels as two ratings far from each rule's edge."""
    released = json.loads((REAL_DATA / "toxigen" / "toxiGen.json").read_text("utf-8"))
    rating = {"hate": 5.0, "neutral": 1.0}
    return {
        "test": [
            {"text": one["text"], "toxicity_ai": rating[one["label"]],
             "toxicity_human": rating[one["label"]]}
            for one in released
        ]
    }  # fmt: skip


TASKS: dict[str, tuple[str, str, Callable[[], Splits], int]] = {
    "truthfulqa_mc1": ("truthfulqa", "truthfulqa/truthfulqa_mc1.yaml", truthfulqa, 790),
    "truthfulqa_mc2": ("truthfulqa", "truthfulqa/truthfulqa_mc2.yaml", truthfulqa, 790),
    "truthfulqa_gen": ("truthfulqa_gen", "truthfulqa/truthfulqa_gen.yaml", truthfulqa_gen, 790),
    "gsm8k": ("gsm8k", "gsm8k/gsm8k.yaml", gsm8k, 1319),
    "wikitext": ("wikitext", "wikitext/wikitext.yaml", wikitext, 62),
    "toxigen_classification": (
        "toxigen_classification", "toxigen/toxigen.yaml", toxigen, 6514,
    ),
}  # fmt: skip


def stock_task(file: str, splits: Splits) -> Any:
    """lm-eval's task of that file; only where its rows are is replaced, and splits that the folder
    does not have are not asked for.
    """
    config = load_yaml(STOCK / file)
    for key in ("dataset_path", "dataset_name", "tag"):
        config.pop(key, None)
    absent = [
        key for key in ("training_split", "validation_split") if config.get(key) not in splits
    ]
    rows = DatasetDict({name: Dataset.from_list(part) for name, part in splits.items()})
    return ConfigurableTask(
        config={**config, **dict.fromkeys(absent), "custom_dataset": lambda **_: rows}
    )


def our_task(task: str, subtask: str) -> Any:
    sources = SourceOptions(data_folder=REAL_DATA, offline=True)
    tasks = load_tasks(
        [find_protocol(task)], limits={}, samples_per_prompt=1, paraphrases=0, sources=sources
    )
    return tasks[subtask]


def answered(task: Any) -> dict[str, list[Any]]:
    """By the requests about each document: every metric under every filter, of answers that depend
    on the requests alone.
    """
    task.set_fewshot_seed(FEWSHOT_SEED)
    task.build_all_requests(rank=0, world_size=1)
    for request in task.instances:
        request.resps = [made_up(request)]
    task.apply_filters()
    found: dict[str, list[Any]] = {}
    by_doc: dict[int, list[Any]] = {}
    for request in task.instances:
        by_doc.setdefault(request.doc_id, []).append(request)
    for requests in by_doc.values():
        asked = [request.arguments for request in requests]
        found.setdefault(repr(asked), [])
        if "truthfulqa_gen" in task.config.task and zlib.crc32(repr(asked).encode()) % SIMILARITIES:
            continue
        found[repr(asked)].append(
            {
                name: task.process_results(
                    requests[0].doc, [request.filtered_resps[name] for request in requests]
                )
                for name in requests[0].filtered_resps
            }
        )
    return found


def made_up(request: Any) -> Any:
    """A likelihood, or a text: of GSM8K every third one ends as its solution does."""
    draw = zlib.crc32(repr(request.arguments[:1] if request.request_type == "generate_until"
                           else request.arguments).encode())  # fmt: skip
    if request.request_type == "loglikelihood":
        return -(draw % 1000) / 50, draw % 2 == 0
    if request.request_type == "loglikelihood_rolling":
        return -float(draw % 5000)
    ending = request.doc.get("answer", request.doc.get("best_answer", ""))
    return [ending, f"It is {draw % 90}, or $1,{draw % 900:03}.", f"#### {draw % 20}"][draw % 3]


@pytest.mark.parametrize("subtask", TASKS)
def test_requests_and_scores_are_those_of_the_installed_task(subtask: str) -> None:
    task, file, read, count = TASKS[subtask]
    theirs, ours = answered(stock_task(file, read())), answered(our_task(task, subtask))
    assert sum(map(len, theirs.values())) == (count if subtask != "truthfulqa_gen" else 26)
    assert ours.keys() == theirs.keys()
    for asked, values in theirs.items():
        assert sorted(map(repr, ours[asked])) == sorted(map(repr, values))
