"""A sequence's board as CSV, JSON, Markdown and on a terminal; docs/schema.md documents the files.

No best values are marked: a chain is read along its stages, beside the exact model's.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unlearn_bench.board.files import (
    FORMAT,
    PARTS,
    PROVENANCE,
    number,
    row_json,
    safe_text,
    score_cells,
)
from unlearn_bench.board.markdown import LABELS, escape, list_facts, table_line
from unlearn_bench.board.stages import (
    NOT_APPLICABLE,
    SequenceBoard,
    StageRow,
    build_sequence_board,
)
from unlearn_bench.board.table import ARROWS, COSTS, TUNING, Column, figure, public_text
from unlearn_bench.board.terminal import PADDING, STYLES, head_lines, pack_columns
from unlearn_bench.runs.sequence import SequencePlan, SequenceResult
from unlearn_bench.runs.store import inside, write_file

IDENTITY = ("method", "seed", "role", "stage", "request", "status", "reason")
LEGEND = (
    "Stage 0 is the target, before any request. A request's columns are over its own subjects.",
    "relearned, lost: what later stages undid, in paired differences to right after its own stage.",
    "Relearning shows in extraction strength: a choice also turns when another request takes away "
    "the wrong options.",
    "n/a: the method cannot serve that request; model and scores are those of the stage before.",
)


def publish_sequence(
    sequence: SequencePlan, result: SequenceResult
) -> tuple[SequenceBoard, list[Path]]:
    """Write `<leaderboards>/<model>/sequence.csv|.json|.md`; return the board and the paths."""
    board, paths = build_sequence_board(sequence, result), []
    renderings: dict[str, Callable[[SequenceBoard], str]] = {
        "csv": render_csv,
        "json": render_json,
        "md": render_markdown,
    }
    for suffix, render in renderings.items():
        path = inside(sequence.plan.leaderboards, f"{board.name}.{suffix}")
        write_file(path, render(board).encode("utf-8", "backslashreplace"))
        paths.append(path)
    return board, paths


def render_csv(board: SequenceBoard) -> str:
    """One header line, then one line per method, seed and stage."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measured = [column.name + part for column in board.columns for part in PARTS]
    heads = (*IDENTITY, *measured, *COSTS, *TUNING, *PROVENANCE)
    writer.writerow([safe_text(name) for name in heads])
    for stage in board.rows:
        row = stage.row
        writer.writerow(
            [
                *(safe_text(text) for text in _identity(stage).values()),
                *(cell for column in board.columns for cell in score_cells(row, column)),
                *(number(row.costs.get(name)) for name in COSTS),
                *(number(row.tuning.get(name)) for name in TUNING),
                *(safe_text(row.provenance.get(name, "")) for name in PROVENANCE),
            ]
        )
    return stream.getvalue()


def _identity(stage: StageRow) -> dict[str, str]:
    own = {"stage": str(stage.stage), "request": stage.request}
    return {name: own.get(name) or str(getattr(stage.row, name, "")) for name in IDENTITY}


def render_json(board: SequenceBoard) -> str:
    """The whole board with its requests, and what all rows have in common in `protocol`."""
    content = {
        "format": FORMAT,
        "model": board.model,
        "suite": board.suite,
        "requests": [vars(request) for request in board.requests],
        "protocol": board.protocol,
        "columns": [{"name": column.name, **vars(column)} for column in board.columns],
        "rows": [
            {"stage": stage.stage, "request": stage.request, **row_json(stage.row)}
            for stage in board.rows
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_markdown(board: SequenceBoard) -> str:
    """A heading, one table, what did not run, and the protocol."""
    columns = board.shown_columns()
    heads = [f"{column.name} {ARROWS[column.direction]}".strip() for column in columns]
    lines = [
        f"# {escape(board.model)}, requests one after another: {escape(_requests(board))}",
        "",
        *(f"{line}  " for line in (*LEGEND, "± is the standard error.")),
        "",
        table_line(["method", "stage", *map(escape, heads), "edit s"]),
        table_line(["---", "---", *["---:"] * (len(heads) + 1)]),
    ]
    for stage in board.shown_rows():
        row = stage.row
        seconds = row.costs.get("edit_seconds")
        figures = [figure(row.scores.get(column.name)) for column in columns]
        name = escape(row.method) + LABELS[row.role]
        spent = "–" if seconds is None else f"{seconds:.1f}"
        lines.append(table_line([name, escape(_title(stage)), *figures, spent]))
    troubles = [f"- {escape(line)}" for line in _troubles(board)]
    lines += ["", "Not successful:", "", *troubles] if troubles else []
    lines += ["", "## Measured under", "", *list_facts(board.protocol)]
    return "\n".join(lines) + "\n"


def render_terminal(board: SequenceBoard, width: int) -> Group:
    """Tables no wider than `width` where columns allow it, methods parted by a rule."""
    stages = board.shown_rows()
    names = [_name(stages, index) for index in range(len(stages))]
    titles = [_title(stage) for stage in stages]
    taken = [max(map(len, texts), default=0) + PADDING for texts in (names, titles)]
    rows = [stage.row for stage in stages]
    blocks = pack_columns(board.shown_columns(), rows, width - sum(taken))
    return Group(
        Text(f"{board.model}, requests one after another: {_requests(board)}", style="bold"),
        *(_table(stages, names, titles, block) for block in blocks),
        *(Text(line, style="dim") for line in (*LEGEND, "± standard error; – missing")),
        *(Text(line, style="red") for line in _troubles(board)),
    )


def _table(
    stages: Sequence[StageRow], names: list[str], titles: list[str], columns: Sequence[Column]
) -> Table:
    table = Table(show_lines=False)
    table.add_column("method", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    heads = [head_lines(column) for column in columns]
    height = max(map(len, heads), default=0)
    for head in heads:
        lines = head + [""] * (height - len(head))
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    for index, stage in enumerate(stages):
        row = stage.row
        figures = [figure(row.scores.get(column.name)) for column in columns]
        last = index + 1 == len(stages) or stages[index + 1].row.method != row.method
        style = "red" if not row.scores else STYLES[row.role]
        cells = map(Text, (names[index], titles[index], *figures))
        table.add_row(*cells, style=style, end_section=last)
    return table


def _name(stages: Sequence[StageRow], index: int) -> str:
    """The method, on its first line only."""
    row = stages[index].row
    if index and stages[index - 1].row.method == row.method:
        return ""
    return row.method if row.role in ("method", "control") else f"{row.method} ({row.role})"


def _title(stage: StageRow) -> str:
    if not stage.stage:
        return "0"
    idle = stage.row.status == NOT_APPLICABLE
    return f"{stage.stage} {stage.request}" + (", n/a" if idle else "")


def _requests(board: SequenceBoard) -> str:
    return ", ".join(request.name for request in board.requests)


def _troubles(board: SequenceBoard) -> list[str]:
    return [
        f"{s.row.method} stage {s.stage} {s.request}: {s.row.status}. {public_text(s.row.reason)}"
        for s in board.shown_rows()
        if s.row.status not in ("success", NOT_APPLICABLE)
    ]


def print_sequence_board(board: SequenceBoard, console: Console) -> None:
    """Print the tables, as wide as the console is."""
    console.print(render_terminal(board, console.width))
