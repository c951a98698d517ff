"""What a board says of its rows beyond what each cell holds: the overall score, values calibrated
against the target and the exact model, how the options were tuned.

The first two are worked out from the cells, which a run has wherever it lies. The runs' own boards
say the rest. A board's JSON is joined to cells by their keys. It is made by another command,
perhaps by another version, so what it lacks is missing, and a file that is no board is passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_bench.board.files import summary_json
from unlearn_bench.board.table import MEAN, Board, Column
from unlearn_bench.compare.overall import FORMULA
from unlearn_bench.runs.settings import board_files
from unlearn_bench.schema import Score

OVERALL = "overall"
PARTS = ("gain", "keep")  # that the overall score is made of
TRACE = "trace"


@dataclass(frozen=True)
class Calibrated:
    """A value on a scale that target and exact model span. form: which scale; low, high: 95 %."""

    form: str
    value: float
    low: float
    high: float


@dataclass
class Told:
    """What a board says of one row. scores: by column name; tuning: of its trials."""

    scores: dict[str, Score] = field(default_factory=dict)
    calibrated: dict[str, Calibrated] = field(default_factory=dict)
    tuning: dict[str, float] = field(default_factory=dict)


@dataclass
class OwnBoards:
    """rows: by cell key; means: of several seeds, by method. formula: of the overall score."""

    rows: dict[str, Told] = field(default_factory=dict)
    means: dict[str, Told] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    formula: str = ""


def read_boards(runs: Sequence[Path], keys: set[str]) -> OwnBoards:
    """The boards that these runs wrote, as far as they are about the cells with these keys."""
    own = OwnBoards()
    for file in dict.fromkeys(file for run in runs for file in board_files(run)):
        try:
            content = json.loads(file.read_bytes())
            _read_board(content, keys, own)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return own


def add_worked_out(own: OwnBoards, board: Board) -> None:
    """Put what was worked out from the cells in the place of what a file says; tuning stays."""
    columns = {column.name: column for column in board.columns}
    for row in board.rows:
        mean = row.seed == MEAN
        rows, name = (own.means, row.method) if mean else (own.rows, row.provenance["cell_key"])
        found = summary_json(row)
        made = [*(_overall(found) if board.ranked else ()), *_trace({TRACE: row.trace})]
        scores = {f"{score.task}.{score.metric}": score for score in made}
        before = rows.get(name, Told())
        rows[name] = Told(
            scores={**before.scores, **scores},
            calibrated=dict(_calibrated(found, columns)),
            tuning=before.tuning,
        )
        own.columns |= {name: _column_of(score, columns) for name, score in scores.items()}
    own.formula = FORMULA if board.ranked else own.formula


def _read_board(content: Mapping[str, Any], keys: set[str], own: OwnBoards) -> None:
    columns = {str(column["name"]): _column(column) for column in content["columns"]}
    ours, strange = set[str](), set[str]()
    for row in content["rows"]:
        method, key = str(row["method"]), str(row.get("provenance", {}).get("cell_key", ""))
        mean = row.get("seed") == MEAN  # its seeds stand before it: all of them ours, or it is not
        if mean and (method not in ours or method in strange):
            continue
        if not mean and key not in keys:
            strange.add(method)
            continue
        ours.add(method)
        told = Told(
            scores={
                score.task + "." + score.metric: score
                for score in (*_scores(row, columns), *_overall(row), *_trace(row))
            },
            calibrated=dict(_calibrated(row, columns)),
            tuning={n: float(v) for n, v in (row.get("tuning") or {}).items() if v is not None},
        )
        if mean:
            own.means[method] = told
        else:
            own.rows[key] = told
        own.columns |= {name: _column_of(score, columns) for name, score in told.scores.items()}
    summary = content.get(OVERALL)
    if ours and isinstance(summary, dict):
        own.formula = str(summary.get("formula", ""))


def _column(found: Mapping[str, Any]) -> Column:
    return Column(
        task=str(found.get("task", "")),
        metric=str(found.get("metric", found["name"])),
        direction=found.get("direction", "none"),
        unit=str(found.get("unit", "")),
        headline=bool(found.get("headline", True)),
    )


def _column_of(score: Score, columns: Mapping[str, Column]) -> Column:
    """The board's own column of a score, or that of a summary: the overall score is a headline."""
    known = {column.name: column for column in columns.values()}
    headline = score.task == OVERALL
    made = Column(score.task, score.metric, score.direction, score.unit, headline)
    return known.get(made.name, made)


def _scores(row: Mapping[str, Any], columns: Mapping[str, Column]) -> Iterator[Score]:
    for name, found in row["scores"].items():
        if name in columns:
            yield _score(columns[name], found)


def _overall(row: Mapping[str, Any]) -> Iterator[Score]:
    found = row.get(OVERALL)
    if isinstance(found, dict):
        yield _score(Column(OVERALL, OVERALL, "higher", "0 to 1", True), found)
        for part in PARTS:
            column = Column(OVERALL, part, "higher", "0 to 1", True)
            yield _score(column, {"value": found.get(part)})


def _trace(row: Mapping[str, Any]) -> Iterator[Score]:
    errors = row.get(f"{TRACE}_errors") or {}
    for kind, value in (row.get(TRACE) or {}).items():
        column = Column(TRACE, kind, "higher", "mean change", False)
        yield _score(column, {**errors.get(kind, {}), "value": value})


def _calibrated(
    row: Mapping[str, Any], columns: Mapping[str, Column]
) -> Iterator[tuple[str, Calibrated]]:
    for name, found in (row.get("calibrated") or {}).items():
        value = _number(found.get("value"))
        if name in columns and not math.isnan(value):
            ends = (_number(found.get(end)) for end in ("low", "high"))
            yield columns[name].name, Calibrated(str(found.get("form", "")), value, *ends)


def _score(column: Column, found: Mapping[str, Any]) -> Score:
    value, stderr, low, high = (
        _number(found.get(name)) for name in ("value", "stderr", "low", "high")
    )
    return Score(
        task=column.task,
        metric=column.metric,
        value=value,
        stderr=stderr,
        n=int(found.get("n") or 0),
        missing=int(found.get("missing") or 0),
        direction=column.direction,
        unit=column.unit,
        low=low,
        high=high,
    )


def _number(value: Any) -> float:
    """What the JSON says: null is missing, a word is infinite."""
    return math.nan if value is None else float(value)
