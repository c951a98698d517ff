"""`unlearn-bench report`: one HTML page from finished cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(epilog=examples("report runs", "report runs -o page.html --suite quick"))
@ends_cleanly
def report(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of runs.", metavar="RUN...")],
    file: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page. Default: report.html in the first RUN."),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Which suite's cells, where the runs have several. Default: last.")
    ] = "",
) -> None:
    """Write one HTML page from finished cells: board, plots, every method's account and answers.

    The page needs no network and nothing beside it.
    """
    from unlearn_bench.board.report import write_report

    typer.echo(f"wrote {write_report(runs, file, suite)}")
