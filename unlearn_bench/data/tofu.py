"""TOFU (Maini et al. 2024, arXiv 2401.06121, MIT): questions about 200 fictitious authors.

Files as released: JSON lines. `full` holds 20 questions on each of 200 authors; `forgetXX` its last
40, 200 or 400 rows. What the authors release as `retain99`, `retain95` and `retain90` is the rest
of `full`, which is where it is taken from. The `_perturbed` files add a paraphrased question, a
paraphrased answer and wrong answers in the latter's words; real authors and world facts are asked
and never trained on, and have no paraphrases (their §2.2).
"""

from __future__ import annotations

import functools
from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, with_ids
from unlearn_bench.data.files import (
    Row,
    corrupt,
    find_file,
    read_jsonl,
    refuse_repeats,
    require_texts,
)
from unlearn_bench.data.fur import FurSets
from unlearn_bench.data.public import PublicSet, PublicSource, Question, answer_example
from unlearn_bench.schema import Example, Origin

FULL = 4000
FORGET = {"forget01": 40, "forget05": 200, "forget10": 400}
PERTURBED = {"retain_perturbed": 400, "real_authors_perturbed": 100, "world_facts_perturbed": 117}
UNTRAINED = {"real_authors_perturbed": "real_authors", "world_facts_perturbed": "world_facts"}
QUESTIONS_PER_AUTHOR = 20
CONTENT = ("question", "answer")
RELEASED = {  # sha256, unpacked; forget05's files could not be read where this was written
    "full": "667baef2f26f781f1328701d8ea54bf25123ff22fb2d98574c96cd991cb54086",
    "forget01": "d0047332bd27a489c552659831f4ffff080e2b9b6e063c7c951ac4de9d494a63",
    "forget01_perturbed": "d8d8a80bd25e853b52fad0e3301d86fa4db6bc2b665cd79ea937346186a0944a",
    "forget10": "0044c8c2e70a38be93f62ec6cb1c1cc2a1f55a8df2fb549a4da2da8dde9d92f6",
    "forget10_perturbed": "6fbcb946c57ea1d7b2124cea0e61bf3b5409d1bc10d02368f090109450ed73c7",
    "retain_perturbed": "fc69f33bad70d3dca65920bdb54380039e3e8872dd16bbae20c1a839b99533fb",
    "real_authors_perturbed": "a23255383ac75a5fbe5acd57622a03fb9c368954fd7b2428afa152b784d9533a",
    "world_facts_perturbed": "0e171838040d0ec94b1ce248d891508e85e3b77344370077caa27b61898eb3e1",
}
REWORDED = ("paraphrased_question", "paraphrased_answer")  # of those that are trained on


def read_split(root: Path, *, name: str) -> Splits:
    """`full`, `name`, and every perturbed file, each as one split. Raises CorruptDataError."""
    splits = {}
    for split in _names(name):
        path = find_file(root, f"{split}.json")
        asked = split.endswith("_perturbed")
        reworded = REWORDED if asked and split not in UNTRAINED else ()
        wrong = ("perturbed_answer",) if asked else ()
        rows = read_jsonl(path, (*CONTENT, *reworded, *wrong))
        require_texts(rows, path, *CONTENT, *reworded, *(f"{key}[]" for key in wrong))
        refuse_repeats(rows, path, *CONTENT)
        if wrong:
            _refuse_right_options(rows, path, reworded=bool(reworded))
        kept = (*CONTENT, *reworded, *wrong)
        splits[split] = with_ids("tofu", [{key: row[key] for key in kept} for row in rows], CONTENT)
    _require_order(splits, name, root)
    return splits


def build(splits: Splits, origin: Origin, *, name: str) -> PublicSet:
    """The last rows of `full` are to be forgotten, all others retained; nothing is updated."""
    authors: dict[str, str] = {
        row["id"]: f"author-{number // QUESTIONS_PER_AUTHOR}"
        for number, row in enumerate(splits["full"])
    }
    trained = [_example(row) for row in splits["full"]]
    kept = len(trained) - len(splits[name])
    kept_ids = {text.id for text in trained[:kept]}
    parts = {f"{name}_perturbed": "forget", "retain_perturbed": "retain", **UNTRAINED}
    return PublicSet(
        sets=FurSets(forget=tuple(trained[kept:]), old=(), update=(), retain=tuple(trained[:kept])),
        questions=tuple(
            _question(row, part, authors.get(str(row["id"]), str(row["id"])))
            for split, part in parts.items()
            for row in splits[split]
            if part != "retain" or row["id"] in kept_ids
        ),
        origin=origin,
    )


def _names(name: str) -> tuple[str, ...]:
    return ("full", name, f"{name}_perturbed", *PERTURBED)


def _refuse_right_options(rows: list[Row], path: Path, *, reworded: bool) -> None:
    for number, row in enumerate(rows, start=1):
        right = {row["answer"], row["paraphrased_answer"] if reworded else row["answer"]}
        wrong = row["perturbed_answer"]
        if len({*right, *wrong}) < len(right) + len(wrong):
            raise corrupt(path, number, "a wrong option is the answer, or stands there twice")


def _require_order(splits: Splits, name: str, root: Path) -> None:
    """Raise unless the forget set is the end of `full`, as its perturbed form is of itself."""
    path = find_file(root, f"{name}.json")
    ids = {split: [row["id"] for row in rows] for split, rows in splits.items()}
    if ids["full"][-len(ids[name]) :] != ids[name]:
        raise corrupt(path, 0, "these are not the last rows of full.json, in its order")
    if ids[f"{name}_perturbed"] != ids[name]:
        raise corrupt(path, 0, f"these are not the questions of {name}_perturbed.json")
    if stray := set(ids["retain_perturbed"]) - set(ids["full"]):
        raise corrupt(path.parent / "retain_perturbed.json", 0, f"{min(stray)} is not in full.json")


def _example(row: Row) -> Example:
    question = _question(row, "", row["id"])
    return answer_example(row["id"], question, row["answer"])


def _question(row: Row, part: str, author: str) -> Question:
    reworded = row.get("paraphrased_question")
    has_answer = part in ("forget", "retain")  # the other files promise no text there
    return Question(
        id=row["id"],
        part=part,
        subject=author,
        question=row["question"],
        answer=row["answer"],
        paraphrases=(reworded,) if reworded else (),
        wrong_options=tuple(row.get("perturbed_answer", ())),
        paraphrased_answer=row["paraphrased_answer"] if has_answer else "",
    )


def _source(name: str) -> PublicSource:
    sizes = {"full": FULL, name: FORGET[name], f"{name}_perturbed": FORGET[name], **PERTURBED}
    counts = {split: (size,) for split, size in sizes.items()}
    return PublicSource(
        dataset=Dataset(
            name=f"tofu_{name}",
            folder_files=tuple(f"tofu/{split}.json" for split in _names(name)),
            read_folder=lambda root: read_split(root / "tofu", name=name),
            hub=HubFiles(
                repo="locuslab/TOFU",
                revision="324592d84ae4f482ac7249b9285c2ecdb53e3a68",
                patterns=tuple(f"{split}.json" for split in _names(name)),
            ),
            read_hub=functools.partial(read_split, name=name),
            counts={"folder": counts, "hub": counts},
            released={
                f"tofu/{split}.json": RELEASED[split] for split in _names(name) if split in RELEASED
            },
            split_files={
                "folder": {split: f"tofu/{split}.json" for split in _names(name)},
                "hub": {split: f"{split}.json" for split in _names(name)},
            },
        ),
        build=functools.partial(build, name=name),
    )


SOURCES = tuple(_source(name) for name in FORGET)
