"""GSM8K (Cobbe et al. 2021, MIT), in the columns of lm-eval's stock task."""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, read_parquet, with_ids
from unlearn_bench.data.files import (
    Row,
    Unit,
    corrupt,
    read_jsonl,
    refuse_repeats,
    require_texts,
    require_unique_ids,
)

CONTENT = ("question", "answer")
HUB_FILES = {
    "train": "main/train-00000-of-00001.parquet",
    "test": "main/test-00000-of-00001.parquet",
}
FOLDER_FILES = {"train": "gsm8k/train.jsonl.gz", "test": "gsm8k/test.jsonl"}


def read_folder(root: Path) -> Splits:
    """The authors' JSON lines (train gzipped)."""
    return {
        split: _rows(read_jsonl(root / file, CONTENT), root / file)
        for split, file in FOLDER_FILES.items()
    }


def read_hub(root: Path) -> Splits:
    """The hub's parquet files of the `main` configuration."""
    return {
        split: _rows(read_parquet(root / file, CONTENT), root / file, "row")
        for split, file in HUB_FILES.items()
    }


def read_mini(path: Path) -> Splits:
    """Our own problems; each row names its split."""
    splits: Splits = {"train": [], "test": []}
    rows = read_jsonl(path, ("id", "split"), texts=CONTENT)
    require_unique_ids(rows, path)
    for number, row in enumerate(rows, start=1):
        if row["split"] not in list(splits):  # a list also takes what cannot be hashed
            raise corrupt(path, number, f"unknown split {row['split']!r}")
        splits[row["split"]].append({key: row[key] for key in ("id", *CONTENT)})
    return splits


def _rows(rows: list[Row], path: Path, unit: Unit = "line") -> list[Row]:
    require_texts(rows, path, *CONTENT, unit=unit)
    refuse_repeats(rows, path, *CONTENT, unit=unit)
    return with_ids("gsm8k", rows, CONTENT)


DATASET = Dataset(
    name="gsm8k",
    folder_files=tuple(FOLDER_FILES.values()),
    read_folder=read_folder,
    hub=HubFiles(
        repo="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        patterns=tuple(HUB_FILES.values()),
    ),
    read_hub=read_hub,
    counts={source: {"train": (7473,), "test": (1319,)} for source in ("folder", "hub")},
    mini_file="gsm8k/mini/problems.jsonl",
    read_mini=read_mini,
    split_files={"folder": FOLDER_FILES, "hub": HUB_FILES},
    released={
        FOLDER_FILES["train"]: "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
        FOLDER_FILES["test"]: "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    },
)
