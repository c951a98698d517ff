"""CounterFact (Meng et al. 2022, arXiv 2202.05262, MIT) in the JSON form that EasyEdit reads.

Each record updates one true fact to a false one. `counterfact_N` updates the first N subjects and
retains the next N; the locality prompts of the updated records, facts of other subjects with the
same true answer, are asked and never trained on, as in the paper.
"""

from __future__ import annotations

import functools
from pathlib import Path

from unlearn_bench.data.dataset import Dataset, Splits
from unlearn_bench.data.files import (
    Row,
    corrupt,
    find_file,
    read_json_records,
    refuse_repeats,
    require_texts,
)
from unlearn_bench.data.fur import FurSets
from unlearn_bench.data.public import (
    CLOZE_FORM,
    PublicSet,
    PublicSource,
    Question,
    answer_example,
)
from unlearn_bench.schema import Origin

SIZES = (100, 1000)
FILE = "counterfact/counterfact-edit.json"
RECORDS = 10_000
TEXTS = (
    "prompt",
    "ground_truth",
    "target_new",
    "subject",
    "rephrase_prompt",
    "locality_prompt",
    "locality_ground_truth",
)


def read_folder(root: Path) -> Splits:
    """EasyEdit's list of records, ids `counterfact-<case_id>`. Raises CorruptDataError."""
    path = find_file(root, FILE)
    rows = read_json_records(path, ("case_id", *TEXTS))
    require_texts(rows, path, *TEXTS, unit="record")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row["case_id"], int):
            raise corrupt(path, number, "case_id is not a whole number", "record")
        if row["target_new"] == row["ground_truth"]:
            what = "target_new is the ground truth: nothing is updated"
            raise corrupt(path, number, what, "record")
    refuse_repeats(rows, path, "case_id", unit="record")
    return {"records": [row | {"id": f"counterfact-{row['case_id']}"} for row in rows]}


def build(
    splits: Splits,
    origin: Origin,
    *,
    size: int,
    form: str = CLOZE_FORM,
    choose_locality: bool = True,
) -> PublicSet:
    """Update the first `size` subjects, retain the next `size`; each with its first record only.

    choose_locality: whether the new answer is the wrong option of the locality prompt, as in the
    paper's neighbourhood score. A locality prompt that is trained on elsewhere is not asked.
    """
    firsts = {row["subject"]: row for row in reversed(splits["records"])}
    chosen = [row for row in splits["records"] if firsts[row["subject"]] is row][: 2 * size]
    updated, retained = chosen[:size], chosen[size:]
    updates = [_question(row, "update", form) for row in updated]
    keeps = [_question(row, "retain", form) for row in retained]
    trained = {row["prompt"] for row in chosen}
    local = [
        _locality(row, form, choose_locality)
        for row in updated
        if row["locality_prompt"] not in trained
    ]
    return PublicSet(
        sets=FurSets(
            forget=(),
            old=tuple(answer_example(f"{q.id}:old", q, q.answer) for q in updates),
            update=tuple(answer_example(f"{q.id}:new", q, q.new_answer) for q in updates),
            retain=tuple(answer_example(f"{q.id}:old", q, q.answer) for q in keeps),
        ),
        questions=(*updates, *keeps, *local),
        origin=origin,
    )


def _question(row: Row, part: str, form: str) -> Question:
    updated = part == "update"
    return Question(
        id=row["id"],
        part=part,
        subject=row["subject"],
        question=row["prompt"],
        answer=row["ground_truth"],
        new_answer=row["target_new"] if updated else "",
        paraphrases=(row["rephrase_prompt"],),
        wrong_options=() if updated else (row["target_new"],),
        form=form,
    )


def _locality(row: Row, form: str, choose: bool) -> Question:
    differs = row["target_new"] != row["locality_ground_truth"]
    return Question(
        id=f"{row['id']}-locality",
        part="locality",
        subject=row["subject"],
        question=row["locality_prompt"],
        answer=row["locality_ground_truth"],
        wrong_options=(row["target_new"],) if choose and differs else (),
        form=form,
    )


def _source(size: int) -> PublicSource:
    return PublicSource(
        dataset=Dataset(
            name=f"counterfact_{size}",
            folder_files=(FILE,),
            read_folder=read_folder,
            hub=None,
            read_hub=read_folder,
            counts={"folder": {"records": (RECORDS,)}},
            released={FILE: "bfe31a7081932739406e282bb625d74222549c3386c15b1df3dfbc3978c69eec"},
        ),
        build=functools.partial(build, size=size),
    )


SOURCES = tuple(_source(size) for size in SIZES)
