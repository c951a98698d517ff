"""The board as Markdown: the headline columns, then what they were measured under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn_bench.board.summary import overall_notes, trace_kinds, trace_notes
from unlearn_bench.board.table import (
    ARROWS,
    MEAN,
    Board,
    Row,
    best_methods,
    best_overall,
    figure,
    overall_figure,
    public_text,
    signed,
    tuning_figures,
)
from unlearn_bench.board.visible import visible
from unlearn_bench.compare.trace import TraceError

ASKED = "asked"  # hashes, for programs: they stand in the JSON
DIGITS = 8  # of a cell's key
TUNING_HEADS = ("tuning: best", "median", "trials")
LABELS = {"target": " (target)", "exact": " (exact)", "control": " (control)", "method": ""}


def render_markdown(board: Board) -> str:
    """A heading, one table (best contender in bold), unfinished cells, and the protocol."""
    columns, rows = board.shown_columns(), board.shown_rows()
    best = {column.name: best_methods(board, column) for column in columns}
    winners = best_overall(board)
    tuned, kinds = any(row.tuning for row in rows), trace_kinds(board)
    names = [f"{column.name} {ARROWS[column.direction]}".strip() for column in columns]
    names += [f"trace.{kind} ↑" for kind in kinds]
    heads = ["method", *(["overall ↑"] if board.ranked else ()), *names, "edit s", "evaluate s"]
    heads += [*(TUNING_HEADS if tuned else ()), "cells"]
    lines = [
        f"# {escape(board.model)}, suite {escape(board.suite)}",
        "",
        "± is the standard error. Bold: the best contender of a column; the target, exact and "
        "control rows are for comparison."
        + (" Rows stand by overall, with its 95 % interval." if board.ranked else "")
        + (" Tuning: objectives on validation items, see docs/design/tuning.md." if tuned else "")
        + " All samples behind a row: `unlearn-bench show RUN CELL`, with the run's folder and one "
        "of the row's cells.",
        "",
        table_line(heads),
        table_line(["---", *["---:"] * (len(heads) - 1)]),
    ]
    for row in rows:
        cells = [escape(row.method) + LABELS[row.role] + ("" if row.scores else f" {row.status}")]
        if board.ranked:
            cells.append(_bold(overall_figure(row), row.method in winners))
        for column in columns:
            text = figure(row.scores.get(column.name))
            cells.append(_bold(text, row.method in best[column.name]))
        errors = (row.trace_errors.get(kind, TraceError()).stderr for kind in kinds)
        cells += [signed(row.trace.get(kind), e) for kind, e in zip(kinds, errors, strict=True)]
        cells += [_seconds(row, "edit_seconds"), _seconds(row, "evaluate_seconds")]
        cells += [*(tuning_figures(row) if tuned else ()), _keys(board, row)]
        lines.append(table_line(cells))
    lines += _notes(board)
    lines += _unfinished(rows)
    lines += ["", "## Measured under", "", *list_facts(board.protocol)]
    return "\n".join(lines) + "\n"


def _keys(board: Board, row: Row) -> str:
    """The first digits of the row's own key, or of those of its seeds that have samples."""
    own = [one for one in board.rows if one.method == row.method] if row.seed == MEAN else [row]
    keys = [one.provenance.get("cell_key", "")[:DIGITS] for one in own if one.scores]
    return " ".join(f"`{key}`" for key in keys if key.isalnum()) or "–"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _notes(board: Board) -> list[str]:
    """What stands beside the overall score and TRACE's deltas."""
    notes = [*(overall_notes(board) if board.ranked else ()), *trace_notes(board)]
    notes += [
        f"{row.method}: {public_text(row.reason)}"
        for row in board.shown_rows()
        if row.status == "success" and row.reason
    ]
    return ["", *(f"- {escape(note)}" for note in notes)] if notes else []


def _unfinished(rows: list[Row]) -> list[str]:
    troubled = [row for row in rows if row.status != "success"]
    notes = [
        f"- {escape(row.method)}: {row.status}. {escape(public_text(row.reason))}".rstrip()
        for row in troubled
    ]
    return ["", "Not successful:", "", *notes] if notes else []


def list_facts(facts: Mapping[str, Any]) -> list[str]:
    """One bullet per fact that is for people."""
    lines = []
    for name, value in facts.items():
        if name == ASKED:
            continue
        if isinstance(value, Mapping):
            value = "; ".join(f"{key} {_inline(item)}" for key, item in value.items())
        lines.append(f"- {name.replace('_', ' ')}: {escape(public_text(_inline(value)))}")
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "all" if value is None else str(value)


def _seconds(row: Row, name: str) -> str:
    value = row.costs.get(name)
    return "–" if value is None else f"{value:.1f}"


def table_line(cells: list[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """The text with every mark that Markdown would read as its own, and what steers, shown."""
    text = visible(text)
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text
