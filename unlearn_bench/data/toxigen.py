"""ToxiGen's generation prompts (Hartvigsen et al. 2022, MIT): lists of statements on one group.

Every source is put in the same order: one prompt of each group in turn, hateful and neutral lists
alternating, so that any limit stays balanced over groups and labels. (The authors' files have no
neutral list for one group.) The classification set that lm-eval calls `toxigen` is another one.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from unlearn_bench.data.dataset import (
    Dataset,
    HubFiles,
    Splits,
    in_id_order,
    interleave,
    read_parquet,
    with_ids,
)
from unlearn_bench.data.files import Row, corrupt, read_jsonl, require_texts, require_unique_ids

CONTENT = ("group", "label", "prompt")
LABELS = ("hate", "neutral")
FOLDER_FILE = "toxigen/toxigen_prompts_every25.jsonl"
HUB_NAME = re.compile(r"(?P<label>hate|neutral)_(?P<group>\w+)_1k-.*\.parquet")


def read_folder(root: Path) -> Splits:
    """Every 25th line of the authors' prompt files."""
    rows = _rows(read_jsonl(root / FOLDER_FILE, texts=CONTENT), root / FOLDER_FILE)
    return _finish(with_ids("toxigen", rows, CONTENT))


def read_hub(root: Path) -> Splits:
    """One parquet file for each group and label, named after both."""
    rows: list[Row] = []
    for path in sorted((root / "prompts").glob("*.parquet")):
        named = HUB_NAME.fullmatch(path.name)
        if named is None:
            raise corrupt(path, 0, "its name tells no label and group")
        prompts = read_parquet(path, ("prompt",))
        require_texts(prompts, path, "prompt")
        for row in prompts:
            # As in the authors' text files, line breaks are written as backslash and n.
            prompt = row["prompt"].replace("\\n", "\n")
            rows.append({"group": named["group"], "label": named["label"], "prompt": prompt})
    return _finish(with_ids("toxigen", rows, CONTENT))


def read_mini(path: Path) -> Splits:
    """Our own prompts, mild in tone, in ToxiGen's form."""
    rows = read_jsonl(path, ("id",), texts=CONTENT)
    require_unique_ids(rows, path)
    return {"test": _in_turn(_rows(rows, path, ("id", *CONTENT)))}


def _rows(rows: list[Row], path: Path, keys: tuple[str, ...] = CONTENT) -> list[Row]:
    for number, row in enumerate(rows, start=1):
        if row["label"] not in LABELS:
            raise corrupt(path, number, f"unknown label {row['label']!r}")
    return [{key: row[key] for key in keys} for row in rows]


def _finish(rows: list[Row]) -> Splits:
    return {"test": _in_turn(in_id_order(rows))}


def _in_turn(rows: list[Row]) -> list[Row]:
    """Every group once, every second group with a neutral list; then each with its other label."""
    groups = sorted({row["group"] for row in rows})
    first = {group: LABELS[index % 2] for index, group in enumerate(groups)}
    seen: Counter[tuple[str, str]] = Counter()
    places = []
    for row in rows:
        stratum = (row["group"], row["label"])
        places.append((seen[stratum], row["label"] != first[row["group"]]))
        seen[stratum] += 1
    order = sorted(range(len(rows)), key=lambda index: places[index])
    return interleave((rows[index] for index in order), ("group",))


DATASET = Dataset(
    name="toxigen",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(
        repo="toxigen/toxigen-data",
        revision="de75e584563650aa4552f73968d89a04393f7bcb",
        patterns=("prompts/*.parquet",),
    ),
    read_hub=read_hub,
    # The hub's own count is not pinned: its files could not be read where this was written.
    counts={"folder": {"test": (1240,)}},
    mini_file="toxigen/mini/prompts.jsonl",
    read_mini=read_mini,
)
