"""What is wrong with a board, and where."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_bench.board.board_file import RowPart

AGAIN = "write it again: unlearn-bench board merge RUN --output FOLDER"


@dataclass(frozen=True)
class Fault:
    """row: as `method seed 0`, and column: where it is, "" where it is of the whole file.

    stops: nothing can be said of the numbers while it is there.
    """

    what: str
    next_step: str
    row: str = ""
    column: str = ""
    stops: bool = False

    def __str__(self) -> str:
        place = ", ".join(filter(None, (self.row, self.column)))
        return f"{place}: {self.what}" if place else self.what


def place_of(row: RowPart) -> str:
    """How a row is called."""
    return f"{row.method} seed {row.seed}"
