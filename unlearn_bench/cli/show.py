"""`unlearn-bench show`: what a model was asked and what it answered."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples("show runs npo --task fur", "show runs npo@0 --limit 5 --page 2 --json")
)
@ends_cleanly
def show(
    run: options.Run,
    cell: Annotated[
        str,
        typer.Argument(help="A method, method@seed, or digits of a cell's key.", metavar="CELL"),
    ],
    task: Annotated[str, typer.Option(help="Only this task: fur, or fur_generate.")] = "",
    item: Annotated[str, typer.Option(help="Only the item with this id.")] = "",
    page: Annotated[int, typer.Option(min=1, help="Which page.")] = 1,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Samples per page. Default: 5 on a terminal, else all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the documents.")] = False,
) -> None:
    """Page through what a model was asked and what it answered."""
    from rich.console import Console

    from unlearn_bench.board.samples import LIMIT, choose_page, render_json, render_samples

    screen = Console()
    limit = limit or (LIMIT if screen.is_terminal else None)
    chosen = choose_page(run, cell, task=task, item=item, number=page, limit=limit)
    if as_json:
        typer.echo(render_json(chosen))
        return
    for line in render_samples(chosen):
        screen.print(line, soft_wrap=True, highlight=False)
