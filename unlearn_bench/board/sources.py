"""What a merge is made of: the cells of runs, boards' files, and the boards that are there already.

A cell does not say how it was tuned, nor always how its model is called; every board does. So each
run's own board is read as well, to look things up by cell key, and gives no row of its own where
its cell is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.board.board_file import read_board
from unlearn_bench.board.table import MEAN, Board, Row
from unlearn_bench.errors import UsageError
from unlearn_bench.runs.finished import StoredCell, read_cells
from unlearn_bench.runs.settings import board_files


@dataclass(frozen=True)
class ReadBoard:
    """One board with its file. existing: it stands where the merge is written; given: it was named
    on the command line.
    """

    path: Path
    board: Board
    existing: bool = False
    given: bool = False

    @property
    def rows(self) -> list[Row]:
        """Of cells: means are made again."""
        return [row for row in self.board.rows if row.seed != MEAN]


@dataclass(frozen=True)
class Inputs:
    """cells: of the runs. boards: given or existing. beside: of the runs, to look things up in.

    damaged: one line on each cell that cannot be read.
    """

    cells: tuple[StoredCell, ...]
    boards: tuple[ReadBoard, ...]
    beside: tuple[ReadBoard, ...]
    damaged: tuple[str, ...]

    @property
    def told(self) -> list[ReadBoard]:
        """Every board, in an order that the command line does not change."""
        return sorted((*self.boards, *self.beside), key=lambda one: (one.existing, repr(one.board)))


def read_inputs(paths: Sequence[Path], leaderboards: Path) -> Inputs:
    """Read run folders, folders of boards and board files, and what `leaderboards` has already.

    Raises UsageError for what is none of these, CorruptDataError for a named file that is no board.
    """
    runs = sorted({path.resolve(): path for path in paths if (path / "cells").is_dir()}.values())
    files: dict[Path, Path] = {}
    for path in paths:
        if path not in runs and not (path / "cells").is_dir():
            files |= {file.resolve(): file for file in _board_files(path)}
    there = {file.resolve(): file for file in _find_boards(leaderboards, "*/*.json")}
    boards = [
        ReadBoard(file, read_board(file), existing=place in there, given=place in files)
        for place, file in (there | files).items()
    ]
    found = [_read_run(run) for run in runs]
    return Inputs(
        cells=tuple(cell for cells, _, _ in found for cell in cells),
        boards=tuple(boards),
        beside=tuple(board for _, boards, _ in found for board in boards),
        damaged=tuple(line for _, _, damaged in found for line in damaged),
    )


def _read_run(run: Path) -> tuple[tuple[StoredCell, ...], list[ReadBoard], tuple[str, ...]]:
    found = read_cells([run])
    boards = [ReadBoard(file, read_board(file)) for file in filter(_is_board, board_files(run))]
    return found.cells, boards, found.damaged


def _board_files(path: Path) -> list[Path]:
    """The board files that one argument names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {str(path)!r}", next_step="check the path")
    found = [*_find_boards(path, "*.json"), *_find_boards(path, "*/*.json")]
    if not found:
        raise UsageError(
            f"{str(path)!r} holds neither cells nor a board",
            next_step="name the output folder of a run, which has a folder `cells`, or a board's "
            "JSON file",
        )
    return found


def _find_boards(root: Path, pattern: str) -> Iterator[Path]:
    return filter(_is_board, sorted(root.glob(pattern)))


def _is_board(file: Path) -> bool:
    """Whether it is one by its look. A sequence's table, or what tuning wrote, is none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict) or not {"protocol", "columns", "rows"} <= content.keys():
        return False
    return not any(isinstance(row, dict) and "stage" in row for row in content["rows"])
