"""The work behind `unlearn-bench evaluate`: configure, plan, execute, publish, and say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unlearn_bench.config import load_config
from unlearn_bench.runs.progress import Reporter, silence_libraries

if TYPE_CHECKING:
    from unlearn_bench.runs.execute import CellResult
    from unlearn_bench.runs.plan import Plan

EXIT_FAILED, EXIT_INCOMPLETE = 1, 3


def run_evaluate(
    given: Mapping[str, Any], *, file: Path | None, dry_run: bool, verbose: bool
) -> int:
    """Run the main job with what the command line gave; return the exit code.

    Raises UnlearnBenchError before any expensive work for everything that cannot be done.
    """
    config = load_config(given, file=file)
    silence_libraries(verbose=verbose)
    reporter, screen = Reporter(), Console()
    from unlearn_bench.runs.resolve import resolve_plan

    plan = resolve_plan(config, reporter)
    if dry_run:
        print_plan(plan, screen)
        return 0
    from unlearn_bench.board.publish import publish
    from unlearn_bench.board.terminal import print_board
    from unlearn_bench.runs.execute import execute
    from unlearn_bench.runs.steps import ModelSteps

    for note in plan.notes:
        reporter.say(f"note: {note}")
    results = execute(plan, lambda: ModelSteps(plan, reporter.say), reporter)
    board, paths = publish(plan, results)
    print_board(board, screen)
    for path in paths:
        screen.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    return exit_code(results)


def exit_code(results: Sequence[CellResult]) -> int:
    """1 when a cell failed, else 3 when one has missing values, else 0."""
    statuses = {result.record.status for result in results}
    if "failed" in statuses:
        return EXIT_FAILED
    return 0 if statuses <= {"success"} else EXIT_INCOMPLETE


def print_plan(plan: Plan, console: Console) -> None:
    """The cells with what each is expected to cost. Nothing has run."""
    from unlearn_bench.runs.estimate import estimate_cells, estimate_preparation

    say = console.print
    say(f"model   {plan.model.label}", markup=False, highlight=False)
    say(f"suite   {plan.suite.name}: {', '.join(plan.protocols)}", markup=False, highlight=False)
    scorer = f"{plan.scorer['name']} {plan.scorer['version']}"
    say(
        f"engine  {plan.engine}, {plan.dtype}; scorer {scorer}; output {plan.output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for task, origin in plan.origins.items():
        line = f"data    {task}: {origin.source}, revision {origin.revision}"
        say(line, markup=False, highlight=False, soft_wrap=True)
    total = 0.0
    for cell, estimate in zip(plan.cells, estimate_cells(plan), strict=True):
        total += estimate.seconds
        basis = "measured before" if estimate.measured else "estimated"
        say(
            f"cell    {cell.method:<28} seed {cell.seed:<4} edit {estimate.edit_seconds:6.0f} s   "
            f"evaluate {estimate.evaluate_seconds:6.0f} s   "
            f"memory {estimate.memory_bytes / 2**30:4.1f} GiB   {basis}   {cell.key[:12]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for note in plan.notes:
        say(f"note    {note}", markup=False, highlight=False, soft_wrap=True)
    cells = f"{len(plan.cells)} cell{'s' if len(plan.cells) > 1 else ''}"
    line = f"total   {cells}, {_minutes(total)}, estimated; finished cells are not run again"
    if first := estimate_preparation(plan):
        line += f"; preparing the models takes {_minutes(first)} more where they are not cached"
    say(line, highlight=False, soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 60 else "less than a minute"
