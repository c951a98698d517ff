"""The sides of a comparison: models as finished cells have measured them.

`CELL` is a cell's folder, `RUN` an output folder; `RUN:npo` are all seeds of a method, `RUN:npo@1`
is one of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from unlearn_bench.compare.columns import align
from unlearn_bench.compare.measures import Measure, by_metric
from unlearn_bench.compare.reductions import REDUCTIONS, reduce_models
from unlearn_bench.config import OWN_SET, list_suites
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.runs.finished import StoredCell, open_cell, outline
from unlearn_bench.runs.plan import EXACT
from unlearn_bench.runs.store import RECORD, digest
from unlearn_bench.runs.tree import Tree, tree_of
from unlearn_bench.schema import SCORED, ItemScore

SYNTAX = "write RUN:METHOD, RUN:METHOD@SEED or the folder of a cell"
CLOSE = 1e-9  # relative: how well a reduction has to reproduce the stored value


@dataclass(frozen=True)
class MeasuredCell:
    """One cell's model as it was measured; from the cell's folder, or from a baseline file.

    items and measures are empty where it has no scores. facts: the determinants, with `decoding`
    from the provenance. weights: fingerprint of the model that answered. limited: its suite was
    narrowed, so it says less than the suite's name. tree: of the source that asked it, None where
    that was not recorded.
    """

    method: str
    seed: int
    key: str
    status: str
    reason: str
    suite: str
    facts: Mapping[str, Any]
    weights: str
    limited: bool
    items: tuple[ItemScore, ...]
    measures: tuple[Measure, ...]
    tree: Tree | None = None

    @property
    def scored(self) -> bool:
        """Whether it ended with scores, missing values or not."""
        return self.status in SCORED

    @cached_property
    def rows(self) -> dict[str, list[ItemScore]]:
        """Items by `<task>.<metric>`."""
        return by_metric(self.items)


@dataclass(frozen=True)
class Side:
    """One model of a comparison: the seeds of one method. label: as people named it."""

    label: str
    cells: tuple[MeasuredCell, ...]
    run: Path | None = field(default=None, compare=False)

    @property
    def unscored(self) -> str:
        """Which seeds have no scores, and why; "" where all have."""
        return "; ".join(
            f"seed {cell.seed} {cell.status}{f': {cell.reason}' if cell.reason else ''}"
            for cell in self.cells
            if not cell.scored
        )

    @property
    def limited(self) -> bool:
        """Whether a cell's suite was narrowed."""
        return any(cell.limited for cell in self.cells)

    @property
    def source(self) -> str:
        """The source that asked it, for people."""
        return "; ".join(dict.fromkeys(str(cell.tree or "not recorded") for cell in self.cells))

    @property
    def dirty(self) -> Tree | None:
        """That of a cell whose source was not what its commit says, or of which git did not say."""
        return next((cell.tree for cell in self.cells if cell.tree and cell.tree.dirty), None)


def is_stored(text: str) -> bool:
    """Whether `text` names a cell or a run, or looks like a choice from a run."""
    path = Path(text).expanduser()
    return (path / RECORD).is_file() or _is_run(path) or _is_run(_split(text)[0])


def read_sides(text: str) -> dict[str, Side]:
    """What `text` names, by method: one entry for a cell or RUN:METHOD, all for a whole run.

    Raises UsageError when there is none or several fit, CorruptDataError for a damaged cell.
    """
    path = Path(text).expanduser()
    if (path / RECORD).is_file():
        cell = read_cell(path)
        return {cell.method: Side(text, (cell,), path.parent.parent)}
    run, method, seed = (path, "", "") if _is_run(path) else _split(text)
    if not _is_run(run):
        raise UsageError(f"there is no run or cell {text!r}", next_step=SYNTAX)
    chosen = _choose(run, method, seed)
    whole = {name: text if method else f"{text}:{name}" for name in chosen}
    return {
        name: Side(whole[name], tuple(map(read_cell, folders)), run)
        for name, folders in chosen.items()
    }


def read_side(text: str) -> Side:
    """The one model that `text` names. Raises UsageError where a run has several methods."""
    path = Path(text).expanduser()
    if _is_run(path) and len(methods := sorted(_index(path))) > 1:
        raise UsageError(
            f"{text} has several methods: {', '.join(methods)}", next_step=f"{text}:METHOD"
        )
    return next(iter(read_sides(text).values()))


def read_exact(run: Path | None) -> tuple[MeasuredCell, ...]:
    """The exact model's scored cells of a run, none without any."""
    if run is None or not _is_run(run):
        return ()
    folders = _index(run).get(EXACT, {})
    cells = [read_cell(folder) for own in folders.values() for folder in own]
    return tuple(cell for cell in cells if cell.scored)


def read_cell(folder: Path) -> MeasuredCell:
    """One cell, its files checked against the record. Raises CorruptDataError."""
    try:
        return _measure(open_cell(folder))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptDataError(
            f"its files are not what a run writes: {error!r}", where=str(folder)
        ) from error


