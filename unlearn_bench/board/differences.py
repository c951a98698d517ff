"""What `compare` shows: a table per pair of models, the same as Markdown, and all of it as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unlearn_bench.board.inert import figure, inert, p_figure, span
from unlearn_bench.board.markdown import escape, table_line
from unlearn_bench.board.table import ARROWS
from unlearn_bench.compare.differences import Difference
from unlearn_bench.runs.pairs import Pair
from unlearn_bench.runs.store import to_json

FORMAT = 1
HEADS = (
    "metric", "first", "second", "second − first", "95 % interval", "p", "p (Holm)", "test", "n",
    "clusters", "missing", "verdict",
)  # fmt: skip
NARROW = ("metric", "first", "second", "second − first", "p, Holm", "test", "items", "verdict")
LEFT = ("metric", "test", "verdict")
STYLES = {"better": "green", "worse": "red", "not comparable": "yellow"}
LEGEND = (
    "The verdict is on the second, at an adjusted p of 0.05. No difference seen is not the same as "
    "no difference."
)


def render_differences(pairs: Sequence[Pair]) -> Group:
    """For a terminal."""
    legend = Text(f"{_family(pairs)} {LEGEND}", style="dim")
    return Group(*(part for pair in pairs for part in _block(pair)), legend)


def _family(pairs: Sequence[Pair]) -> str:
    """What Holm's adjustment is over."""
    tests, left_out = _count_tests(pairs), sum(pair.left_out for pair in pairs)
    over = f"Holm's p is over {tests} test{'' if tests == 1 else 's'}"
    if not left_out:
        return f"{over}: everything shown."
    others = f"{left_out} other{'' if left_out == 1 else 's'}"
    return (
        f"{over}: the tasks' headline metrics. --metrics '*' compares {others} too and adjusts "
        "over all."
    )


def _count_tests(pairs: Sequence[Pair]) -> int:
    found = [one.found for pair in pairs for one in pair.differences if one.found]
    return sum(not math.isnan(one.p) for one in found)


def _block(pair: Pair) -> list[Text | Table]:
    parts: list[Text | Table] = [Text(_title(pair), style="bold")]
    parts += [Text(f"note: {inert(note)}", style="dim") for note in pair.notes]
    if pair.reason:
        return [*parts, Text(f"not comparable: {inert(pair.reason)}", style="red")]
    table = Table(show_lines=False)
    for head in NARROW:
        table.add_column(head, justify="left" if head in LEFT else "right", overflow="fold")
    task = ""
    for one in pair.differences:
        if one.measure.task != task:
            task = one.measure.task
            table.add_section()
            table.add_row(Text(inert(task), style="bold"))
        table.add_row(*map(Text, _narrow_cells(one)), style=STYLES.get(one.verdict, ""))
    return [*parts, table]


def _title(pair: Pair) -> str:
    return f"first: {inert(pair.first)}, second: {inert(pair.second)}"


def _narrow_cells(one: Difference) -> list[str]:
    """Without the task, and with what belongs together in one cell: a terminal is narrow."""
    name = f"{inert(one.measure.metric)} {ARROWS[one.measure.direction]}".rstrip()
    found = one.found
    if found is None:
        return [name, *["–"] * (len(NARROW) - 2), _verdict(one)]
    items = f"{found.n}" if found.clusters == found.n else f"{found.n} in {found.clusters}"
    return [
        name,
        figure(found.second),  # a comparison's own first is the newer model
        figure(found.first),
        f"{figure(found.difference, signed=True)} [{span(found.low, found.high)}]",
        f"{p_figure(found.p)}, {p_figure(one.p_adjusted)}",
        found.test,
        f"{items}, {found.missing} missing" if found.missing else items,
        _verdict(one),
    ]


def _verdict(one: Difference) -> str:
    return one.verdict + (f": {inert(one.reason)}" if one.reason else "")


def _cells(one: Difference) -> list[str]:
    name = f"{inert(one.measure.name)} {ARROWS[one.measure.direction]}".rstrip()
    found = one.found
    if found is None:
        return [name, *["–"] * (len(HEADS) - 2), _verdict(one)]
    return [
        name,
        figure(found.second),
        figure(found.first),
        figure(found.difference, signed=True),
        span(found.low, found.high),
        p_figure(found.p),
        p_figure(one.p_adjusted),
        found.test,
        str(found.n),
        str(found.clusters),
        str(found.missing),
        _verdict(one),
    ]


def render_differences_markdown(pairs: Sequence[Pair]) -> str:
    """One table per pair."""
    lines = ["# Comparison", "", escape(f"{_family(pairs)} {LEGEND}")]
    for pair in pairs:
        lines += ["", f"## {escape(_title(pair))}", ""]
        lines += [f"- {escape(inert(note))}" for note in pair.notes]
        lines += [""] if pair.notes else []
        if pair.reason:
            lines.append(f"not comparable: {escape(inert(pair.reason))}")
            continue
        lines += [table_line(list(HEADS)), table_line(["---"] * len(HEADS))]
        lines += [table_line([escape(cell) for cell in _cells(one)]) for one in pair.differences]
    return "\n".join(lines) + "\n"


def render_differences_json(pairs: Sequence[Pair], error: str = "") -> str:
    """For programs: `nan` where a value is missing, `inf` where a model diverged. error: what
    stopped the comparison before there was a pair. tests: what Holm's adjustment is over.
    """
    content = {
        "format": FORMAT,
        "error": inert(error),
        "tests": _count_tests(pairs),
        "pairs": [_pair_json(pair) for pair in pairs],
    }
    return json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _pair_json(pair: Pair) -> dict[str, Any]:
    return {
        "first": inert(pair.first),
        "second": inert(pair.second),
        "reason": inert(pair.reason),
        "notes": [inert(note) for note in pair.notes],
        "left_out": pair.left_out,
        "metrics": [_difference_json(one) for one in pair.differences],
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    found = to_json(one.found) if one.found else {}
    if one.found:  # a comparison's own first is the newer model, this command's second
        found["first"], found["second"] = found["second"], found["first"]
    return {
        "metric": one.measure.name,
        "direction": one.measure.direction,
        "unit": one.measure.unit,
        **found,
        "p_adjusted": to_json(one.p_adjusted),
        "verdict": one.verdict,
        "reason": inert(one.reason),
    }
