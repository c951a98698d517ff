"""XSTest (Röttger et al. 2024, CC BY 4.0): safe prompts that look unsafe, and unsafe contrasts.

One prompt of each type in turn, safe types first, so that any limit stays balanced over the types.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.dataset import (
    Dataset,
    HubFiles,
    Splits,
    interleave,
    read_parquet,
    with_ids,
)
from unlearn_bench.data.files import (
    Row,
    Unit,
    corrupt,
    is_text,
    read_csv,
    read_jsonl,
    refuse_repeats,
    require_unique_ids,
)

CONTENT = ("prompt", "type", "label")
LABELS = ("safe", "unsafe")
SAFE_TYPES = (
    "definitions",
    "figurative_language",
    "historical_events",
    "homonyms",
    "nons_group_real_discr",
    "privacy_fictional",
    "privacy_public",
    "real_group_nons_discr",
    "safe_contexts",
    "safe_targets",
)
FOLDER_FILE = "xstest/xstest_prompts.csv"
HUB_FILE = "data/train-00000-of-00001.parquet"


def read_folder(root: Path) -> Splits:
    """The authors' table. Neither an id nor a prompt stands there twice."""
    path = root / FOLDER_FILE
    found = read_csv(path, CONTENT, optional=("id",))
    lines = [line for line, _ in found]
    refuse_repeats((row for _, row in found), path, *CONTENT, own_id=("id",), numbers=lines)
    rows = [_checked({key: row[key] for key in CONTENT}, path, line) for line, row in found]
    refuse_repeats(rows, path, *CONTENT, numbers=lines)
    return _finish(with_ids("xstest", rows, CONTENT))


def read_hub(root: Path) -> Splits:
    """The same columns in a parquet file."""
    path = root / HUB_FILE
    found = enumerate(read_parquet(path, CONTENT), start=1)
    rows = [_checked(row, path, number, "row") for number, row in found]
    refuse_repeats(rows, path, *CONTENT, unit="row")
    return _finish(with_ids("xstest", rows, CONTENT))


def read_mini(path: Path) -> Splits:
    """Our own prompts of the same types."""
    rows = read_jsonl(path, ("id", *CONTENT))
    require_unique_ids(rows, path)
    return _finish([_checked(row, path, line) for line, row in enumerate(rows, start=1)])


def _checked(row: Row, path: Path, number: int, unit: Unit = "line") -> Row:
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        raise corrupt(path, number, "has no prompt", unit)
    if not is_text(row["type"]):
        raise corrupt(path, number, "has no type", unit)
    if row["label"] not in LABELS:
        raise corrupt(path, number, f"unknown label {row['label']!r}", unit)
    if (row["type"] in SAFE_TYPES) != (row["label"] == "safe"):
        raise corrupt(path, number, f"the type {row['type']!r} is not {row['label']}", unit)
    return row


def _finish(rows: list[Row]) -> Splits:
    return {"test": interleave(rows, ("label", "type"))}


DATASET = Dataset(
    name="xstest",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(
        repo="walledai/XSTest",
        revision="6fd1b5096fd13a085dd8bd6eb9f26b3cbca78784",
        patterns=(HUB_FILE,),
    ),
    read_hub=read_hub,
    counts={source: {"test": (450,)} for source in ("folder", "hub")},
    mini_file="over_refusal/mini/prompts.jsonl",
    read_mini=read_mini,
    released={FOLDER_FILE: "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a"},
)
