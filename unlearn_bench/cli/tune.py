"""`unlearn-bench tune`: every method's options, at equal cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.complete import complete_names
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples(
        "tune --methods all --trials 12 --seconds 900 --dry-run",
        "tune --methods npo,simnpo --set npo.beta=0.1 --trials 4",
        "evaluate --methods all --tuned runs/tune/tuned.yaml",
    )
)
@ends_cleanly
def tune(
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all. "
            "Those without a search space are left out, with a note.",
            autocompletion=complete_names("methods", "all"),
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="How many settings are tried of every method.")
    ] = 12,
    seconds: Annotated[
        float,
        typer.Option(
            min=1,
            help="What every method may spend on editing and evaluating: a trial that has begun is "
            "finished and counted, none is begun afterwards.",
        ),
    ] = 900.0,
    model: options.Model = None,
    target: options.Target = None,
    suite: Annotated[
        str,
        typer.Option(
            help="What is asked of every trial: validation, or a YAML file with that part.",
            rich_help_panel=options.ASKED,
        ),
    ] = "validation",
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of the draws, and of every trial's training and sampling.",
            rich_help_panel=options.EDITED,
        ),
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METHOD.OPTION=VALUE",
            help="Fix an option: not drawn. Repeatable.",
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    data: options.Data = None,
    engine: options.Engine = None,
    dtype: options.Dtype = None,
    engine_args: options.EngineArgs = None,
    scorer: options.Scorer = None,
    scorer_checkpoint: options.ScorerCheckpoint = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the trials' records and of the winners.")
    ] = Path("runs/tune"),
    offline: options.Offline = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be drawn, and stop there.")
    ] = False,
    as_json: options.PlanAsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Choose every method's options with the same budget, on items that no test suite asks.

    Running the same command again goes on where it was. Use the winners with evaluate --tuned.
    """
    from unlearn_bench.commands import run_tune

    given = {
        "model": model,
        "target": target,
        "methods": methods,
        "suite": suite,
        "seeds": [seed],
        "set": settings or None,
        "data": data,
        "engine": engine,
        "dtype": dtype,
        "engine_args": engine_args or None,
        "scorer": scorer,
        "scorer_checkpoint": scorer_checkpoint,
        "output": output,
        "offline": offline,
    }
    code = run_tune(
        given, trials=trials, seconds=seconds, dry_run=dry_run, as_json=as_json, verbose=verbose
    )
    raise typer.Exit(code)
