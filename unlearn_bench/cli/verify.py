"""`unlearn-bench verify`: do a run's scores follow from its answers?"""

from __future__ import annotations

from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.complete import complete_names
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(epilog=examples("verify runs", "verify runs --rerun 20 --methods npo"))
@ends_cleanly
def verify(
    run: options.Run,
    data: options.Data = None,
    scorer_checkpoint: options.ScorerCheckpoint = None,
    guard: options.Guard = None,
    rerun: Annotated[
        int, typer.Option(min=0, help="Also edit again and ask this many items of every cell.")
    ] = 0,
    methods: Annotated[
        str,
        typer.Option(
            help="Edit only these methods again, separated by commas.",
            autocompletion=complete_names("methods"),
        ),
    ] = "",
    allow_task_code: Annotated[
        bool | None,
        typer.Option(
            "--allow-task-code", help="Let the run's task files run the code that they name."
        ),
    ] = None,
    offline: options.Offline = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Work every score of a run out again from its stored answers.

    Ends with 1 when a score does not follow from the answers, with 3 when one could not be checked.
    """
    from unlearn_bench.commands import run_verify

    given = {
        "data": data,
        "offline": offline,
        "scorer_checkpoint": scorer_checkpoint,
        "guard": guard,
        "allow_task_code": allow_task_code,
    }
    chosen = tuple(filter(None, methods.split(",")))
    code = run_verify(run, given, rerun=rerun, methods=chosen, as_json=as_json, verbose=verbose)
    raise typer.Exit(code)
