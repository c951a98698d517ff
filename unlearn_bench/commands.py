"""The work behind the commands that need models: configure, plan, execute, publish, say so."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unlearn_bench.config import OWN_SET, RunConfig, load_config
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs.launched import is_helper, is_launched
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.supervise import can_supervise, require_supervised, supervise
from unlearn_bench.schema import FAILED

if TYPE_CHECKING:
    from unlearn_bench.runs.contract import CellResult, Keep, Steps
    from unlearn_bench.runs.detectable import Detectable
    from unlearn_bench.runs.estimate import Estimate
    from unlearn_bench.runs.plan import Plan
    from unlearn_bench.runs.tune import Tuning
    from unlearn_bench.runs.verify import Finding

EXIT_FAILED, EXIT_INCOMPLETE = 1, 3
SEQUENCE_DEFAULTS = {"suite": "requests", "output": "runs/sequence"}


def run_evaluate(
    given: Mapping[str, Any],
    *,
    file: Path | None,
    dry_run: bool,
    as_json: bool = False,
    verbose: bool,
    again: Sequence[str] = (),
) -> int:
    """Run the main job with what the command line gave; return the exit code.

    again: a command that does the same in a child process, where there is one. Raises
    UnlearnBenchError before any expensive work for everything that cannot be done.
    """
    _require_dry_run(dry_run=dry_run, as_json=as_json)
    config = load_config(given, file=file)
    if config.executor == "local" and not dry_run:
        if again and can_supervise():
            return supervise(again, config.output, config.time_limit, Reporter().say)
        require_supervised(config.time_limit)
    silence_libraries(verbose=verbose)
    from unlearn_bench.runs.resolve import resolve_plan
    from unlearn_bench.runs.steps import ModelSteps
    from unlearn_bench.runs.together import edit_together

    reporter = Reporter(Console(stderr=True, quiet=is_helper(), emoji=False))
    settings = config.model_dump(mode="json", exclude_none=True)
    if is_launched() and not dry_run:
        shared = edit_together(lambda: resolve_plan(config, reporter), reporter)
        return _evaluate(shared.plan, lambda: shared, settings, reporter) if shared else 0
    plan = resolve_plan(config, reporter)
    if dry_run:
        print_plan(plan, Console(quiet=is_helper(), emoji=False), as_json=as_json)
        return 0
    return _evaluate(plan, lambda: ModelSteps(plan, reporter.say), settings, reporter)


def _evaluate(
    plan: Plan,
    open_steps: Callable[[], Steps],
    settings: Mapping[str, Any],
    reporter: Reporter,
) -> int:
    from unlearn_bench.board.publish import publish
    from unlearn_bench.board.table import other_targets
    from unlearn_bench.board.terminal import print_board
    from unlearn_bench.runs.estimate import estimate_cells
    from unlearn_bench.runs.execute import execute
    from unlearn_bench.runs.mirror import Mirror
    from unlearn_bench.runs.settings import write_settings

    screen = Console(emoji=False)
    for note in plan.notes:
        reporter.say(f"note: {note}")
    mirror = Mirror(settings["mirror"]) if settings.get("mirror") else None
    for label in mirror.take_over(plan) if mirror else ():
        reporter.say(f"{label}: taken over from {settings['mirror']}")
    keep = mirror.keep if mirror else lambda result: None
    estimates = estimate_cells(plan)
    if settings.get("executor") == "ray":
        results = _on_ray(plan, settings, reporter, estimates, keep)
    else:
        results = execute(plan, open_steps, reporter, estimates, keep)
    write_settings(plan.output, settings)
    board, paths = publish(plan, results)
    if mirror:
        mirror.keep_files(paths, plan.output)
    print_board(board, screen)
    for note in other_targets(board):
        reporter.say(note)
    for path in paths:
        screen.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    return exit_code(results)


def _on_ray(
    plan: Plan,
    settings: Mapping[str, Any],
    reporter: Reporter,
    estimates: Sequence[Estimate],
    keep: Keep,
) -> list[CellResult]:
    try:
        from unlearn_bench.runs.cluster import execute_on_ray
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--executor ray needs Ray, and {error.name} is not installed",
            next_step="pip install 'unlearn-bench[ray]'",
        ) from error
    return execute_on_ray(plan, settings, reporter, estimates, keep)


def run_tune(
    given: Mapping[str, Any],
    *,
    trials: int,
    seconds: float,
    dry_run: bool,
    as_json: bool = False,
    verbose: bool,
) -> int:
    """Choose options for every method with the same budget; return the exit code.

    trials: of each method; seconds: after which a method begins no further one. Raises
    UnlearnBenchError before any expensive work for everything that cannot be done.
    """
    from unlearn_bench.runs.plan import EXACT, TARGET

    _require_dry_run(dry_run=dry_run, as_json=as_json)
    if not math.isfinite(seconds):
        raise UsageError("the budget must be a finite number of seconds")
    config = load_config(given)
    if config.tuned is not None:
        raise UsageError(
            "tuning starts from the defaults and takes no tuned options",
            next_step="unset UNLEARN_BENCH_TUNED; fix an option with --set",
        )
    _require_own_set(config, "no public set keeps items for choosing options")
    _require_here(config, "tune")
    silence_libraries(verbose=verbose)
    reporter, screen = Reporter(), Console(emoji=False)
    measures = (TARGET,) if config.target else (TARGET, EXACT)
    config = config.model_copy(update={"methods": (*measures, *config.methods)})
    from unlearn_bench.runs.launched import require_alone
    from unlearn_bench.runs.resolve import resolve_plan
    from unlearn_bench.runs.tune import plan_tuning, tune
    from unlearn_bench.runs.tuned import Budget

    require_alone("tune")
    plan = resolve_plan(config, reporter, part="validation")
    tuning = plan_tuning(plan, Budget(trials=trials, seconds=seconds), config.set)
    if dry_run:
        print_tuning_plan(tuning, screen, as_json=as_json)
        return 0
    from unlearn_bench.board.tuning import print_tuning, publish_tuning, read_recorded
    from unlearn_bench.runs.steps import ModelSteps

    recorded = read_recorded(plan.output)
    for note in tuning.plan.notes:
        reporter.say(f"note: {note}")
    open_steps = functools.partial(ModelSteps, tuning.plan, reporter.say)
    tune(tuning, open_steps, reporter, publish_tuning, recorded)
    print_tuning(tuning, screen)
    for path in publish_tuning(tuning):
        screen.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    found = all(own.best for own in tuning.methods.values())
    return 0 if found else EXIT_INCOMPLETE


def run_verify(
    run: Path,
    given: Mapping[str, Any],
    *,
    rerun: int,
    methods: Sequence[str],
    as_json: bool,
    verbose: bool,
) -> int:
    """Verify a run's cells and say what was found; return the exit code.

    rerun: items per cell that are asked again of models edited again, those of `methods` or all.
    """
    config = load_config(given)
    silence_libraries(verbose=verbose)
    from unlearn_bench.data.options import SourceOptions
    from unlearn_bench.runs.resolve import data_folder
    from unlearn_bench.runs.verify import verify_run

    reporter = Reporter()
    findings = verify_run(
        run,
        SourceOptions(data_folder=data_folder(config.data), offline=config.offline),
        scorer_checkpoint=config.scorer_checkpoint,
        guard=config.guard or _guard_of(run),
        allow_code=config.allow_task_code,
        say=reporter.say,
    )
    if rerun:
        findings += _rerun(run, given, rerun, methods, reporter)
    _print_findings(findings, as_json=as_json)
    if any(finding.wrong for finding in findings):
        return EXIT_FAILED
    return EXIT_INCOMPLETE if any(finding.unchecked for finding in findings) else 0


def _guard_of(run: Path) -> str | None:
    """The guard model that the run was given, where it still says so."""
    from unlearn_bench.runs.settings import read_settings

    try:
        return read_settings(run).get("guard")
    except UnlearnBenchError:
        return None


def _print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    screen = Console(markup=False, highlight=False, soft_wrap=True, emoji=False)
    if as_json:
        screen.print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    for finding in findings:
        verdict = "wrong" if finding.wrong else "in part" if finding.unchecked else "right"
        counts = f"{finding.status}, {finding.samples} answers, {finding.scores} scores"
        lines = [f"{finding.cell}: {verdict} ({counts})"]
        lines += [f"  wrong: {text}" for text in finding.wrong]
        lines += [f"  not checked: {text}" for text in finding.unchecked]
        screen.print("\n".join(lines))
    wrong = sum(bool(finding.wrong) for finding in findings)
    partly = sum(bool(finding.unchecked) for finding in findings)
    screen.print(f"{len(findings)} cells: {wrong} wrong, {partly} not wholly checked")


def _rerun(
    run: Path, given: Mapping[str, Any], items: int, methods: Sequence[str], reporter: Reporter
) -> list[Finding]:
    from unlearn_bench.runs.rerun import rerun
    from unlearn_bench.runs.resolve import resolve_plan
    from unlearn_bench.runs.settings import read_settings

    told = {name: value for name, value in given.items() if value is not None}
    config = load_config({**read_settings(run), **told})
    return rerun(resolve_plan(config, reporter), items, methods, reporter)


def run_sequence(
    given: Mapping[str, Any],
    *,
    file: Path | None,
    dry_run: bool,
    as_json: bool = False,
    verbose: bool,
) -> int:
    """Serve requests one after another with every method; return the exit code.

    Raises UnlearnBenchError before any expensive work for everything that cannot be done.
    """
    _require_dry_run(dry_run=dry_run, as_json=as_json)
    config = load_config(given, file=file, defaults=SEQUENCE_DEFAULTS)
    silence_libraries(verbose=verbose)
    reporter, screen = Reporter(), Console(emoji=False)
    from unlearn_bench.data.fur import load_fur
    from unlearn_bench.runs.launched import require_alone
    from unlearn_bench.runs.requests import parse_requests
    from unlearn_bench.runs.resolve import resolve_plan
    from unlearn_bench.runs.sequence import execute_sequence, plan_sequence

    _require_own_set(config, "the requests name subjects of fur")
    _require_here(config, "sequence")
    require_alone("sequence")
    requests = parse_requests(config.requests, load_fur())
    plan = resolve_plan(config, reporter)
    sequence = plan_sequence(plan, requests, lenient="all" in config.methods)
    if dry_run:
        print_plan(sequence.plan, screen, as_json=as_json)
        return 0
    from unlearn_bench.board.sequence import print_sequence_board, publish_sequence
    from unlearn_bench.runs.stage_steps import StageSteps

    for note in sequence.plan.notes:
        reporter.say(f"note: {note}")
    result = execute_sequence(sequence, lambda: StageSteps(sequence.plan, reporter.say), reporter)
    board, paths = publish_sequence(sequence, result)
    print_sequence_board(board, screen)
    for path in paths:
        screen.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    return exit_code(result.computed)


def _require_dry_run(*, dry_run: bool, as_json: bool) -> None:
    if as_json and not dry_run:
        raise UsageError(
            "--json prints the plan, and nothing is only planned here",
            next_step="add --dry-run; what a run came to is in its boards' JSON",
        )


def _require_own_set(config: RunConfig, why: str) -> None:
    if config.edit_set != OWN_SET:
        raise UsageError(
            f"{config.edit_set!r} cannot stand in the place of fur here: {why}",
            next_step="leave out edit_set; unset UNLEARN_BENCH_EDIT_SET",
        )


def _require_here(config: RunConfig, command: str) -> None:
    """Raise UsageError for what only `evaluate` can do, when the environment or a file asks it."""
    for name in ("executor", "mirror", "time_limit"):
        if getattr(config, name) != RunConfig.model_fields[name].default:
            raise UsageError(
                f"only evaluate has the setting {name}: {command} takes no {name}",
                next_step=f"unset UNLEARN_BENCH_{name.upper()}, or leave it out of --config",
            )


def exit_code(results: Sequence[CellResult]) -> int:
    """1 when a cell failed or diverged, else 3 when one has missing values, else 0."""
    statuses = {result.record.status for result in results}
    if statuses.intersection(FAILED):
        return EXIT_FAILED
    return 0 if statuses <= {"success"} else EXIT_INCOMPLETE


def print_tuning_plan(tuning: Tuning, console: Console, *, as_json: bool = False) -> None:
    """The methods with what will be drawn, and the budget. Nothing has run."""
    from unlearn_bench.board.plan_json import render_tuning_plan
    from unlearn_bench.runs.estimate import minutes
    from unlearn_bench.runs.outlook import look_ahead_of_tuning

    plan, budget, say = tuning.plan, tuning.budget, console.print
    ahead = look_ahead_of_tuning(tuning)
    if as_json:
        text = render_tuning_plan(tuning, ahead)
        say(text, markup=False, highlight=False, soft_wrap=True)
        return
    print_setting(plan, console)
    for cell in plan.cells:
        if own := tuning.methods.get(cell.method):
            space = "; ".join(f"{name} {part}" for name, part in own.space.items())
            line = f"tune    {own.method:<28} {', '.join(own.goals)}: {space}"
            say(line, markup=False, highlight=False, soft_wrap=True)
    for note in plan.notes:
        say(f"note    {note}", markup=False, highlight=False, soft_wrap=True)
    line = (
        f"total   {len(tuning.methods)} x {budget.trials} trials within {budget.seconds:g} s each, "
        f"{minutes(ahead.seconds)}, estimated; finished trials are not run again"
    )
    if first := ahead.preparation:
        line += f"; preparing the models takes {minutes(first)} more where they are not cached"
    say(line, highlight=False, soft_wrap=True)


def print_setting(plan: Plan, console: Console) -> None:
    """Model, suite, engine and data."""
    say = console.print
    say(f"model   {plan.model.label}", markup=False, highlight=False)
    say(f"suite   {plan.suite.name}: {', '.join(plan.protocols)}", markup=False, highlight=False)
    scorer = f"{plan.scorer['name']} {plan.scorer['version']}"
    if plan.second is not None:
        scorer += f" beside {plan.second.identity['name']} {plan.second.identity['version']}"
    say(
        f"engine  {plan.engine_text}, {plan.dtype}; scorer {scorer}; output {plan.output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for task, origin in plan.origins.items():
        line = f"data    {task}: {origin.source}, revision {origin.revision}"
        say(line, markup=False, highlight=False, soft_wrap=True)


def print_plan(plan: Plan, console: Console, *, as_json: bool = False) -> None:
    """The cells with what each is expected to cost. Nothing has run."""
    from unlearn_bench.board.plan_json import render_plan
    from unlearn_bench.runs.detectable import detectable_effects
    from unlearn_bench.runs.estimate import minutes
    from unlearn_bench.runs.outlook import look_ahead

    say = console.print
    ahead = look_ahead(plan)
    if as_json:
        text = render_plan(plan, ahead, detectable_effects(plan))
        say(text, markup=False, highlight=False, soft_wrap=True)
        return
    print_setting(plan, console)
    for one in ahead.cells:
        cell, estimate = one.cell, one.estimate
        basis = "done" if one.done else "measured before" if estimate.measured else "estimated"
        say(
            f"cell    {cell.label:<38} edit {estimate.edit_seconds:6.0f} s   "
            f"evaluate {estimate.evaluate_seconds:6.0f} s   "
            f"memory {estimate.memory_bytes / 2**30:4.1f} GiB   {basis}   {cell.key[:12]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    print_detectable(plan, console)
    for note in plan.notes:
        say(f"note    {note}", markup=False, highlight=False, soft_wrap=True)
    cells = f"{len(plan.cells)} cell{'s' if len(plan.cells) > 1 else ''}"
    cells += f" of which {ahead.done} done; the rest" if ahead.done else ","
    line = f"total   {cells} {minutes(ahead.seconds)}, estimated; finished cells are not run again"
    if first := ahead.preparation:
        line += f"; preparing the models takes {minutes(first)} more where they are not cached"
    say(line, highlight=False, soft_wrap=True)


def print_detectable(plan: Plan, console: Console) -> None:
    """What a difference must be to be seen: per headline column, for its items in this suite."""
    from unlearn_bench.runs.detectable import detectable_effects, seed_count

    entries = detectable_effects(plan)
    width = max((len(entry.column) for entry in entries), default=0)
    heading = "what a true difference from the target must be for the paired test at 5 % to see it "
    seeds = seed_count(plan)
    test = f"{seeds} seeds, Student's t over them" if seeds > 1 else "one seed"
    lines = [heading + f"four times in five ({test}; groups: what is drawn together)"]
    for entry in entries:
        size = f"{entry.items:5} items {entry.clusters:5} groups"
        lines.append(f"{entry.column:<{width}} {size}   {_effect(entry)}")
    for line in lines if entries else ():
        console.print(f"seen    {line}", markup=False, highlight=False, soft_wrap=True)


def _effect(entry: Detectable) -> str:
    if math.isnan(entry.effect):
        return "not known: no run has measured how much it varies"
    if math.isinf(entry.effect):
        return "none is seen: too few groups"
    size = f"{entry.effect:.0%} of the value" if entry.relative else f"{entry.effect:.3f}"
    if not entry.source:
        return f"at most {size}: no run has measured how much it varies"
    pairs = f"{entry.pairs} pair{'s' if entry.pairs > 1 else ''} of models"
    return f"{size:<16} from {pairs} on {entry.source}"
