"""What a gate says: to people on a terminal, to a pull request as Markdown, to programs as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unlearn_bench.board.inert import figure, inert, p_figure, span
from unlearn_bench.board.markdown import escape, table_line
from unlearn_bench.board.table import ARROWS
from unlearn_bench.compare.gate import Judgement
from unlearn_bench.runs.store import to_json

FORMAT = 1
HEADS = (
    "metric", "baseline", "candidate", "loss", "95 % interval", "margin", "p", "p (Holm)", "n",
    "outcome",
)  # fmt: skip
NARROW = ("metric", "baseline", "candidate", "loss", "margin", "p, Holm", "n", "outcome")
LEFT = ("metric", "outcome")
STYLES = {"regression": "red", "incomplete": "yellow", "cannot tell": "magenta", "skipped": "dim"}
VERDICTS = {0: "pass", 1: "regression", 2: "usage", 3: "incomplete", 4: "unsafe artefact"}


@dataclass(frozen=True)
class Report:
    """One gate. baseline, candidate: as people named them. code: the exit code. error: what stopped
    the gate before it could judge, else "". notes: limited runs, changed source, other versions.
    """

    baseline: str
    candidate: str
    level: float
    code: int
    judgements: tuple[Judgement, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One word for the exit code, with how many warnings a pass has."""
        unsure = sum(one.outcome == "cannot tell" for one in self.judgements)
        word = VERDICTS.get(self.code, "stopped")
        return f"{word}, {unsure} cannot be told" if unsure and not self.code else word


def sentence(one: Judgement) -> str:
    """One metric in words."""
    parts = [f"{one.outcome}: {one.reason}" if one.reason else str(one.outcome)]
    if one.loss is not None:
        parts.append(
            f"baseline {figure(one.loss.found.second)}, candidate {figure(one.loss.found.first)}"
        )
        parts.append(
            f"loss {figure(one.loss.value, signed=True)} ({span(one.loss.low, one.loss.high)}), "
            f"margin {figure(one.loss.margin)}, adjusted p {p_figure(one.p_adjusted)}"
        )
    return inert("; ".join(parts))


def _cells(one: Judgement) -> list[str]:
    name = f"{inert(one.measure.name)} {ARROWS[one.measure.direction]}".rstrip()
    outcome = one.outcome + (f": {inert(one.reason)}" if one.reason else "")
    if one.loss is None:
        return [name, *["–"] * (len(HEADS) - 2), outcome]
    loss = one.loss
    return [
        name,
        figure(loss.found.second),
        figure(loss.found.first),
        figure(loss.value, signed=True),
        span(loss.low, loss.high),
        figure(loss.margin),
        p_figure(loss.p),
        p_figure(one.p_adjusted),
        str(loss.found.n),
        outcome,
    ]


def render_gate(report: Report) -> Group:
    """For a terminal."""
    lines = [Text(f"gate: {report.verdict}", style="bold red" if report.code else "bold green")]
    lines += [Text(line) for line in _facts(report)]
    table = Table(show_lines=False)
    for head in NARROW:
        table.add_column(head, justify="left" if head in LEFT else "right", overflow="fold")
    for one in report.judgements:
        table.add_row(*map(Text, _narrow_cells(one)), style=STYLES.get(one.outcome, ""))
    return Group(*lines, table) if report.judgements else Group(*lines)


def _narrow_cells(one: Judgement) -> list[str]:
    """With what belongs together in one cell: a terminal is narrow."""
    name, before, after, loss, interval, margin, p, adjusted, items, outcome = _cells(one)
    joined = [f"{loss} [{interval}]", margin, f"{p}, {adjusted}"] if one.loss else ["–"] * 3
    return [name, before, after, *joined, items, outcome]


def _facts(report: Report) -> list[str]:
    lines = [f"baseline: {inert(report.baseline)}", f"candidate: {inert(report.candidate)}"]
    lines += [f"error: {inert(report.error)}"] if report.error else []
    return lines + [f"note: {inert(note)}" for note in report.notes]


def render_gate_markdown(report: Report) -> str:
    """For a step summary or a comment."""
    lines = [f"## unlearn-bench gate: {report.verdict}", ""]
    lines += [f"- {escape(line)}" for line in _facts(report)]
    if report.judgements:
        lines += ["", table_line(list(HEADS)), table_line(["---"] * len(HEADS))]
        lines += [table_line([escape(cell) for cell in _cells(one)]) for one in report.judgements]
        lines += ["", f"Loss: positive is worse. Level {report.level:g} over all metrics together."]
    return "\n".join(lines) + "\n"


def render_gate_json(report: Report) -> str:
    """For programs: `nan` where a value is missing, `inf` where a model diverged."""
    content = {
        "format": FORMAT,
        "verdict": report.verdict,
        "exit_code": report.code,
        "baseline": inert(report.baseline),
        "candidate": inert(report.candidate),
        "level": report.level,
        "error": inert(report.error),
        "notes": [inert(note) for note in report.notes],
        "metrics": [_judgement_json(one) for one in report.judgements],
    }
    return json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _judgement_json(one: Judgement) -> dict[str, Any]:
    loss = one.loss
    found: dict[str, Any] = {}
    if loss is not None:
        found = {
            "baseline": loss.found.second,
            "candidate": loss.found.first,
            "loss": loss.value,
            "low": loss.low,
            "high": loss.high,
            "margin": loss.margin,
            "p": loss.p,
            "p_adjusted": one.p_adjusted,
            "test": loss.found.test,
            "n": loss.found.n,
            "clusters": loss.found.clusters,
            "missing": loss.found.missing,
        }
    return {
        "metric": one.measure.name,
        "direction": one.measure.direction,
        "unit": one.measure.unit,
        "outcome": one.outcome,
        "reason": inert(one.reason),
        **to_json(found),
    }
