"""A gate's judgements as GitHub's workflow commands, which it shows beside the pull request."""

from __future__ import annotations

from unlearn_bench.board.gate import Report, sentence
from unlearn_bench.board.inert import inert

KINDS = {"regression": "error", "incomplete": "error", "cannot tell": "warning"}


def render_annotations(report: Report) -> list[str]:
    """One line each: an error for what fails or stopped the gate, a warning for what is unsure."""
    stopped = [_command("error", "gate", report.error)] if report.error else []
    return stopped + [
        _command(KINDS[one.outcome], one.measure.name, sentence(one))
        for one in report.judgements
        if one.outcome in KINDS
    ]


def _command(kind: str, title: str, message: str) -> str:
    """The percent sign is escaped first; in a property also what would end it."""
    name = _data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{_data(message)}"


def _data(text: str) -> str:
    return inert(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
