"""`unlearn-bench sequence`: several requests to one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.complete import complete_names
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples(
        "sequence --methods npo,llm_surgery --dry-run",
        "sequence --methods grad_diff --requests forget:1/3,forget:2/3,forget:3/3",
    )
)
@ends_cleanly
def sequence(
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all (those that can serve "
            "a request).",
            autocompletion=complete_names("methods", "all"),
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(
            help="What is asked for, one after another: forget or update, or the i-th of n parts "
            "of their subjects, as forget:1/2. Default: forget:1/2,update,forget:2/2.",
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    model: options.Model = None,
    target: options.Target = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="What is asked after every stage: a suite with fur, or a YAML file. "
            "Default: requests.",
            autocompletion=complete_names("suites"),
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    tasks: options.Tasks = None,
    limit: options.Limit = None,
    seeds: options.Seeds = None,
    settings: options.Settings = None,
    tuned: options.Tuned = None,
    data: options.Data = None,
    engine: options.Engine = None,
    dtype: options.Dtype = None,
    engine_args: options.EngineArgs = None,
    scorer: options.Scorer = None,
    scorer_checkpoint: options.ScorerCheckpoint = None,
    guard: options.Guard = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run's records. Default: runs/sequence.")
    ] = None,
    leaderboards: options.Leaderboards = None,
    config: options.Config = None,
    offline: options.Offline = None,
    keep_checkpoints: Annotated[
        bool | None,
        typer.Option("--keep-checkpoints", help="Keep the model of every stage."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the stages with estimated time and memory, and stop there."
        ),
    ] = False,
    as_json: options.PlanAsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Put requests to the same model one after another, and score all of them after each.

    Running the same command again computes only what is missing.
    """
    from unlearn_bench.commands import run_sequence

    given = {
        "model": model,
        "target": target,
        "methods": methods,
        "requests": requests,
        "suite": suite,
        "tasks": tasks,
        "limit": limit,
        "seeds": seeds,
        "set": settings or None,
        "tuned": tuned,
        "data": data,
        "engine": engine,
        "dtype": dtype,
        "engine_args": engine_args or None,
        "scorer": scorer,
        "scorer_checkpoint": scorer_checkpoint,
        "guard": guard,
        "output": output,
        "leaderboards": leaderboards,
        "offline": offline,
        "keep_checkpoints": keep_checkpoints,
    }
    raise typer.Exit(
        run_sequence(given, file=config, dry_run=dry_run, as_json=as_json, verbose=verbose)
    )
