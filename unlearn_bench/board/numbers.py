"""Numbers and small structures as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

ROUNDING = 1e-12  # below which a number is the rounding error of a zero


def shown(value: float | int) -> str:
    """Three decimals below 10, one up to 10,000, then a power of ten; words for what is none."""
    if math.isnan(value):
        return "missing"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value) if abs(value) > ROUNDING else 0.0
    if size >= 10_000 or 0 < size < 0.0005:
        return f"{value:.1e}".replace("-", "−")
    return (f"{size and value:.3f}" if size < 10 else f"{value:.1f}").replace("-", "−")


def brief(value: float) -> str:
    """Three digits that count, whatever the size."""
    return f"{value:.3g}".replace("-", "−")


def spans(values: Iterable[int]) -> str:
    """Whole numbers, three or more in a row as their ends: "0–4, 7, 9"."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts = [[f"{run[0]}–{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return ", ".join(part for some in parts for part in some)


def plain(value: Any) -> str:
    """A JSON value in words: no brackets, names before what they name; quoted where blank."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_nested(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_nested, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    text = str(value)
    return text if text and text.isprintable() and text == text.strip() else repr(text)


def _nested(value: Any) -> str:
    return f"({plain(value)})" if isinstance(value, Mapping) and value else plain(value)
