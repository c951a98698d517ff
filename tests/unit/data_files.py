"""Writers of small data files in each source's form, and the folder of real data if it is here."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from unlearn_bench.data.dataset import HubFiles

REAL_DATA = Path(
    os.environ.get("UNLEARN_BENCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
)
needs_real_data = pytest.mark.skipif(
    not (REAL_DATA / "README.md").is_file(), reason="the folder of real data sets is not here"
)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One JSON object per line; gzipped when the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def snapshot_folder(cache: Path, hub: HubFiles) -> Path:
    """Where the hub's client, with this cache, looks for the pinned commit's files."""
    return cache / f"datasets--{hub.repo.replace('/', '--')}" / "snapshots" / hub.revision


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A parquet file whose columns are the rows' keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path
