"""RWKU (Jin et al. 2024, arXiv 2406.10890, CC BY 4.0): forget famous people.

Files of the hub's folder `All`: questions on 200 people (level 1 with a blank to fill, level 2
plain) and on what is near them, and passages about them. `rwku_N` forgets the first N people, the
paper's batch setting. The paper gives methods no texts; here the target learns the people's
passages and methods read them, so that an exact model exists, and the next N people are retained.
"""

from __future__ import annotations

import functools
from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, with_ids
from unlearn_bench.data.files import (
    corrupt,
    find_file,
    read_json_records,
    refuse_repeats,
    require_texts,
)
from unlearn_bench.data.fur import QUESTION_FORM, FurSets
from unlearn_bench.data.public import PublicSet, PublicSource, Question
from unlearn_bench.schema import Example, Origin

SIZES = (10, 50)
BLANK_FORM = "Fill in the blank.\nQuestion: {}\nAnswer:"
FILES = {  # of questions: what is asked of those to forget, of the retained, and in which form
    "forget_level1": ("forget_blank", "retain_blank", BLANK_FORM),
    "forget_level2": ("forget", "retain", QUESTION_FORM),
    "neighbor_level1": ("neighbour_blank", "", BLANK_FORM),
    "neighbor_level2": ("neighbour", "", QUESTION_FORM),
}
PROBES = {"forget_level1": 3268, "forget_level2": 2879}  # the paper's Table 1


def read_files(root: Path) -> Splits:
    """Every file as one split, in its order. Raises CorruptDataError."""
    splits: Splits = {}
    for split in (*FILES, "passage"):
        path = find_file(root, f"{split}.json")
        keys = ("subject", "text") if split == "passage" else ("subject", "query", "answer")
        rows = read_json_records(path, keys)
        require_texts(rows, path, *keys, unit="record")
        refuse_repeats(rows, path, *keys, unit="record")
        splits[split] = with_ids(f"rwku-{split}", rows, keys)
    told = {row["subject"] for row in splits["passage"]}
    for person in _people(splits):
        if person not in told:  # who would be "forgotten" without ever having been learned
            raise corrupt(find_file(root, "passage.json"), 0, f"has no passage about {person!r}")
    return splits


def build(splits: Splits, origin: Origin, *, size: int) -> PublicSet:
    """The first `size` people of the questions are to be forgotten, the next `size` retained."""
    people = _people(splits)
    forgotten, retained = people[:size], people[size : 2 * size]
    return PublicSet(
        sets=FurSets(
            forget=_passages(splits, forgotten),
            old=(),
            update=(),
            retain=_passages(splits, retained),
        ),
        questions=tuple(
            Question(row["id"], part, row["subject"], row["query"], row["answer"], form=form)
            for split, (forget, retain, form) in FILES.items()
            for part, group in ((forget, forgotten), (retain, retained))
            for row in splits[split]
            if part and row["subject"] in group
        ),
        origin=origin,
    )


def _people(splits: Splits) -> list[str]:
    return list(dict.fromkeys(row["subject"] for row in splits["forget_level1"]))


def _passages(splits: Splits, people: list[str]) -> tuple[Example, ...]:
    return tuple(
        Example(row["id"], "", row["text"], row["subject"])
        for row in splits["passage"]
        if row["subject"] in people
    )


def _source(size: int) -> PublicSource:
    splits = (*FILES, "passage")
    # Of the neighbours' 11,379 probes we have not seen how many are of which level, and how many
    # passages there are the paper does not say. A JSON list that is cut cannot be read at all.
    counts = {split: (count,) for split, count in PROBES.items()}
    return PublicSource(
        dataset=Dataset(
            name=f"rwku_{size}",
            folder_files=tuple(f"rwku/{split}.json" for split in splits),
            read_folder=lambda root: read_files(root / "rwku"),
            hub=HubFiles(
                repo="jinzhuoran/RWKU",
                revision="726eed74054c93d525052cff94edf085212f3b53",
                patterns=tuple(f"All/{split}.json" for split in splits),
            ),
            read_hub=lambda root: read_files(root / "All"),
            counts={"folder": counts, "hub": counts},
            split_files={
                "folder": {split: f"rwku/{split}.json" for split in splits},
                "hub": {split: f"All/{split}.json" for split in splits},
            },
        ),
        build=functools.partial(build, size=size),
    )


SOURCES = tuple(_source(size) for size in SIZES)
