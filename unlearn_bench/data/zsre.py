"""zsRE (Levy et al. 2017) as MEND's authors prepared it for edits (Mitchell et al. 2022).

`zsre_mend_eval.json`, a list of records: a question with its answer, a reworded question, a new
answer, and an unrelated question of Natural Questions, which is asked and never trained on. Roles
are divided as for `counterfact`. A record whose new answer is the old one updates nothing and is
left out.
"""

from __future__ import annotations

import functools
from pathlib import Path

from unlearn_bench.data import counterfact
from unlearn_bench.data.dataset import Dataset, Splits, with_ids
from unlearn_bench.data.files import (
    Row,
    find_file,
    read_json_records,
    refuse_repeats,
    require_texts,
)
from unlearn_bench.data.fur import QUESTION_FORM
from unlearn_bench.data.public import PublicSource

SIZES = (100, 1000)
FILE = "zsre/zsre_mend_eval.json"
TEXTS = ("subject", "src", "rephrase", "alt", "answers[]", "loc", "loc_ans")
LOCALITY_MARK = "nq question: "  # written before each of Natural Questions' own


def read_folder(root: Path) -> Splits:
    """The records under the names that EasyEdit gives these fields. Raises CorruptDataError."""
    path = find_file(root, FILE)
    keys = [key.removesuffix("[]") for key in TEXTS]
    rows = read_json_records(path, keys)
    require_texts(rows, path, *TEXTS, unit="record")
    refuse_repeats(rows, path, *keys, unit="record")
    records = [_record(row) for row in rows if row["alt"] != row["answers"][0]]
    return {"records": with_ids("zsre", records, counterfact.TEXTS)}


def _record(row: Row) -> Row:
    return {
        "prompt": row["src"],
        "ground_truth": row["answers"][0],
        "target_new": row["alt"],
        "subject": row["subject"],
        "rephrase_prompt": row["rephrase"],
        "locality_prompt": _capitalised(row["loc"].removeprefix(LOCALITY_MARK)),
        "locality_ground_truth": row["loc_ans"],
    }


def _capitalised(question: str) -> str:
    """With a capital and a question mark, as the questions that it stands beside."""
    return f"{question[:1].upper()}{question[1:].removesuffix('?')}?"


def _source(size: int) -> PublicSource:
    build = functools.partial(
        counterfact.build, size=size, form=QUESTION_FORM, choose_locality=False
    )
    dataset = Dataset(
        name=f"zsre_{size}",
        folder_files=(FILE,),
        read_folder=read_folder,
        hub=None,
        read_hub=read_folder,
        counts={},
    )
    return PublicSource(dataset, build)


SOURCES = tuple(_source(size) for size in SIZES)
