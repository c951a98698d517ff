"""A gate's baseline as one file to commit: every item's value, and what they were asked under.

The file names no folder of the machine. Its own hash shows damage, not who wrote it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.compare.measures import Measure
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError
from unlearn_bench.runs.sides import MeasuredCell, Side, read_side
from unlearn_bench.runs.store import canonical_json, digest, write_file
from unlearn_bench.runs.tree import Tree
from unlearn_bench.schema import ItemScore

FORMAT = 1
COLUMNS = tuple(field.name for field in dataclasses.fields(ItemScore))
NUMBERS = ("value", "weight")
COMPARED = ("method",)  # determinants that say what is compared, and may hold folders: left out


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What candidates are held against. tree: of the source that wrote the file, None where the
    baseline is a run.
    """

    side: Side
    tree: Tree | None = None


def open_baseline(text: str) -> Baseline:
    """A baseline file, a run or a cell. Raises UnlearnBenchError unless every seed has scores."""
    path = Path(text).expanduser()
    baseline = read_baseline(path) if path.is_file() else Baseline(read_side(text))
    if baseline.side.unscored:
        raise UnlearnBenchError(
            f"the baseline has no scores to compare with: {baseline.side.unscored}",
            next_step="evaluate the baseline again",
        )
    return baseline


def write_baseline(path: Path, side: Side, tree: Tree) -> None:
    """Write the file whole or not at all. The same cells give the same bytes."""
    body = {
        "format": FORMAT,
        "label": f"{side.cells[0].method} of {side.cells[0].suite}",
        "tree": tree,
        "cells": [_cell_json(cell) for cell in side.cells],
    }
    write_file(path, canonical_json({**body, "self_sha256": digest(body)}) + b"\n")


def read_baseline(path: Path) -> Baseline:
    """What `write_baseline` wrote. Raises CorruptDataError."""
    try:
        body = json.loads(path.read_bytes())
        claimed = body.pop("self_sha256")
        if claimed != digest(body):
            raise ValueError("its own hash does not match")
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']!r}, this version reads {FORMAT}")
        cells = tuple(_read_cell(cell) for cell in body["cells"])
        if not cells:
            raise ValueError("it holds no cell")
        return Baseline(Side(str(body["label"]), cells), Tree(**body["tree"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptDataError(
            f"the baseline cannot be read: {error}",
            where=str(path),
            next_step="write it again with unlearn-bench gate init",
        ) from error


def _cell_json(cell: MeasuredCell) -> dict[str, Any]:
    content = {
        field.name: getattr(cell, field.name)
        for field in dataclasses.fields(cell)
        if field.name not in ("facts", "items", "measures")
    }
    return {
        **content,
        "facts": {name: value for name, value in cell.facts.items() if name not in COMPARED},
        "measures": [dataclasses.asdict(measure) for measure in cell.measures],
        "items": {name: [getattr(row, name) for row in cell.items] for name in COLUMNS},
    }


def _read_cell(content: Mapping[str, Any]) -> MeasuredCell:
    measures = tuple(Measure(**measure) for measure in content["measures"])
    items = tuple(_read_items(content["items"]))
    tree = Tree(**content["tree"]) if content.get("tree") else None
    return MeasuredCell(**{**content, "measures": measures, "items": items, "tree": tree})


def _read_items(columns: Mapping[str, Sequence[Any]]) -> list[ItemScore]:
    """NaN and infinity come back from the words for them."""
    values = {
        name: [float(value) if name in NUMBERS else str(value) for value in columns[name]]
        for name in COLUMNS
    }
    return [
        ItemScore(**dict(zip(COLUMNS, row, strict=True)))
        for row in zip(*(values[name] for name in COLUMNS), strict=True)
    ]
