"""The board as CSV and JSON: for programs, byte-identical for identical input.

docs/schema.md documents both. Numbers are Python's shortest exact decimal forms. A missing value is
an empty CSV cell and null in JSON, never 0; ±inf (diverged) is the word `inf` or `-inf`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from unlearn_bench.board.table import COSTS, TUNING, Board, Column, Row, public_text
from unlearn_bench.board.visible import visible
from unlearn_bench.compare.overall import FORMULA, NOT_TUNED_ON
from unlearn_bench.compare.trace import MEASURES, Kind, TraceError

FORMAT = 1
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
PARTS = ("", ".stderr", ".low", ".high", ".n", ".missing", ".delta", ".direction")
CALIBRATED_PARTS = (".calibrated", ".calibrated.low", ".calibrated.high", ".calibrated.form")
TRACE_PARTS = ("", ".stderr", ".low", ".high")
OVERALL = ("value", "low", "high", "gain", "keep")  # `overall` alone is the value
IDENTITY = ("method", "seed", "role", "status", "reason")
ProvenanceName = Literal[
    "options",
    "suite",
    "edit_set",
    "limits",
    "samples_per_prompt",
    "seeds",
    "cell_key",
    "weights_fingerprint",
    "base_fingerprint",
    "target_fingerprint",
    "tokenizer_sha256",
    "template_sha256",
    "data_sha256",
    "data_sources",
    "engine",
    "dtype",
    "scorer",
    "scorer_version",
    "scorer_sha256",
    "versions",
]
PROVENANCE: tuple[ProvenanceName, ...] = get_args(ProvenanceName)


def render_csv(board: Board) -> str:
    """One header line, then one line per row; newline line ends, RFC 4180 quoting."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = (*PARTS, *CALIBRATED_PARTS)
    measured = [column.name + part for column in board.columns for part in parts]
    overall = [f"overall.{name}".removesuffix(".value") for name in OVERALL]
    traced = [f"trace.{kind}{part}" for kind in MEASURES for part in TRACE_PARTS]
    heads = (*IDENTITY, *overall, *measured, *traced, *COSTS, *TUNING, *PROVENANCE)
    writer.writerow([safe_text(name) for name in heads])
    for row in board.rows:
        writer.writerow(
            [
                *(safe_text(getattr(row, name)) for name in IDENTITY),
                *(number(getattr(row.overall, name, None)) for name in OVERALL),
                *(
                    cell
                    for column in board.columns
                    for cell in (*score_cells(row, column), *calibrated_cells(row, column))
                ),
                *(cell for kind in MEASURES for cell in trace_cells(row, kind)),
                *(number(row.costs.get(name)) for name in COSTS),
                *(number(row.tuning.get(name)) for name in TUNING),
                *(safe_text(row.provenance.get(name, "")) for name in PROVENANCE),
            ]
        )
    return stream.getvalue()


def score_cells(row: Row, column: Column) -> list[str]:
    """One cell for each of PARTS; all but the direction are empty where the row has no score."""
    score = row.scores.get(column.name)
    if score is None:
        return [*[""] * (len(PARTS) - 1), column.direction]
    figures = (score.value, score.stderr, score.low, score.high, score.n, score.missing)
    return [*map(number, (*figures, row.deltas.get(column.name))), column.direction]


def calibrated_cells(row: Row, column: Column) -> list[str]:
    """One cell for each of CALIBRATED_PARTS; without a score of this form all are empty."""
    found = row.calibrated.get(column.name)
    if found is None:
        return [""] * len(CALIBRATED_PARTS)
    return [*map(number, (found.value, found.low, found.high)), found.form]


def trace_cells(row: Row, kind: Kind) -> list[str]:
    """One cell for each of TRACE_PARTS."""
    error = row.trace_errors.get(kind, TraceError())
    return [*map(number, (row.trace.get(kind), error.stderr, error.low, error.high))]


def number(value: float | int | None) -> str:
    """Shortest exact decimal form; '' for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value)


def safe_text(text: str) -> str:
    """One line that no spreadsheet runs as a formula (OWASP: CSV injection)."""
    line = public_text(text)
    return f"'{line}" if line.startswith(FORMULA_STARTS) else line


def render_json(board: Board) -> str:
    """The whole board with what all rows have in common in `protocol`."""
    content = {
        "format": FORMAT,
        "model": board.model,
        "suite": board.suite,
        "protocol": board.protocol,
        "columns": [{"name": column.name, **vars(column)} for column in board.columns],
        "overall": {
            "formula": FORMULA,
            "note": NOT_TUNED_ON,
            "columns": board.overall,
            "left_out": board.left_out,
        },
        "trace": board.trace,
        "rows": [row_json(row) | summary_json(row) for row in board.rows],
    }
    return json.dumps(_inert(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _inert(part: Any) -> Any:
    """With every text, names among them, as `visible` shows it."""
    if isinstance(part, str):
        return visible(part)
    if isinstance(part, Mapping):
        return {visible(name): _inert(value) for name, value in part.items()}
    return [_inert(value) for value in part] if isinstance(part, list | tuple) else part


def row_json(row: Row) -> dict[str, Any]:
    """One row, its missing values null."""
    return {
        **{name: public_text(getattr(row, name)) for name in IDENTITY},
        "scores": {
            name: {
                "value": _plain(score.value),
                "stderr": _plain(score.stderr),
                "low": _plain(score.low),
                "high": _plain(score.high),
                "n": score.n,
                "missing": score.missing,
                "delta": _plain(row.deltas.get(name)),
            }
            for name, score in row.scores.items()
        },
        "costs": {name: _plain(row.costs.get(name)) for name in COSTS},
        "tuning": {name: _plain(row.tuning.get(name)) for name in TUNING},
        "provenance": {name: public_text(text) for name, text in row.provenance.items()},
    }


def summary_json(row: Row) -> dict[str, Any]:
    """What a board says of a row beyond its scores; missing values are null, with reasons."""
    overall = row.overall
    return {
        "overall": overall
        and {
            **{name: _plain(getattr(overall, name)) for name in OVERALL},
            "gains": {goal: _plain(gain) for goal, gain in overall.gains.items()},
            "reason": overall.reason,
        },
        "calibrated": {
            name: {
                "form": score.form,
                "value": _plain(score.value),
                "low": _plain(score.low),
                "high": _plain(score.high),
                "reason": score.reason,
            }
            for name, score in row.calibrated.items()
        },
        "trace": {kind: _plain(row.trace.get(kind)) for kind in MEASURES},
        "trace_errors": {
            kind: {part: _plain(getattr(error, part)) for part in ("stderr", "low", "high")}
            for kind, error in row.trace_errors.items()
        },
    }


def _plain(value: float | int | None) -> float | int | str | None:
    if value is None or math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value
