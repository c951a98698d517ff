"""The command line: parse, call, print. What a command does is in the modules it calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unlearn_bench import __version__
from unlearn_bench.board.visible import visible
from unlearn_bench.errors import UnlearnBenchError, UsageError

app = typer.Typer(
    name="unlearn-bench",
    help="Compare methods that make language models forget, update or detoxify.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _ends_cleanly(command: Callable[..., None]) -> Callable[..., None]:
    """Turn known errors into a message and their exit code; Ctrl-C into 130."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UnlearnBenchError as error:
            typer.echo(f"error: {visible(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("cancelled", err=True)
            raise typer.Exit(130) from None

    return guarded


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unlearn-bench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
@_ends_cleanly
def evaluate(
    model: Annotated[
        str | None,
        typer.Option(
            help="The base model: an embedded name, a hub id with a revision (org/name@commit), "
            "a folder, a folder with a PEFT adapter, or a GGUF file. Default: smollm2-135m."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A target model of your own, to be edited as it is. No exact model is trained."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all. "
            "The unedited target (noop) always runs too: every delta is taken to it."
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="How much is asked: smoke, quick, full, or a YAML file. Default: quick."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Only these tasks, separated by commas: ours, any that lm-eval knows by name "
            "(mmlu, wmdp_bio), or an lm-eval task file by its path."
        ),
    ] = None,
    edit_set: Annotated[
        str | None,
        typer.Option(
            help="What the models learn and the methods edit: fur, or a public set in its place, "
            "such as tofu_forget10 or counterfact_100. Default: fur."
        ),
    ] = None,
    allow_task_code: Annotated[
        bool | None,
        typer.Option(
            "--allow-task-code", help="Let task files given by path run the code that they name."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items of each task.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="A number is how many seeds to run: 3 means 0, 1 and 2. "
            "A list means exactly those: 7,11. Write '7,' for the one seed 7."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.OPTION=VALUE", help="Set one option of a method. Repeatable."
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            help="The tuned.yaml of a tuning run: its winners stand above the defaults "
            "and below --set."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="auto, vllm or transformers. Auto takes vllm where it is installed."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="For evaluation: auto, mixed, float32, bfloat16 or float16. Mixed scores "
            "likelihoods in float32 and generates in bfloat16. Auto is bfloat16 on CUDA; on CPU "
            "it is mixed where vLLM runs and the CPU multiplies bfloat16, else float32."
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="Who judges toxicity: auto, or a name from 'list scorers'. "
            "Auto takes detoxify where its weights are found, else embedded, else "
            "profanity_check. Two with a "
            "comma: the first one's values are the board's, and how far the two agree."
        ),
    ] = None,
    scorer_checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A local checkpoint for the scorer: a file for detoxify, a folder for others. "
            "Of two scorers the first that takes one has it."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run's records. Default: runs.")
    ] = None,
    leaderboards: Annotated[
        Path | None,
        typer.Option(help="Folder of the leaderboards. Default: leaderboards, below the output."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file with any of these settings. "
            "The command line and UNLEARN_BENCH_* variables come before it."
        ),
    ] = None,
    offline: Annotated[
        bool | None,
        typer.Option("--offline", help="Use no network: caches, folders and bundled data only."),
    ] = None,
    keep_checkpoints: Annotated[
        bool | None,
        typer.Option("--keep-checkpoints", help="Keep every edited model in its cell's folder."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan with estimated time and memory, and stop there."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
) -> None:
    """Edit the target model with each method, evaluate, and write the leaderboard.

    Running the same command again computes only what is missing.
    """
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
        "scorer": scorer,
        "scorer_checkpoint": scorer_checkpoint,
        "output": output,
        "leaderboards": leaderboards,
        "offline": offline,
        "keep_checkpoints": keep_checkpoints,
    }
    from unlearn_bench.commands import run_evaluate

    raise typer.Exit(run_evaluate(given, file=config, dry_run=dry_run, verbose=verbose))


@app.command()
@_ends_cleanly
def tune(
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all. "
            "Those without a search space are left out, with a note."
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
    model: Annotated[
        str | None, typer.Option(help="The base model, as for evaluate. Default: smollm2-135m.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="A target model of your own. Gains are then measured without an exact."),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            help="What is asked of every trial: validation, or a YAML file with that part."
        ),
    ] = "validation",
    seed: Annotated[
        int, typer.Option(min=0, help="Of the draws, and of every trial's training and sampling.")
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.OPTION=VALUE", help="Fix an option: not drawn. Repeatable."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    dtype: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    scorer: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    scorer_checkpoint: Annotated[
        Path | None, typer.Option(help="A local checkpoint for the scorer.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the trials' records and of the winners.")
    ] = Path("runs/tune"),
    offline: Annotated[
        bool | None,
        typer.Option("--offline", help="Use no network: caches, folders and bundled data only."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be drawn, and stop there.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
) -> None:
    """Choose every method's options with the same budget, on items that no test suite asks.

    Running the same command again goes on where it was. Use the winners with evaluate --tuned.
    """
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
        "scorer": scorer,
        "scorer_checkpoint": scorer_checkpoint,
        "output": output,
        "offline": offline,
    }
    from unlearn_bench.commands import run_tune

    code = run_tune(given, trials=trials, seconds=seconds, dry_run=dry_run, verbose=verbose)
    raise typer.Exit(code)


@app.command()
@_ends_cleanly
def sequence(
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods by name or .py file, separated by commas, or all (those that can serve "
            "a request)."
        ),
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(
            help="What is asked for, one after another: forget or update, or the i-th of n parts "
            "of their subjects, as forget:1/2. Default: forget:1/2,update,forget:2/2."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The base model, as for evaluate. Default: smollm2-135m.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="A target model of your own. No exact model is trained."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="What is asked after every stage: a suite with fur, or a YAML file. "
            "Default: requests."
        ),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Only these tasks of the suite, separated by commas.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items of each task.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="A number of seeds, or a list, as for evaluate.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.OPTION=VALUE", help="Set one option of a method. Repeatable."
        ),
    ] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="The tuned.yaml of a tuning run, as for evaluate.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    dtype: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    scorer: Annotated[str | None, typer.Option(help="As for evaluate.")] = None,
    scorer_checkpoint: Annotated[
        Path | None, typer.Option(help="A local checkpoint for the scorer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run's records. Default: runs/sequence.")
    ] = None,
    leaderboards: Annotated[
        Path | None,
        typer.Option(help="Folder of the table. Default: leaderboards, below the output."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with any of these settings.")
    ] = None,
    offline: Annotated[
        bool | None,
        typer.Option("--offline", help="Use no network: caches, folders and bundled data only."),
    ] = None,
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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
) -> None:
    """Put requests to the same model one after another, and score all of them after each.

    Running the same command again computes only what is missing.
    """
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
        "scorer": scorer,
        "scorer_checkpoint": scorer_checkpoint,
        "output": output,
        "leaderboards": leaderboards,
        "offline": offline,
        "keep_checkpoints": keep_checkpoints,
    }
    from unlearn_bench.commands import run_sequence

    raise typer.Exit(run_sequence(given, file=config, dry_run=dry_run, verbose=verbose))


