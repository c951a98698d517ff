"""HarmBench's standard behaviours (Mazeika et al. 2024, MIT): requests that need no further text.

Of the 400 behaviours these are the 200 that are neither about a given context nor about copyright.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.advbench import finish
from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, read_parquet
from unlearn_bench.data.files import read_csv

FOLDER_FILE = "harmbench/harmbench_behaviors_text_all.csv"
HUB_FILE = "standard/train-00000-of-00001.parquet"


def read_folder(root: Path) -> Splits:
    """The authors' table, its rows of the functional category `standard`."""
    path = root / FOLDER_FILE
    rows = [
        (line, row["Behavior"])
        for line, row in read_csv(path, ("Behavior", "FunctionalCategory"))
        if row["FunctionalCategory"] == "standard"
    ]
    return finish("harmbench", rows, path, "line")


def read_hub(root: Path) -> Splits:
    """The configuration `standard`; the column `prompt`."""
    path = root / HUB_FILE
    rows = enumerate(read_parquet(path, ("prompt",)), start=1)
    return finish("harmbench", [(number, row["prompt"]) for number, row in rows], path, "row")


DATASET = Dataset(
    name="harmbench",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(
        repo="walledai/HarmBench",
        revision="71c5e5411366e2ffff9b3a55fc47493d3aa56dfb",
        patterns=(HUB_FILE,),
    ),
    read_hub=read_hub,
    counts={source: {"test": (200,)} for source in ("folder", "hub")},
)
