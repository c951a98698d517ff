"""`unlearn-bench list`: what can be named on the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.complete import complete_kinds
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command("list", epilog=examples("list methods", "list methods --file max_entropy.py"))
@ends_cleanly
def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, tasks, suites, models or scorers.",
            metavar="KIND",
            autocompletion=complete_kinds,
        ),
    ],
    file: Annotated[
        list[Path] | None, typer.Option(help="Also read this plugin file. Repeatable.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List what can be named on the command line."""
    from unlearn_bench.listing import list_entries

    entries = list_entries(kind, tuple(file or ()))
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    for entry in entries:
        typer.echo(f"{entry.name}\n    {entry.summary}" if entry.summary else entry.name)
        for detail in entry.details:
            typer.echo(f"    {detail}")
