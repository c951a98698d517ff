"""`unlearn-bench evaluate`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.complete import complete_names
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(
    epilog=examples(
        "evaluate --methods all --dry-run",
        "evaluate --methods npo,grad_diff --set npo.beta=0.2 --seeds 3",
        "evaluate --target edited-model/ --methods noop",
    )
)
@ends_cleanly
def evaluate(
    context: typer.Context,
    model: options.Model = None,
    target: options.Target = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all. "
            "The unedited target (noop) always runs too: every delta is taken to it.",
            autocompletion=complete_names("methods", "all"),
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    suite: options.Suite = None,
    tasks: options.Tasks = None,
    edit_set: Annotated[
        str | None,
        typer.Option(
            help="What the models learn and the methods edit: fur, or a public set in its place, "
            "such as tofu_forget10 or counterfact_100. Default: fur.",
            rich_help_panel=options.EDITED,
        ),
    ] = None,
    allow_task_code: options.AllowTaskCode = None,
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
        Path | None, typer.Option(help="Folder of the run's records. Default: runs.")
    ] = None,
    leaderboards: options.Leaderboards = None,
    config: options.Config = None,
    offline: options.Offline = None,
    keep_checkpoints: Annotated[
        bool | None,
        typer.Option("--keep-checkpoints", help="Keep every edited model in its cell's folder."),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Who computes the cells: local, one after another on this machine; or ray, on the "
            "cluster that RAY_ADDRESS names, else on all of this machine."
        ),
    ] = None,
    time_limit: options.TimeLimit = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            help="A second place for the results, such as s3://bucket/run: cells that are finished "
            "there are taken over, and every cell and board is copied there as it ends."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan with estimated time and memory, and stop there."
        ),
    ] = False,
    as_json: options.PlanAsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Edit the target model with each method, evaluate, and write the leaderboard.

    Running the same command again computes only what is missing.
    """
    from unlearn_bench.commands import run_evaluate

    given = {
        "model": model,
        "target": target,
        "methods": methods,
        "suite": suite,
        "edit_set": edit_set,
        "allow_task_code": allow_task_code,
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
        "executor": executor,
        "time_limit": time_limit,
        "mirror": mirror,
    }
    raise typer.Exit(
        run_evaluate(
            given,
            file=config,
            dry_run=dry_run,
            as_json=as_json,
            verbose=verbose,
            again=context.obj or (),
        )
    )
