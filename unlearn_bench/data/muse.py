"""MUSE (Shi et al. 2024, arXiv 2407.06460, CC BY 4.0): forget articles or books, keep the rest.

Files of the hub: `raw` holds the texts, `knowmem` questions on them, `verbmem` passages with the
words that come before. The target learns everything; methods read the forget texts and `retain1`,
and never see `retain2`, on which the retained questions are: both models learn it (their §3).
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, read_parquet, with_ids
from unlearn_bench.data.files import refuse_repeats, require_texts
from unlearn_bench.data.fur import FurSets
from unlearn_bench.data.public import CLOZE_FORM, PublicSet, PublicSource, Question
from unlearn_bench.schema import Example, Origin

COLUMNS = {
    "raw/forget": ("text",),
    "raw/retain1": ("text",),
    "raw/retain2": ("text",),
    "knowmem/forget_qa": ("question", "answer"),
    "knowmem/retain_qa": ("question", "answer"),
    "verbmem/forget": ("prompt", "gt"),
}
QUESTIONS = {"knowmem/forget_qa": 100, "knowmem/retain_qa": 100, "verbmem/forget": 100}
TEXTS = {
    "news": {"raw/forget": 889, "raw/retain1": 1777, "raw/retain2": 1778},
    "books": {"raw/forget": 4, "raw/retain1": 12, "raw/retain2": 13},
}
REVISIONS = {
    "news": ("muse-bench/MUSE-News", "928543ace3784ccce8cec389f6e4e771308188b2"),
    "books": ("muse-bench/MUSE-Books", "fe164799e3e960d766744f77394bab95b4989373"),
}
PIECE = 2000  # characters: a book is learned whole only if it is cut to what training reads


def read_files(root: Path) -> Splits:
    """Every configuration's parquet file as one split. Raises CorruptDataError."""
    splits = {}
    for split, columns in COLUMNS.items():
        path = root / _file(split)
        rows = read_parquet(path, columns)
        require_texts(rows, path, *columns, unit="row")
        if not split.startswith("raw/"):
            refuse_repeats(rows, path, columns[0], unit="row")
        splits[split] = with_ids(f"muse-{split.replace('/', '-')}", rows, columns)
    return splits


def build(splits: Splits, origin: Origin) -> PublicSet:
    """Forget texts, `retain1` to train on, `retain2` beside; questions and passages are asked."""
    texts = {name: _pieces(splits, f"raw/{name}") for name in ("forget", "retain1", "retain2")}
    return PublicSet(
        sets=FurSets(forget=texts["forget"], old=(), update=(), retain=texts["retain1"]),
        questions=(
            *_questions(splits, "knowmem/forget_qa", "forget"),
            *_questions(splits, "knowmem/retain_qa", "retain"),
            *(
                Question(row["id"], "forget_text", row["id"], row["prompt"], row["gt"].strip(),
                         form=CLOZE_FORM)
                for row in splits["verbmem/forget"]
            ),
        ),
        origin=origin,
        beside=texts["retain2"],
    )  # fmt: skip


def _file(split: str) -> str:
    return f"{split}-00000-of-00001.parquet"


def _questions(splits: Splits, split: str, part: str) -> list[Question]:
    return [
        Question(row["id"], part, row["id"], row["question"], row["answer"])
        for row in splits[split]
    ]


def _pieces(splits: Splits, split: str) -> tuple[Example, ...]:
    return tuple(
        Example(f"{row['id']}:{start}", "", row["text"][start : start + PIECE])
        for row in splits[split]
        for start in range(0, len(row["text"]), PIECE)
        if row["text"][start : start + PIECE].strip()
    )


def _source(name: str) -> PublicSource:
    repo, revision = REVISIONS[name]
    counts = {split: (size,) for split, size in {**TEXTS[name], **QUESTIONS}.items()}
    files = {split: _file(split) for split in COLUMNS}
    below = {split: f"muse/{name}/{file}" for split, file in files.items()}
    return PublicSource(
        dataset=Dataset(
            name=f"muse_{name}",
            folder_files=tuple(below.values()),
            read_folder=lambda root: read_files(root / "muse" / name),
            hub=HubFiles(repo=repo, revision=revision, patterns=tuple(files.values())),
            read_hub=read_files,
            counts={"folder": counts, "hub": counts},
            split_files={"folder": below, "hub": files},
        ),
        build=build,
    )


SOURCES = tuple(_source(name) for name in TEXTS)
