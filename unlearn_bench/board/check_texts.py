"""Whether a board's texts are nothing but texts: no mark that steers a terminal or hides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unlearn_bench.board.board_file import BoardFile
from unlearn_bench.board.faults import AGAIN, Fault, place_of
from unlearn_bench.board.visible import visible

SHOWN = 60  # characters of a text


def check_texts(content: BoardFile) -> Iterator[Fault]:
    """Every name, reason and other text of the file that `visible` would change."""
    for row in content.rows:
        for place, text in _texts(row.model_dump(mode="json"), ()):
            yield from _check_text(text, place, place_of(row))
    for column in content.columns:
        for _, text in _texts(column.model_dump(mode="json"), ()):
            yield from _check_text(text, (column.name,), "")
    rest = content.model_dump(mode="json", exclude={"rows", "columns"})
    for place, text in _texts(rest, ()):
        yield from _check_text(text, place, "")


def _check_text(text: str, place: tuple[str, ...], row: str) -> Iterator[Fault]:
    if text != visible(text):
        what = f"it holds a control character or an invisible mark: {visible(text)[:SHOWN]!r}"
        yield Fault(what, AGAIN, visible(row), visible(".".join(place)))


def _texts(part: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with the names that lead to it; a name is a text of its own place."""
    if isinstance(part, str):
        yield place, part
    elif isinstance(part, dict):
        for name, value in part.items():
            yield (*place, name), name
            yield from _texts(value, (*place, name))
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value, place)
