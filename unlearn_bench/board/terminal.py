"""The board on a terminal: headline columns, packed into as many tables as the width needs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unlearn_bench.board.summary import overall_notes
from unlearn_bench.board.table import (
    ARROWS,
    Board,
    Column,
    Row,
    best_methods,
    best_overall,
    figure,
    overall_figure,
    public_text,
    tuning_figures,
)

STYLES = {"target": "cyan", "exact": "magenta", "method": "", "control": "dim"}
HEAD_WIDTH = 14  # as wide as a figure with its standard error
PADDING = 3  # one space on either side and a rule


def render_terminal(board: Board, width: int) -> Group:
    """Tables no wider than `width` where columns allow it. `*` marks the best contender."""
    rows = board.shown_rows()
    names = [_name(row) for row in rows]
    left = width - max((len(name) for name in names), default=6) - PADDING
    blocks = pack_columns(board.shown_columns(), rows, left)
    tables = [_table(board, rows, names, block) for block in blocks]
    if board.ranked:
        tables.insert(0, _overall_table(board, rows))
    if tuned := [row for row in rows if row.tuning]:
        tables.append(_tuning_table(tuned))
    notes = [Text("* best contender; ± standard error; – missing", style="dim")]
    if board.ranked:
        notes += [Text(note, style="dim") for note in overall_notes(board)]
    notes += [
        Text(
            f"{_name(row)}: {row.status}. {public_text(row.reason)}",
            style="dim" if row.status == "success" else "red",
        )
        for row in rows
        if row.status != "success" or row.reason
    ]
    return Group(Text(f"{board.model}, suite {board.suite}", style="bold"), *tables, *notes)


def _name(row: Row) -> str:
    return row.method if row.role in ("method", "control") else f"{row.method} ({row.role})"


def head_lines(column: Column) -> list[str]:
    """The task, then the metric's name broken after underscores, then the better direction."""
    lines = [""]
    for part in re.split(r"(?<=_)", column.metric):
        if lines[-1] and len(lines[-1]) + len(part) > HEAD_WIDTH:
            lines.append("")
        lines[-1] += part
    return [column.task, *lines[:-1], f"{lines[-1]} {ARROWS[column.direction]}".rstrip()]


def pack_columns(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[list[Column]]:
    """Columns in order, a new block wherever the next one would not fit."""
    blocks: list[list[Column]] = [[]]
    left = width
    for column in columns:
        texts = [*head_lines(column), *(figure(row.scores.get(column.name)) + "*" for row in rows)]
        need = max(map(len, texts)) + PADDING
        if need > left and blocks[-1]:
            blocks.append([])
            left = width
        blocks[-1].append(column)
        left -= need
    return blocks


def _table(board: Board, rows: list[Row], names: list[str], columns: list[Column]) -> Table:
    table = Table(show_lines=False)
    table.add_column("method", no_wrap=True)
    heads = [head_lines(column) for column in columns]
    height = max(map(len, heads), default=0)
    for head in heads:
        lines = head + [""] * (height - len(head))  # the tasks' names in one line
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    best = {column.name: best_methods(board, column) for column in columns}
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        cells = [
            figure(row.scores.get(column.name)) + ("*" if row.method in best[column.name] else "")
            for column in columns
        ]
        last = index + 1 == len(rows) or rows[index + 1].role != row.role
        style = "red" if not row.scores else STYLES[row.role]
        table.add_row(Text(name), *map(Text, cells), style=style, end_section=last)
    return table


def _overall_table(board: Board, rows: Sequence[Row]) -> Table:
    """The overall score with its 95 % interval, and the two parts that it is made of."""
    table = Table(show_lines=False)
    table.add_column("method", no_wrap=True)
    for name in ("overall ↑", "gain", "keep"):
        table.add_column(name, justify="right", no_wrap=True)
    best = best_overall(board)
    for index, row in enumerate(rows):
        parts = (row.overall.gain, row.overall.keep) if row.overall else (math.nan, math.nan)
        cells = ["–" if math.isnan(part) else f"{part:.2f}" for part in parts]
        last = index + 1 == len(rows) or rows[index + 1].role != row.role
        mark = "*" if row.method in best else ""
        style = "red" if not row.scores else STYLES[row.role]
        texts = map(Text, (overall_figure(row) + mark, *cells))
        table.add_row(Text(_name(row)), *texts, style=style, end_section=last)
    return table


def _tuning_table(rows: Sequence[Row]) -> Table:
    """How the methods' options were found: objectives on validation items."""
    table = Table(show_lines=False)
    table.add_column("method", no_wrap=True)
    for name in ("tuning: best", "median", "trials"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(_name(row)), *tuning_figures(row))
    return table


def print_board(board: Board, console: Console) -> None:
    """Print the tables, as wide as the console is."""
    console.print(render_terminal(board, console.width))
