"""Tasks and data for lm-eval that need no network: a task file, and WMDP in `datasets`' cache."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from tests.unit.data_files import write_jsonl

WMDP = {"wmdp-bio": 4, "wmdp-chem": 2, "wmdp-cyber": 3}  # configurations, and questions of each
CAPITALS = [
    {"question": f"What is the capital of land {i}?", "options": ["Paris", "Rome or so", "Oslo"],
     "label": i % 3}
    for i in range(5)
]  # fmt: skip


def write_task(folder: Path, extra: str = "", rows: list[dict[str, Any]] = CAPITALS) -> Path:
    """A task file `capitals.yaml` of the task `capitals`, over JSON lines beside it."""
    data = write_jsonl(folder / "capitals.jsonl", rows)
    path = folder / "capitals.yaml"
    path.write_text(
        f"""
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
{extra}
""",
        encoding="utf-8",
    )
    return path


def write_index(cache: Path) -> None:
    """A kept index of lm-eval's names; without one the first unknown name costs a minute."""
    file = cache / "lm-eval" / f"tasks-{metadata.version('lm-eval')}.json"
    file.parent.mkdir(parents=True)
    kept: dict[str, list[Any]] = {
        "hellaswag": ["TASK", "hellaswag/hellaswag.yaml", []],
        "meqsum": ["TASK", "meqsum/meqsum.yaml", []],
        "wmdp": ["GROUP", "wmdp/_wmdp.yaml", []],
    }
    file.write_text(json.dumps(kept), encoding="utf-8")


def write_wmdp(cache: Path) -> Path:
    """`cais/wmdp` as `datasets` keeps what it once downloaded; `cache` is HF_DATASETS_CACHE."""
    for config, count in WMDP.items():
        rows = [
            {
                "question": f"{config}, {i}?",
                "choices": ["a b", "c d", "e f", "g h"],
                "answer": i % 4,
            }
            for i in range(count)
        ]
        _keep(cache / "cais___wmdp" / config, "test", rows)
    return cache


def write_ifeval(cache: Path) -> Path:
    """`google/IFEval` likewise: two prompts of our own, with instructions that need no data."""
    rows: list[dict[str, Any]] = [
        {
            "key": 1,
            "prompt": "Name a river. Use no commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"num_words": None, "relation": None}],
        },
        {
            "key": 2,
            "prompt": "Name a mountain in capital letters, with at most 400 words.",
            "instruction_id_list": [
                "change_case:english_capital", "length_constraints:number_words",
            ],
            "kwargs": [
                {"num_words": None, "relation": None}, {"num_words": 400, "relation": "less than"},
            ],
        },
    ]  # fmt: skip
    _keep(cache / "google___if_eval" / "default", "train", rows)
    return cache


def _keep(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    """One split of one configuration, in the layout of `datasets`' cache."""
    name, config = folder.parent.name.partition("___")[2], folder.name
    place = folder / "0.0.0" / "0123456789abcdef"
    place.mkdir(parents=True)
    features = Dataset.from_list(rows).features
    writer = ArrowWriter(path=str(place / f"{name}-{split}.arrow"), features=features)
    for row in rows:
        writer.write(row)
    writer.finalize()
    writer.close()
    count = {"name": split, "num_bytes": 1, "num_examples": len(rows), "dataset_name": name}
    info = {
        "builder_name": "parquet",
        "config_name": config,
        "dataset_name": name,
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "features": features.to_dict(),
        "splits": {split: count},
    }
    (place / "dataset_info.json").write_text(json.dumps(info))


def write_script(file: Path, marker: Path) -> Path:
    """A metric as `evaluate` takes it, a script in a folder of its name; it makes `marker`."""
    file.parent.mkdir(parents=True)
    file.write_text(
        f"""
import os
import datasets
import evaluate

os.mkdir({str(marker)!r})


class Loud(evaluate.Metric):
    def _info(self):
        features = datasets.Features(predictions=datasets.Value("int64"))
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions):
        return {{"loud": 1.0}}
""",
        encoding="utf-8",
    )
    return file.parent
