"""`unlearn-bench gate`: what CI obeys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples
from unlearn_bench.errors import UsageError

gate_app = typer.Typer(invoke_without_command=True)
app.add_typer(gate_app, name="gate")


@gate_app.callback(
    epilog=examples(
        "gate init runs:noop -o gate/",
        "gate --baseline gate/baseline.json --rules gate/gate.yaml --candidate edited-model/",
        "gate --baseline runs:noop --rules gate/gate.yaml --candidate runs:npo --junit gate.xml",
    )
)
@ends_cleanly
def gate(
    context: typer.Context,
    baseline: Annotated[
        str | None,
        typer.Option(help="A file that 'gate init' wrote, a run, RUN:METHOD, or a cell's folder."),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            help="A model (folder or hub id), which is evaluated as the baseline was; or a run, "
            "RUN:METHOD, or a cell's folder, and nothing is evaluated."
        ),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="YAML: which metrics may lose how much.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the records of a candidate that is evaluated.")
    ] = Path("runs/gate"),
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Write Markdown to this file. Default: add it to $GITHUB_STEP_SUMMARY."),
    ] = None,
    as_json: options.AsJson = False,
    allow_limited: options.AllowLimited = False,
    allow_dirty: options.AllowDirty = False,
    data: options.Data = None,
    scorer_checkpoint: options.ScorerCheckpoint = None,
    guard: options.Guard = None,
    offline: options.Offline = None,
    time_limit: options.TimeLimit = None,
    verbose: options.Verbose = False,
) -> None:
    """Pass or fail an edited model against a baseline, for CI.

    Ends with 0 on a pass, 1 on a regression, 2 on wrong usage, 3 when something is missing or could
    not run, 4 on an artefact that would run code.
    """
    if context.invoked_subcommand:
        return
    if not baseline or not candidate or rules is None:
        raise UsageError(
            "gate needs --baseline, --candidate and --rules", next_step="unlearn-bench gate --help"
        )
    from unlearn_bench.gate_commands import GateRequest, run_gate

    request = GateRequest(
        baseline=baseline,
        candidate=candidate,
        rules=rules,
        output=output,
        allow_limited=allow_limited,
        allow_dirty=allow_dirty,
        junit=junit,
        summary=summary,
        as_json=as_json,
        time_limit=time_limit,
    )
    places = {
        "data": data,
        "scorer_checkpoint": scorer_checkpoint,
        "guard": guard,
        "offline": offline,
    }
    again = context.obj or ()
    raise typer.Exit(run_gate(request, places, verbose=verbose, again=again))


@gate_app.command("init", epilog=examples("gate init runs:noop -o gate/"))
@ends_cleanly
def gate_init(
    source: Annotated[
        str, typer.Argument(help="A run, RUN:METHOD, or a cell's folder.", metavar="RUN|CELL")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the two files that are written.")
    ],
    allow_limited: options.AllowLimited = False,
    allow_dirty: options.AllowDirty = False,
) -> None:
    """Write a baseline file to commit, and rules with margins from its noise to start from."""
    from unlearn_bench.gate_commands import run_gate_init

    code = run_gate_init(source, output, allow_limited=allow_limited, allow_dirty=allow_dirty)
    raise typer.Exit(code)
