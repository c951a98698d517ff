"""`unlearn-bench compare`: two models on the same items."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples(
        "compare runs:noop runs:npo", "compare runs:noop runs:npo --metrics 'fur.retain_*' --json"
    )
)
@ends_cleanly
def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="A run's folder, RUN:METHOD, RUN:METHOD@SEED, or the folder of a cell.",
            metavar="A",
        ),
    ],
    second: Annotated[str, typer.Argument(help="The same; the verdict is on it.", metavar="B")],
    metrics: Annotated[
        str,
        typer.Option(
            help="These metrics, separated by commas; * stands for any letters. Default: those "
            "that the board shows."
        ),
    ] = "",
    as_json: options.AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Compare two models on the items that both were asked: differences, intervals, verdicts.

    All seeds of a method count together. Two whole runs are compared method by method.
    """
    from unlearn_bench.gate_commands import run_compare

    patterns = tuple(filter(None, metrics.split(",")))
    code = run_compare(first, second, patterns=patterns, as_json=as_json, markdown=markdown)
    raise typer.Exit(code)
