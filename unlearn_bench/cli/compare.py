"""`unlearn-bench compare`: two models on the same items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples(
        "compare runs:noop runs:npo",
        "compare runs:noop runs:npo --metrics 'fur.retain_*' --json",
        "compare runs:noop edited-model/",
    )
)
@ends_cleanly
def compare(
    context: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            help="A run's folder, RUN:METHOD, RUN:METHOD@SEED, the folder of a cell, or a model "
            "(folder or hub id).",
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
    suite: options.Suite = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the records of models that are evaluated.")
    ] = Path("runs/compare"),
    data: options.Data = None,
    scorer_checkpoint: options.ScorerCheckpoint = None,
    guard: options.Guard = None,
    offline: options.Offline = None,
    time_limit: options.TimeLimit = None,
    verbose: options.Verbose = False,
) -> None:
    """Compare two models on the items that both were asked: differences, intervals, verdicts.

    All seeds of a method count together. Two whole runs are compared method by method. A model that
    is no run's is evaluated first, exactly as the other one was, or both on --suite.
    """
    from unlearn_bench.gate_commands import CompareRequest, run_compare

    request = CompareRequest(
        first=first,
        second=second,
        output=output,
        patterns=tuple(filter(None, metrics.split(","))),
        as_json=as_json,
        markdown=markdown,
        time_limit=time_limit,
    )
    given = {
        "suite": suite,
        "data": data,
        "scorer_checkpoint": scorer_checkpoint,
        "guard": guard,
        "offline": offline,
    }
    again = context.obj or ()
    raise typer.Exit(run_compare(request, given, verbose=verbose, again=again))
