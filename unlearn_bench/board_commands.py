"""The work behind `board`: merge, validate, publish, and say what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from unlearn_bench.errors import UsageError

EXIT_INVALID = 1
KINDS = ("dataset", "model")


def run_merge(paths: Sequence[Path], leaderboards: Path, *, apart: bool) -> int:
    """Merge runs and boards into `leaderboards`; return the exit code. Raises UnlearnBenchError."""
    from unlearn_bench.board.merge import merge, write_merged
    from unlearn_bench.runs.store import exclusive

    with exclusive(leaderboards):  # what is read there is written back with more
        merged, notes = merge(paths, leaderboards, apart=apart)
        written = write_merged(merged)
    _print("".join(f"note: {note}\n" for note in notes), Console(stderr=True, emoji=False))
    _print("".join(f"wrote {path}\n" for path in written), Console(emoji=False))
    return 0


def run_validate(files: Sequence[Path], runs: Sequence[Path], *, as_json: bool) -> int:
    """Validate boards and print what is wrong with each; return the exit code, 1 for any fault.

    Raises UsageError for a file that is not there.
    """
    from unlearn_bench.board.validate import render_verdicts, render_verdicts_json, validate

    verdicts = validate(files, runs)
    _print((render_verdicts_json if as_json else render_verdicts)(verdicts), Console(emoji=False))
    return EXIT_INVALID if any(one.faults for one in verdicts) else 0


def run_publish(file: Path, to: str, kind: str, row: str, *, dry_run: bool) -> int:
    """Send a board to a hub repository, or only say what would be sent; return the exit code.

    Raises UnlearnBenchError for what cannot be sent.
    """
    from unlearn_bench.board.hub import describe, prepare, publish_board

    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r}", next_step=f"choose from {', '.join(KINDS)}")
    publication = prepare(file, to, "model" if kind == "model" else "dataset", row)
    _print(describe(publication), Console(emoji=False))
    if dry_run:
        _print("dry run: nothing was written\n", Console(emoji=False))
        return 0
    _print(f"published {publish_board(publication)}\n", Console(emoji=False))
    return 0


def _print(text: str, screen: Console) -> None:
    from unlearn_bench.board.visible import visible

    screen.print(visible(text), end="", markup=False, highlight=False, soft_wrap=True)