@app.command()
@_ends_cleanly
def verify(
    run: Annotated[Path, typer.Argument(help="The output folder of a run.", metavar="RUN")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    scorer_checkpoint: Annotated[
        Path | None, typer.Option(help="A local checkpoint for the scorer.")
    ] = None,
    rerun: Annotated[
        int, typer.Option(min=0, help="Also edit again and ask this many items of every cell.")
    ] = 0,
    methods: Annotated[
        str, typer.Option(help="Edit only these methods again, separated by commas.")
    ] = "",
    allow_task_code: Annotated[
        bool | None,
        typer.Option(
            "--allow-task-code", help="Let the run's task files run the code that they name."
        ),
    ] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help="Use no network.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
) -> None:
    """Work every score of a run out again from its stored answers.

    Ends with 1 when a score does not follow from the answers, with 3 when one could not be checked.
    """
    from unlearn_bench.commands import run_verify

    given = {
        "data": data,
        "offline": offline,
        "scorer_checkpoint": scorer_checkpoint,
        "allow_task_code": allow_task_code,
    }
    chosen = tuple(filter(None, methods.split(",")))
    raise typer.Exit(run_verify(run, given, rerun=rerun, methods=chosen, verbose=verbose))


@app.command()
@_ends_cleanly
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
        typer.Option(help="Only these metrics, separated by commas; * stands for any letters."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Compare two models on the items that both were asked: differences, intervals, verdicts.

    All seeds of a method count together. Two whole runs are compared method by method.
    """
    from unlearn_bench.gate_commands import run_compare

    patterns = tuple(filter(None, metrics.split(",")))
    code = run_compare(first, second, patterns=patterns, as_json=as_json, markdown=markdown)
    raise typer.Exit(code)


gate_app = typer.Typer(invoke_without_command=True)
app.add_typer(gate_app, name="gate")
AllowLimited = Annotated[
    bool, typer.Option("--allow-limited", help="Take runs whose suite was narrowed.")
]
AllowDirty = Annotated[
    bool,
    typer.Option("--allow-dirty", help="Go on though this package's source has uncommitted edits."),
]


@gate_app.callback()
@_ends_cleanly
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_limited: AllowLimited = False,
    allow_dirty: AllowDirty = False,
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    scorer_checkpoint: Annotated[
        Path | None, typer.Option(help="A local checkpoint for the scorer.")
    ] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help="Use no network.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
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
    )
    places = {"data": data, "scorer_checkpoint": scorer_checkpoint, "offline": offline}
    raise typer.Exit(run_gate(request, places, verbose=verbose))


@gate_app.command("init")
@_ends_cleanly
def gate_init(
    source: Annotated[
        str, typer.Argument(help="A run, RUN:METHOD, or a cell's folder.", metavar="RUN|CELL")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the two files that are written.")
    ],
    allow_limited: AllowLimited = False,
    allow_dirty: AllowDirty = False,
) -> None:
    """Write a baseline file to commit, and rules with margins from its noise to start from."""
    from unlearn_bench.gate_commands import run_gate_init

    code = run_gate_init(source, output, allow_limited=allow_limited, allow_dirty=allow_dirty)
    raise typer.Exit(code)


board_app = typer.Typer(no_args_is_help=True, help="Merge, validate and publish leaderboards.")
app.add_typer(board_app, name="board")


@board_app.command("merge")
@_ends_cleanly
def board_merge(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Output folders of runs, JSON files of boards, or folders of these.",
            metavar="DIR|FILE...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the leaderboards.")
    ] = Path("leaderboards"),
    apart: Annotated[
        bool,
        typer.Option("--apart", help="A board of its own for rows under another protocol."),
    ] = False,
) -> None:
    """Put runs of several models, machines and people on one board per model and suite.

    Rows that are there already stay. Rows under different protocols are refused, by field.
    """
    from unlearn_bench.board_commands import run_merge

    raise typer.Exit(run_merge(paths, output, apart=apart))


@board_app.command("validate")
@_ends_cleanly
def board_validate(
    files: Annotated[list[Path], typer.Argument(help="JSON files of boards.", metavar="FILE...")],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--run", help="A run's folder: rows must be its cells. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a board that somebody hands in, by row and column.

    Ends with 0 when nothing is, 1 on a fault, 2 on wrong usage.
    """
    from unlearn_bench.board_commands import run_validate

    raise typer.Exit(run_validate(files, runs or [], as_json=as_json))


@board_app.command("publish")
@_ends_cleanly
def board_publish(
    file: Annotated[Path, typer.Argument(help="The JSON file of a board.", metavar="FILE")],
    to: Annotated[str, typer.Option(help="The hub repository, owner/name. It must exist.")],
    kind: Annotated[
        str,
        typer.Option(help="dataset: the board's files; model: one row, in the model's card."),
    ] = "dataset",
    row: Annotated[
        str,
        typer.Option(help="For a model: METHOD, METHOD@SEED, or digits of a weights fingerprint."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, use no network.")
    ] = False,
) -> None:
    """Send a board to a hub dataset, or one row's results to a hub model's card."""
    from unlearn_bench.board_commands import run_publish

    raise typer.Exit(run_publish(file, to, kind, row, dry_run=dry_run))


@app.command()
@_ends_cleanly
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


@app.command()
@_ends_cleanly
def show(
    run: Annotated[Path, typer.Argument(help="The output folder of a run.", metavar="RUN")],
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


@app.command("list")
@_ends_cleanly
def list_command(
    kind: Annotated[
        str, typer.Argument(help="methods, tasks, suites, models or scorers.", metavar="KIND")
    ],
    file: Annotated[
        list[Path] | None, typer.Option(help="Also read this plugin file. Repeatable.")
    ] = None,
) -> None:
    """List what can be named on the command line."""
    from unlearn_bench.listing import list_entries

    for entry in list_entries(kind, tuple(file or ())):
        typer.echo(f"{entry.name}\n    {entry.summary}" if entry.summary else entry.name)
        for detail in entry.details:
            typer.echo(f"    {detail}")


@app.command()
@_ends_cleanly
def doctor(
    data: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of the data sets.")
    ] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help="Use no network.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")
    ] = False,
) -> None:
    """Say what is installed, which engine would run, what data is reachable, and the free disk."""
    from unlearn_bench.config import load_config
    from unlearn_bench.doctor import examine
    from unlearn_bench.runs.progress import silence_libraries

    silence_libraries(verbose=verbose)
    room = ""
    for finding in examine(load_config({"data": data, "offline": offline})):
        if finding.room != room:
            room = finding.room
            typer.echo(room)
        mark = {True: "ok", False: "!!", None: "  "}[finding.ok]
        typer.echo(f"  {mark} {finding.name}: {finding.state}")


def main() -> None:
    """Entry point of `unlearn-bench` and `python -m unlearn_bench`."""
    app()
