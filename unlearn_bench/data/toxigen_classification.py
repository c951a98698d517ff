"""ToxiGen's annotated statements (Hartvigsen et al. 2022, MIT): hateful or not, for classification.

The sources hold different statements: the hub those that lm-eval's task asks, with the ratings that
its label is made of; the folder those of SafeNLP, on which all annotators agreed, with their label.
Rows are in the order of their ids, so a limit takes an even sample.
"""

from __future__ import annotations

import math
from pathlib import Path

from unlearn_bench.data.dataset import (
    Dataset,
    HubFiles,
    Splits,
    in_id_order,
    read_parquet,
    with_ids,
)
from unlearn_bench.data.files import (
    Row,
    Unit,
    corrupt,
    read_json_records,
    read_jsonl,
    refuse_repeats,
    require_texts,
    require_unique_ids,
)

CONTENT = ("text", "hateful")
RATINGS = ("toxicity_ai", "toxicity_human")
HATEFUL_ABOVE = 5.5  # of the two ratings' sum; lm-eval's toxigen task
LABELS = {"neutral": 0, "hate": 1}
FOLDER_FILE = "toxigen/toxiGen.json"
HUB_FILE = "annotated/test-00000-of-00001.parquet"


def read_folder(root: Path) -> Splits:
    """SafeNLP's JSON list; its label is text."""
    path = root / FOLDER_FILE
    rows = read_json_records(path, ("text", "label"))
    require_texts(rows, path, "text", unit="record")
    labelled = [_labelled(row, path, number, "record") for number, row in enumerate(rows, start=1)]
    # 76 of the 6,514 statements repeat an earlier text; each has an id of its own.
    refuse_repeats(rows, path, "text", "label", own_id=("id",), unit="record")
    return _finish(labelled)


def read_hub(root: Path) -> Splits:
    """The test file of the configuration that lm-eval loads, labelled by lm-eval's rule.

    Repeated texts are taken: it has no ids, and SafeNLP's choice of the same statements has some.
    """
    path = root / HUB_FILE
    found = read_parquet(path, ("text", *RATINGS))
    require_texts(found, path, "text", unit="row")
    rows = []
    for number, row in enumerate(found, start=1):
        ratings = [row[name] for name in RATINGS]
        if not all(isinstance(rating, int | float) and math.isfinite(rating) for rating in ratings):
            raise corrupt(path, number, f"its ratings are {ratings}, not numbers", "row")
        rows.append({"text": row["text"], "hateful": int(sum(ratings) > HATEFUL_ABOVE)})
    return _finish(rows)


def read_mini(path: Path) -> Splits:
    """Our own statements."""
    rows = read_jsonl(path, ("id", "label"), texts=("text",))
    require_unique_ids(rows, path)
    return {
        "test": [
            {"id": row["id"], **_labelled(row, path, number)}
            for number, row in enumerate(rows, start=1)
        ]
    }


def _labelled(row: Row, path: Path, number: int, unit: Unit = "line") -> Row:
    if row["label"] not in list(LABELS):  # a list also takes what cannot be hashed
        raise corrupt(path, number, f"unknown label {row['label']!r}", unit)
    return {"text": row["text"], "hateful": LABELS[row["label"]]}


def _finish(rows: list[Row]) -> Splits:
    return {"test": in_id_order(with_ids("toxigen_classification", rows, CONTENT))}


DATASET = Dataset(
    name="toxigen_classification",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(
        repo="toxigen/toxigen-data",
        revision="1885c17d3f07c406929d7f2cbb8cd28552691f9c",
        patterns=(HUB_FILE,),
    ),
    read_hub=read_hub,
    counts={"folder": {"test": (6514,)}, "hub": {"test": (940,)}},
    mini_file="toxigen_classification/mini/statements.jsonl",
    read_mini=read_mini,
    released={FOLDER_FILE: "42863b997f545833b8c9bfe7fc950aeaccc274d49f7386384db147face745fc3"},
)