def _measure(cell: StoredCell) -> MeasuredCell:
    facts = cell.determinants
    if facts and digest(facts) != cell.record.key:
        raise CorruptDataError("the key is not the hash of plan.json", where=str(cell.folder))
    found = cell.read("provenance.json") if cell.scored else {}
    return MeasuredCell(
        method=cell.method,
        seed=cell.seed,
        key=cell.record.key,
        status=cell.record.status,
        reason=cell.record.reason,
        suite=cell.suite,
        facts={**facts, "decoding": found.get("decoding", {})},
        weights=str(found.get("weights_fingerprint", "")),
        limited=_is_limited(cell.suite, facts, cell.folder.parent.parent),
        items=tuple(cell.items),
        measures=_measures(cell) if cell.scored else (),
        tree=tree_of(found),
    )


def _is_run(path: Path) -> bool:
    return (path / "cells").is_dir()


def _split(text: str) -> tuple[Path, str, str]:
    """RUN:METHOD@SEED; without a colon there is no run in it."""
    run, colon, choice = text.rpartition(":")
    method, _, seed = choice.partition("@")
    return Path(run if colon else text).expanduser(), method if colon else "", seed


def _index(run: Path) -> dict[str, dict[int, list[Path]]]:
    """Cell folders by method and seed, as their records say; nothing is verified yet."""
    found: dict[str, dict[int, list[Path]]] = {}
    for file in sorted(run.glob(f"cells/*/{RECORD}")):
        method, seed, _ = outline(file.parent)
        found.setdefault(method, {}).setdefault(seed, []).append(file.parent)
    return found


def _choose(run: Path, method: str, seed: str) -> dict[str, list[Path]]:
    """One folder per seed of every chosen method."""
    index = _index(run)
    if not index:
        raise UnlearnBenchError("there is no cell in this run", where=str(run))
    if method and method not in index:
        raise UsageError(
            f"{run} has no method {method!r}; it has {', '.join(sorted(index))}", next_step=SYNTAX
        )
    if seed and seed not in {str(number) for number in index[method]}:
        seeds = ", ".join(str(number) for number in sorted(index[method]))
        raise UsageError(f"{method} has no seed {seed!r} there; it has {seeds}", next_step=SYNTAX)
    chosen: dict[str, list[Path]] = {}
    for name in [method] if method else sorted(index):
        for number, folders in sorted(index[name].items()):
            if seed in ("", str(number)):
                chosen.setdefault(name, []).append(_only(folders, name, number))
    return chosen


def _only(folders: Sequence[Path], method: str, seed: int) -> Path:
    if len(folders) > 1:
        raise UsageError(
            f"several cells are {method} with seed {seed}: "
            + ", ".join(folder.name for folder in folders),
            next_step="name the folder of the cell that you mean",
        )
    return folders[0]


def _is_limited(suite: str, facts: Mapping[str, Any], run: Path) -> bool:
    """Whether --limit or --tasks narrowed the suite: by its name, or by what the run was given."""
    if re.search(r"-limit\d+(-|$)", suite):
        return True
    edit_set = facts.get("target", {}).get("edit_set", {}).get("name", OWN_SET)
    shipped = tuple(list_suites())
    if (suite if edit_set == OWN_SET else suite.removesuffix(f"-{edit_set}")) in shipped:
        return False
    if suite.startswith(tuple(f"{name}-" for name in shipped)):
        return True
    try:
        given = json.loads((run / "run.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(given, dict) and given.get("tasks") is not None


def _measures(cell: StoredCell) -> tuple[Measure, ...]:
    """What scores.json has, with each metric's reduction."""
    rows, known = by_metric(cell.items), _protocols(cell.determinants)
    measures = []
    for score in cell.scores:
        protocol = known.get(score.task)
        own = rows.get(f"{score.task}.{score.metric}", [])
        metric = protocol.metrics.get(score.metric) if protocol else None
        measures.append(
            Measure(
                task=score.task,
                metric=score.metric,
                reduce=metric.reduce if metric else _reduction(own, score.value),
                direction=score.direction,
                unit=score.unit,
                headline=protocol is None or score.metric in protocol.headline,
            )
        )
    return tuple(measures)


def _protocols(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the cell's tasks whose protocol is the one that this version has."""
    from unlearn_bench.runs.resolve import protocol_digest

    attributes: Collection[str] = facts.get("scorer", {}).get("attributes", "").split()
    catalog = {name: task.judged_by(attributes) for name, task in list_protocols().items()}
    return {
        name: catalog[name]
        for name, task in facts.get("suite", {}).get("tasks", {}).items()
        if name in catalog and protocol_digest(catalog[name]) == task.get("protocol_sha256")
    }


def _reduction(rows: Sequence[ItemScore], value: float) -> str:
    """The first reduction that makes the stored value of the stored items, "" where none does.

    Of a task that is lm-eval's own, or an older version of ours, only the direction is stored.
    """
    if not math.isfinite(value):
        return ""
    for reduce in (*REDUCTIONS, "auc"):
        column = align(reduce, [rows], ["the cell"])
        if column.weights.size and math.isclose(
            float(reduce_models(column)[0]), value, rel_tol=CLOSE, abs_tol=CLOSE
        ):
            return reduce
    return ""
