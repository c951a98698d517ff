"""What a board has to know of a plan, told by stored cells alone: the plan itself is not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.registry import Card
from unlearn_bench.runs.finished import StoredCell
from unlearn_bench.runs.plan import Cell, engine_text, role_of
from unlearn_bench.runs.tuned import Winner
from unlearn_bench.schema import Origin


@dataclass(frozen=True)
class Named:
    """How model and edit set are called, which moves no number and is in no key.

    slug: the folder of the model's boards. label: for people. edit_set: with source and revision.
    """

    slug: str
    label: str
    edit_set: str


def named_by(cell: StoredCell) -> Named | None:
    """As the cell itself says; None of one from before cells did."""
    told = cell.named
    if not all(isinstance(told.get(own.name), str) for own in fields(Named)):
        return None
    return Named(told["slug"], told["label"], told["edit_set"])


@dataclass(frozen=True)
class StoredPlan:
    """As far as a board reads it, `runs.plan.Plan` of cells that were asked the same.

    model: its folder is not known. origins: of the tasks whose data a cell with answers names.
    """

    model: OpenedModel
    own_target: bool
    suite_name: str
    edit_set: str
    protocols: Mapping[str, Protocol]
    origins: Mapping[str, Origin]
    cards: Mapping[str, Card]
    cells: tuple[Cell, ...]
    engine_text: str
    dtype: str
    scorer: Mapping[str, str]
    second_scorer: Mapping[str, str]
    tuned: Mapping[str, Winner] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def plan_of(
    cells: Sequence[StoredCell],
    protocols: Mapping[str, Protocol],
    cards: Mapping[str, Card],
    names: Mapping[str, str],
    model: Named,
) -> StoredPlan:
    """The plan that these cells tell of.

    names: of each cell's row, by its key. cards: by these names.
    """
    facts = cells[0].determinants
    target = facts["target"]
    return StoredPlan(
        model=OpenedModel(Path(), model.slug, model.label, str(target["fingerprint"]), ""),
        own_target=bool(target.get("own")),
        suite_name=cells[0].suite,
        edit_set=model.edit_set,
        protocols=protocols,
        origins=_origins(cells),
        cards=cards,
        cells=tuple(_cell(cell, names[cell.record.key], cards) for cell in cells),
        engine_text=engine_text(str(facts["engine"]["name"]), facts["engine"].get("args", {})),
        dtype=str(facts["engine"]["dtype"]),
        scorer=facts["scorer"],
        second_scorer=facts.get("second_scorer", {}),
    )


def _cell(cell: StoredCell, name: str, cards: Mapping[str, Card]) -> Cell:
    options = cell.determinants["method"]["options"]
    return Cell(name, cell.seed, role_of(cards[name]), options, dict(cell.determinants))


def _origins(cells: Sequence[StoredCell]) -> dict[str, Origin]:
    """Where each task's data came from, as the first cell says that names data of its hash."""
    tasks = cells[0].determinants["suite"]["tasks"]
    told = [Origin(**one) for cell in cells for one in cell.read("provenance.json").get("data", ())]
    by_hash: dict[str, Origin] = {}
    for origin in told:
        by_hash.setdefault(origin.sha256, origin)
    return {
        task: by_hash[facts["data_sha256"]]
        for task, facts in tasks.items()
        if facts["data_sha256"] in by_hash
    }
