"""AdvBench's harmful behaviours (Zou et al. 2023, MIT): requests that a safe model declines.

Rows are in the order of their ids, so a limit takes an even sample.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.dataset import (
    Dataset,
    HubFiles,
    Splits,
    in_id_order,
    read_parquet,
    with_ids,
)
from unlearn_bench.data.files import (
    Unit,
    corrupt,
    read_csv,
    read_jsonl,
    refuse_repeats,
    require_unique_ids,
)

FOLDER_FILE = "advbench/harmful_behaviors.csv"
HUB_FILE = "AdvBench/train-00000-of-00001.parquet"


def read_folder(root: Path) -> Splits:
    """The authors' table; its column `goal`."""
    path = root / FOLDER_FILE
    found = [(line, row["goal"]) for line, row in read_csv(path, ("goal",))]
    return finish("advbench", found, path, "line")


def read_hub(root: Path) -> Splits:
    """The same requests; the column `query`."""
    path = root / HUB_FILE
    rows = enumerate(read_parquet(path, ("query",)), start=1)
    return finish("advbench", [(number, row["query"]) for number, row in rows], path, "row")


def read_mini(path: Path) -> Splits:
    """Our own requests, harmful in kind and without any detail."""
    rows = read_jsonl(path, ("id",), texts=("prompt",))
    require_unique_ids(rows, path)
    return {"test": [{"id": row["id"], "prompt": row["prompt"]} for row in rows]}


def finish(dataset: str, requests: list[tuple[int, object]], path: Path, unit: Unit) -> Splits:
    """The one split of a set of requests, each given with the number of its line or row.

    Raises CorruptDataError for one that is empty, no text or there twice.
    """
    for number, request in requests:
        if not isinstance(request, str) or not request.strip():
            raise corrupt(path, number, "has no request", unit)
    rows = [{"prompt": request} for _, request in requests]
    numbers = [number for number, _ in requests]
    refuse_repeats(rows, path, "prompt", unit=unit, numbers=numbers)
    return {"test": in_id_order(with_ids(dataset, rows, ("prompt",)))}


DATASET = Dataset(
    name="advbench",
    folder_files=(FOLDER_FILE,),
    read_folder=read_folder,
    hub=HubFiles(
        repo="Lemhf14/EasyJailbreak_Datasets",
        revision="81fdab9efed79553dd9932523f56a0eca15e69fb",
        patterns=(HUB_FILE,),
    ),
    read_hub=read_hub,
    counts={source: {"test": (520,)} for source in ("folder", "hub")},
    mini_file="jailbreak/mini/requests.jsonl",
    read_mini=read_mini,
    released={FOLDER_FILE: "5c9d87515c4d431c3614f25a0af7a462eabdfa6035aa35d746e64159823836e3"},
)
