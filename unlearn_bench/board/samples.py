"""`unlearn-bench show`: one cell's questions and answers, page by page, for a terminal or a pipe.

Answers are shown with every control character as a sign: a model may not steer the reader's screen.
JSON escapes them all, and everything else that is not ASCII.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from unlearn_bench.board.numbers import shown
from unlearn_bench.board.visible import one_line, visible
from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.runs.finished import StoredCell, find_cell, read_cells
from unlearn_bench.runs.store import to_json
from unlearn_bench.schema import Sample

LIMIT = 5  # samples on a page of a terminal
INDENT = "    "


@dataclass(frozen=True)
class Page:
    """Some of a cell's samples. total: how many fit the choice; number, pages: of this page.
    damaged: a line on each cell of the run that cannot be read.
    """

    cell: StoredCell
    samples: tuple[Sample, ...]
    total: int
    number: int
    pages: int
    damaged: tuple[str, ...] = ()


def choose_page(
    run: Path, cell: str, *, task: str = "", item: str = "", number: int = 1, limit: int | None
) -> Page:
    """The samples of a page, in the order in which they were asked.

    task: a task of lm-eval's, or the first words of its name; item: an id. limit: samples per page,
    None for all. Raises UsageError or UnknownNameError for what the cell does not have.
    """
    stored = read_cells([run])
    try:
        found = find_cell(stored.cells, cell)
    except UsageError as error:
        if stored.damaged:
            error.where = f"beside what cannot be read: {'; '.join(stored.damaged)}"
        raise
    if not found.samples:
        raise UsageError(
            f"{found.method} seed {found.seed} has no samples: it is {found.record.status}"
            + (f", {one_line(found.record.reason)}" if found.record.reason else ""),
            where=str(found.folder),
            next_step="choose another cell, or run the same evaluate command again",
        )
    chosen = _of_item(_of_task(found.samples, task), item)
    size = limit or len(chosen)
    pages = math.ceil(len(chosen) / size)
    if not 1 <= number <= pages:
        raise UsageError(f"there is no page {number}", next_step=f"choose --page 1 to {pages}")
    start = (number - 1) * size
    shown = tuple(chosen[start : start + size])
    return Page(found, shown, len(chosen), number, pages, stored.damaged)


def _of_task(samples: Sequence[Sample], task: str) -> list[Sample]:
    chosen = [s for s in samples if s.task == task or s.task.startswith(f"{task}_") or not task]
    if not chosen:
        raise UnknownNameError("task of this cell", task, {sample.task for sample in samples})
    return chosen


def _of_item(samples: Sequence[Sample], item: str) -> list[Sample]:
    chosen = [sample for sample in samples if item in ("", sample.item_id)]
    if not chosen:
        raise UnknownNameError("item of this cell", item, {sample.item_id for sample in samples})
    return chosen


def render_json(page: Page) -> str:
    """One JSON object with the page's samples as they are stored."""
    content = {
        "method": page.cell.method,
        "seed": page.cell.seed,
        "key": page.cell.record.key,
        "status": page.cell.record.status,
        "total": page.total,
        "page": page.number,
        "pages": page.pages,
        "damaged": list(page.damaged),
        "samples": [to_json(replace(sample, tokens=())) for sample in page.samples],
    }
    return json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)


def render_samples(page: Page) -> Iterator[Text]:
    """One text per line of the screen's, headings first."""
    cell = page.cell
    head = f"{cell.method} seed {cell.seed}, {cell.record.status}, {cell.record.key[:16]}"
    yield Text(one_line(head), style="bold")
    for sample in page.samples:
        yield Text()
        name = f"{sample.task}  {sample.item_id}"
        name += f"  ({sample.filter})" if sample.filter != "none" else ""
        yield Text(one_line(name), style="bold cyan")
        yield from _block("prompt", sample.prompt)
        for number, output in enumerate(sample.outputs, 1):
            several = len(sample.outputs) > 1
            yield from _block(f"output {number}" if several else "output", output)
        if sample.likelihoods:
            yield from _likelihoods(sample)
        if sample.values:
            values = "  ".join(f"{name} {_value(value)}" for name, value in sample.values.items())
            yield from _block("values", values)
    yield Text()
    samples = f"{page.total} sample{'' if page.total == 1 else 's'}"
    yield Text(f"page {page.number} of {page.pages}, {samples}", style="dim")
    for line in page.damaged:
        yield Text(one_line(f"cannot be read: {line}"), style="yellow")


def _block(title: str, text: str) -> Iterator[Text]:
    yield Text(f"  {title}", style="dim")
    for line in visible(text).split("\n"):
        yield Text(INDENT + line)


def _likelihoods(sample: Sample) -> Iterator[Text]:
    """Each option with its log-probability, per token where tokens were kept."""
    options = sample.document.get("options")
    named = isinstance(options, list) and len(options) == len(sample.likelihoods)
    yield Text("  likelihoods, nats", style="dim")
    for place, (total, greedy) in enumerate(sample.likelihoods):
        text = str(options[place]) if named and isinstance(options, list) else f"option {place + 1}"
        length = len(sample.tokens[place].log_probs) if place < len(sample.tokens) else 0
        each = f"{total / length:9.3f} per token" if length else ""
        figures = f"{total:10.3f}{each}".replace("-", "−")
        mark = "  greedy" if greedy else ""
        yield Text(f"{INDENT}{figures}  {one_line(text)}{mark}")


def _value(value: Any) -> str:
    """A number, or a sum over its weight."""
    if isinstance(value, tuple):
        return f"{shown(value[0])} over {shown(value[1])}"
    return shown(value)
