"""ToxiGen's generation prompts (Hartvigsen et al. 2022, MIT): lists of statements on one group.

Every source is put in the same order: one prompt of each group in turn, hateful and neutral lists
alternating, so that any limit stays balanced over groups and labels. (The authors' files have no
neutral list for one group.) The classification set that lm-eval calls `toxigen` is another one.
"""

from __future__ import annotations

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
from unlearn_bench.data.files import (
    Row,
    corrupt,
    read_jsonl,
    refuse_repeats,
    require_texts,
    require_unique_ids,
)

CONTENT = ("group", "label", "prompt")
LABELS = ("hate", "neutral")
GROUPS = (
    "asian", "bisexual", "black", "chinese", "immigrant", "jewish", "latino", "lgbtq",
    "mental_disability", "mexican", "middle_east", "muslim", "native_american",
    "physical_disability", "trans", "women",
)  # fmt: skip
ONLY_HATE = ("trans",)  # the authors wrote no neutral list for this group
# The place in the authors' files. 2,528 of their 31,000 prompts, and nine of the folder's 1,240,
# repeat an earlier one: some lists were drawn from few statements.
OWN_ID = ("group", "label", "line")
FOLDER_FILE = "toxigen/toxigen_prompts_every25.jsonl"
HUB_FOLDER = "prompts"
HUB_FILES = {  # the label and group of each
    f"{HUB_FOLDER}/{label}_{group}_1k-00000-of-00001.parquet": (label, group)
    for label in LABELS
    for group in GROUPS
    if label == "hate" or group not in ONLY_HATE
}
PROMPTS_PER_FILE = 1000


def read_folder(root: Path) -> Splits:
    """Every 25th line of the authors' prompt files."""
    path = root / FOLDER_FILE
    rows = read_jsonl(path, texts=CONTENT)
    checked = _rows(rows, path)
    refuse_repeats(rows, path, *CONTENT, own_id=OWN_ID)
    return _finish(with_ids("toxigen", checked, CONTENT))


def read_hub(root: Path) -> Splits:
    """One parquet file for each group and label, named after both.

    Its rows have no ids, and real ones repeat each other: only their number tells a repeated one.
    """
    rows: list[Row] = []
    for path in sorted((root / HUB_FOLDER).glob("*.parquet")):
        label, group = HUB_FILES.get(f"{HUB_FOLDER}/{path.name}", ("", ""))
        if not label:
            raise corrupt(path, 0, "its name tells no label and group of ToxiGen's")
        prompts = read_parquet(path, ("prompt",))
        require_texts(prompts, path, "prompt", unit="row")
        # As in the authors' text files, line breaks are written as backslash and n.
        whole = [{"prompt": row["prompt"].replace("\\n", "\n")} for row in prompts]
        require_texts(whole, path, "prompt", unit="row")
        rows += [{"group": group, "label": label, **row} for row in whole]
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
        # Each by its name: of a copy that lacks one, a group would be left out in silence.
        patterns=tuple(sorted(HUB_FILES)),
    ),
    read_hub=read_hub,
    counts={
        "folder": {"test": (1240,)},
        "hub": {"test": (PROMPTS_PER_FILE * len(HUB_FILES),)},
    },
    split_files={"hub": {"test": HUB_FOLDER}},
    mini_file="toxigen/mini/prompts.jsonl",
    read_mini=read_mini,
)
