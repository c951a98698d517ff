"""WikiText-2 raw, test part (Merity et al. 2016, CC BY-SA), whole pages as lm-eval reads them.

Options are chosen on the validation part: raw from the hub, from a folder in the edition whose rare
words are `<unk>` (the one that circulates as a single file; only ratios between models on the same
pages are read from it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, read_parquet, with_ids
from unlearn_bench.data.files import (
    Row,
    corrupt,
    read_jsonl,
    read_text,
    refuse_repeats,
    require_texts,
    require_unique_ids,
)

HUB_REPOSITORY = "EleutherAI/wikitext_document_level"
HUB_REVISION = "647234772b9554e208af6c826f23b99e3cac88c8"
HUB_FILE = "wikitext-2-raw-v1/wikitext-2-raw-v1-test.parquet"
HUB_VALIDATION_FILE = "wikitext-2-raw-v1/wikitext-2-raw-v1-validation.parquet"
FOLDER_FILE = "wikitext/wiki.test.raw"
# The canonical file: a text cut short would still look like whole pages.
FOLDER_SHA256 = "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
FOLDER_VALIDATION_FILE = "wikitext/wikitext-2.valid.txt.gz"
VALIDATION_SHA256 = "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"  # unpacked
MINI_FILE = "wikitext/mini/pages.jsonl"


def read_folder(root: Path) -> Splits:
    """The canonical `wiki.test.raw`, cut into pages."""
    return {"test": _read_pages(root / FOLDER_FILE, FOLDER_SHA256)}


def read_hub(root: Path) -> Splits:
    """The hub's document-level parquet file."""
    return {"test": _read_hub_pages(root / HUB_FILE)}


def read_mini(path: Path) -> Splits:
    """Our own encyclopaedic prose, one page a row: the pages that suites ask."""
    return {"test": _read_mini_pages(path, "test")}


def read_folder_validation(root: Path) -> Splits:
    """The edition with `<unk>`, cut into pages."""
    return {"validation": _read_pages(root / FOLDER_VALIDATION_FILE, VALIDATION_SHA256)}


def read_hub_validation(root: Path) -> Splits:
    """The hub's document-level parquet file of that part."""
    return {"validation": _read_hub_pages(root / HUB_VALIDATION_FILE)}


def read_mini_validation(path: Path) -> Splits:
    """Every fifth page of our prose."""
    return {"validation": _read_mini_pages(path, "validation")}


def _read_hub_pages(path: Path) -> list[Row]:
    rows = read_parquet(path, ("page",))
    require_texts(rows, path, "page", unit="row")
    refuse_repeats(rows, path, "page", unit="row")
    return with_ids("wikitext", rows, ("page",))


def _read_pages(path: Path, sha256: str) -> list[Row]:
    """Raises CorruptDataError unless the text is the one with this hash."""
    text = read_text(path)
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != sha256:
        raise corrupt(path, 0, f"sha256 {found[:16]}…, not WikiText-2's {sha256[:16]}…")
    return with_ids("wikitext", ({"page": page} for page in split_pages(text)), ("page",))


def _read_mini_pages(path: Path, split: str) -> list[Row]:
    rows = read_jsonl(path, ("id", "split"), texts=("title", "text"))
    require_unique_ids(rows, path)
    for number, row in enumerate(rows, start=1):
        if row["split"] not in ("test", "validation"):
            raise corrupt(path, number, f"unknown split {row['split']!r}")
    return [
        {"id": row["id"], "page": row["text"], "title": row["title"]}
        for row in rows
        if row["split"] == split
    ]


def split_pages(text: str) -> Iterator[str]:
    """The pages of a raw WikiText file, by the rule of `EleutherAI/wikitext_document_level`.

    A page starts at each title line (one "=" on each side; sections have two or more) and keeps
    its line breaks; blank text before the first title is no page.
    """
    page: list[str] = []
    for line in text.split("\n"):
        if _is_title(line):
            if "".join(page).strip():
                yield "\n".join(page)
            page = []
        page.append(line)
    yield "\n".join(page)


def _is_title(line: str) -> bool:
    # "= = Section = =" must not read as a title: join its signs first, longest run first.
    joined = line.replace("= = =", "===").replace("= =", "==").strip()
    return joined.startswith("= ") and joined.endswith(" =")


HELD_OUT = Dataset(
    name="wikitext_validation",
    folder_files=(FOLDER_VALIDATION_FILE,),
    read_folder=read_folder_validation,
    hub=HubFiles(repo=HUB_REPOSITORY, revision=HUB_REVISION, patterns=(HUB_VALIDATION_FILE,)),
    read_hub=read_hub_validation,
    # The hub's own page counts 60 too; its file could not be read where this was written.
    counts={source: {"validation": (60,)} for source in ("folder", "hub")},
    mini_file=MINI_FILE,
    read_mini=read_mini_validation,
)

DATASET = Dataset(
    name="wikitext",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(repo=HUB_REPOSITORY, revision=HUB_REVISION, patterns=(HUB_FILE,)),
    read_hub=read_hub,
    counts={source: {"test": (62,)} for source in ("folder", "hub")},
    mini_file=MINI_FILE,
    read_mini=read_mini,
    held_out=HELD_OUT,
)
