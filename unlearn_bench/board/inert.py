"""Texts of others (names, reasons) as one line that does nothing where it is shown."""

from __future__ import annotations

import math
import re
import unicodedata

from unlearn_bench.board.table import public_text

# Control, format (bidirectional marks among them), surrogate, private, unassigned, line ends.
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def inert(text: str) -> str:
    """As `plain`, without folders of the machine and host names: reports are shared."""
    return plain(public_text(plain(text)))


def plain(text: str) -> str:
    """One line; what cannot be seen is written as its code. GitHub reads `::` at the beginning of
    a line as a command, and `##[` anywhere, so both are broken up.
    """
    shown = "".join(
        char if unicodedata.category(char) not in UNSEEN or char in "\n\t" else _code(char)
        for char in text
    )
    line = " ".join(shown.split())
    return re.sub(r":(?=:)", ": ", line).replace("##[", "## [")


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"


def figure(value: float, *, signed: bool = False) -> str:
    """Three or four digits for people; a dash for missing, the word for infinite."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "diverged"
    return f"{value:+.3g}" if signed else f"{value:.4g}"


def span(low: float, high: float) -> str:
    """An interval's ends, a dash where they are not known."""
    if math.isnan(low):
        return "–"
    return f"{figure(low, signed=True)} to {figure(high, signed=True)}"


def p_figure(p: float) -> str:
    """A p value; below a thousandth that is all one wants to know."""
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
