"""The work behind `compare` and `gate`: read what is stored, evaluate if need be, judge, say so."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.supervise import can_supervise, require_supervised, supervise

if TYPE_CHECKING:
    from unlearn_bench.board.gate import Report
    from unlearn_bench.compare.differences import Rows
    from unlearn_bench.compare.measures import Measure
    from unlearn_bench.compare.rules import Chosen, Rules
    from unlearn_bench.runs.baseline import Baseline
    from unlearn_bench.runs.plan import Plan
    from unlearn_bench.runs.sides import MeasuredCell, Side
    from unlearn_bench.runs.tree import Tree

EXIT_INCOMPLETE = 3
LOG_WIDTH = 180
BASELINE, RULES = "baseline.json", "gate.yaml"


@dataclass(frozen=True)
class GateRequest:
    """What `gate` was asked: baseline and candidate as named, and what is let pass or written."""

    baseline: str
    candidate: str
    rules: Path
    output: Path
    allow_limited: bool = False
    allow_dirty: bool = False
    junit: Path | None = None
    summary: Path | None = None
    as_json: bool = False
    time_limit: float | None = None


@dataclass(frozen=True)
class CompareRequest:
    """What `compare` was asked: both models as named, and how to show what differs. patterns: of
    metrics; output: where a model's records go that is not a run's yet.
    """

    first: str
    second: str
    output: Path
    patterns: Sequence[str] = ()
    as_json: bool = False
    markdown: bool = False
    time_limit: float | None = None


def run_compare(
    request: CompareRequest,
    given: Mapping[str, Any],
    *,
    verbose: bool,
    again: Sequence[str] = (),
) -> int:
    """Compare two models, or two runs method by method; return the exit code.

    given: where data and the scorer lie, and the suite, for models that have to be evaluated.
    again: as in `run_gate`. 3 when nothing of a pair could be compared. Raises UnlearnBenchError
    for what is refused.
    """
    from unlearn_bench.board.differences import (
        render_differences,
        render_differences_json,
        render_differences_markdown,
    )
    from unlearn_bench.runs.pairs import compare_pairs
    from unlearn_bench.runs.sides import is_stored

    if request.as_json and request.markdown:
        raise UsageError("--json and --markdown are two forms of one answer", next_step="give one")
    silence_libraries(verbose=verbose)
    reporter, stored = Reporter(), is_stored(request.first) and is_stored(request.second)
    try:
        if again and can_supervise() and not stored:
            return supervise(again, request.output, request.time_limit, reporter.say)
        require_supervised(request.time_limit)
        pairs = compare_pairs(_sides(request, given, reporter), request.patterns)
    except UnlearnBenchError as error:
        if request.as_json:
            _print_plain(render_differences_json((), error.what), _screen())
        raise
    if request.as_json or request.markdown:
        render = render_differences_json if request.as_json else render_differences_markdown
        _print_plain(render(pairs), _screen())
    else:
        _screen().print(render_differences(pairs))
    return 0 if all(pair.differences for pair in pairs) else EXIT_INCOMPLETE


def _sides(
    request: CompareRequest, given: Mapping[str, Any], reporter: Reporter
) -> list[tuple[Side, Side]]:
    """The stored models paired; what is no run or cell is a model, asked what the other one was."""
    from unlearn_bench.runs.pairs import pair_up
    from unlearn_bench.runs.sides import is_stored, read_side, read_sides

    named = (request.first, request.second)
    stored = [text for text in named if is_stored(text)]
    if len(stored) == len(named):
        return [*pair_up(read_sides(request.first), read_sides(request.second))]
    if stored and given.get("suite"):
        raise UsageError(
            f"--suite is for two models: here {stored[0]} says what is asked",
            next_step="leave out --suite",
        )
    from unlearn_bench.runs.candidate import evaluate_candidate
    from unlearn_bench.runs.launched import require_alone

    require_alone("compare")
    sides = {text: read_side(text) for text in stored}
    for text in named:
        if text not in sides:
            reporter.say(f"{text} is no run or cell: it is evaluated as a model")
            known = next(iter(sides.values()), None)
            plan = _plan_model(text, known, given, request.output, reporter)
            sides[text] = evaluate_candidate(plan, text, reporter)
    return [(sides[request.first], sides[request.second])]


def _plan_model(
    model: str, known: Side | None, given: Mapping[str, Any], output: Path, reporter: Reporter
) -> Plan:
    """known: what the model is compared with, if that was asked already."""
    from unlearn_bench.runs.candidate import plan_candidate, plan_first

    if known is None:
        return plan_first(model, given, output, reporter)
    if known.unscored:
        raise UnlearnBenchError(
            f"{known.label} has no scores to compare with: {known.unscored}",
            next_step="evaluate it again",
        )
    return plan_candidate(known, model, given, output, reporter, known.label)


def run_gate(
    request: GateRequest,
    given: Mapping[str, Any],
    *,
    verbose: bool,
    again: Sequence[str] = (),
) -> int:
    """Judge a candidate and say so everywhere that was asked for; return the exit code.

    given: where data and the scorer lie, for a candidate that has to be evaluated. again: a command
    that does the same in a child process, where there is one; a candidate that takes the process
    with it is then a cell that failed, and the reports say so. Raises UnlearnBenchError for what
    stopped the gate, after the reports say so too.
    """
    from unlearn_bench.runs.sides import is_stored

    silence_libraries(verbose=verbose)
    reporter = Reporter()
    stopped: UnlearnBenchError | None = None
    try:
        if again and can_supervise() and not is_stored(request.candidate):
            return supervise(again, request.output, request.time_limit, reporter.say)
        require_supervised(request.time_limit)
        report = _judge(request, given, reporter)
    except (Exception, SystemExit) as error:
        stopped = _known(error)
        report = _say_why(request, stopped)
    try:
        _write_reports(report, request)
        if stopped is None or request.as_json:
            _print_report(report, request)
    except (Exception, SystemExit) as error:  # rich ends the process with 1 on a closed pipe
        _give_up_output()
        raise stopped or _unexpected(error) from error
    if stopped is not None:
        raise stopped
    return report.code


def _give_up_output() -> None:
    """Let what stdout still holds go nowhere: Python would try it again at its end, and turn the
    exit code that is due into its own.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no file stands behind it
        return


def _known(error: Exception | SystemExit) -> UnlearnBenchError:
    """What stopped the gate, in words that are safe to print."""
    from unlearn_bench.board.inert import plain

    known = error if isinstance(error, UnlearnBenchError) else _unexpected(error)
    known.what, known.where = plain(known.what), plain(known.where)
    return known


def _say_why(request: GateRequest, error: UnlearnBenchError) -> Report:
    from unlearn_bench.board.gate import Report

    return Report(request.baseline, request.candidate, 0.0, error.exit_code, error=error.what)


def _judge(request: GateRequest, given: Mapping[str, Any], reporter: Reporter) -> Report:
    from unlearn_bench.board.gate import Report
    from unlearn_bench.compare.gate import SIDES, exit_code, judge
    from unlearn_bench.compare.rules import load_rules
    from unlearn_bench.runs.baseline import open_baseline
    from unlearn_bench.runs.pairs import require_comparable

    rules = load_rules(request.rules)
    baseline = open_baseline(request.baseline)
    notes = _allowed(request, baseline)
    chosen = _choose(rules, baseline.side)
    candidate = _candidate(request, baseline.side, given, reporter)
    notes += _allow_side(request, "the candidate", candidate)
    if candidate.unscored:
        scored: list[MeasuredCell] = []
        notes.append(f"the candidate has no scores: {candidate.unscored}")
    else:
        scored = list(candidate.cells)
        notes += require_comparable(baseline.side, candidate)
    here, there = ([cell.rows for cell in cells] for cells in (scored, baseline.side.cells))
    candidate_name, baseline_name = (
        f"{side} {file}"
        for side, file in zip(SIDES, (request.candidate, request.baseline), strict=True)
    )
    judgements = tuple(
        judge(chosen, there, here, rules.level, names=(candidate_name, baseline_name))
    )
    return Report(
        baseline=f"{request.baseline} ({_weights(baseline.side)})",
        candidate=f"{request.candidate} ({_weights(candidate)})",
        level=rules.level,
        code=exit_code(judgements),
        judgements=judgements,
        notes=tuple(notes),
    )


def _unexpected(error: BaseException) -> UnlearnBenchError:
    """A fault of ours or of a library is infrastructure: Python's own exit code 1 would call it a
    regression.
    """
    return UnlearnBenchError(f"the gate could not judge: {type(error).__name__}: {error}")


def _choose(rules: Rules, baseline: Side) -> list[Chosen]:
    from unlearn_bench.compare.gate import testable_metrics
    from unlearn_bench.compare.rules import choose_metrics

    measures = baseline.cells[0].measures
    rows = [cell.rows for cell in baseline.cells]
    return choose_metrics(rules, measures, testable_metrics(measures, rows))


def _candidate(
    request: GateRequest, baseline: Side, given: Mapping[str, Any], reporter: Reporter
) -> Side:
    """The stored candidate, or the model evaluated as the baseline was."""
    from unlearn_bench.runs.sides import is_stored, read_side

    if is_stored(request.candidate):
        return read_side(request.candidate)
    from unlearn_bench.runs.candidate import evaluate_candidate, plan_candidate
    from unlearn_bench.runs.launched import require_alone

    require_alone("gate")
    plan = plan_candidate(baseline, request.candidate, given, request.output, reporter)
    return evaluate_candidate(plan, request.candidate, reporter)


def _allowed(request: GateRequest, baseline: Baseline) -> list[str]:
    """Refuse what needs a flag; return what the report has to say of the source's state."""
    from unlearn_bench.runs.tree import source_tree

    now = source_tree()
    notes = [f"source: commit {now.commit or 'unknown'}"]
    notes += _refuse_dirty(request, now, "the source that runs here")
    notes += _allow_side(request, "the baseline", baseline.side)
    if baseline.tree:
        notes += _refuse_dirty(request, baseline.tree, "the source that wrote the baseline")
    return notes


def _allow_side(request: GateRequest, what: str, side: Side) -> list[str]:
    """Refuse what needs a flag in a run; return what to say of the source that made it."""
    _refuse_limited(request, what, side)
    if side.dirty:
        again = "evaluate it again from committed source, into another folder"
        _refuse_dirty(request, side.dirty, f"the source that made {what}", again)
    return [f"the source that made {what}: {side.source}"]


def _refuse_dirty(request: GateRequest, tree: Tree, whose: str, step: str = "") -> list[str]:
    """step: what to do where it is not what lies here that has to be committed."""
    if not tree.dirty:
        return []
    mute = not tree.commit
    what = f"git could not say whether {whose} is" if mute else f"{whose} is not"
    what += " that of its commit"
    if not request.allow_dirty:
        here = "see what `git status` says there" if mute else "commit or undo the changes"
        raise UsageError(what, next_step=f"{step or here}, or add --allow-dirty")
    return [what]


def _refuse_limited(request: GateRequest, what: str, side: Side) -> None:
    if side.limited and not request.allow_limited:
        raise UsageError(
            f"{what} is limited: its suite was narrowed ({side.cells[0].suite})",
            next_step="evaluate the whole suite, or add --allow-limited",
        )


def _weights(side: Side) -> str:
    found = {cell.weights or "no weights" for cell in side.cells}
    return ", ".join(sorted(weights.removeprefix("sha256:")[:12] for weights in found))


def _write_reports(report: Report, request: GateRequest) -> None:
    """JUnit, the summary and GitHub's annotations, as asked for or as GitHub's variables say."""
    from unlearn_bench.board.annotations import render_annotations
    from unlearn_bench.board.gate import render_gate_markdown
    from unlearn_bench.board.junit import render_junit
    from unlearn_bench.runs.store import write_file

    if request.junit is not None:
        write_file(request.junit, render_junit(report).encode("utf-8", "backslashreplace"))
    text = render_gate_markdown(report).encode("utf-8", "backslashreplace")
    if request.summary is not None:
        write_file(request.summary, text)
    elif step := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(step).open("ab") as stream:  # other steps write there too
            stream.write(text)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        error = Console(stderr=True, emoji=False)
        for line in render_annotations(report):
            _print_plain(f"{line}\n", error)


def _print_report(report: Report, request: GateRequest) -> None:
    from unlearn_bench.board.gate import render_gate, render_gate_json

    if request.as_json:
        _print_plain(render_gate_json(report), _screen())
    else:
        _screen().print(render_gate(report))


def _screen() -> Console:
    """As wide as the terminal; in a log, which has no width, wide enough for a table."""
    screen = Console(emoji=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = LOG_WIDTH
    return screen


def _print_plain(text: str, screen: Console) -> None:
    screen.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def run_gate_init(source: str, folder: Path, *, allow_limited: bool, allow_dirty: bool) -> int:
    """Write a baseline file and rules to start from; return the exit code.

    Rules that are already there are kept: they are somebody's decision. Raises UnlearnBenchError.
    """
    from unlearn_bench.board.starting_rules import render_rules
    from unlearn_bench.compare.noise import suggest_margin
    from unlearn_bench.compare.rules import DEFAULT_LEVEL
    from unlearn_bench.runs.baseline import open_baseline, write_baseline
    from unlearn_bench.runs.pairs import require_comparable
    from unlearn_bench.runs.store import write_file
    from unlearn_bench.runs.tree import source_tree

    request = GateRequest(source, "", Path(), folder, allow_limited, allow_dirty)
    baseline, screen = open_baseline(source), _screen()
    notes = _allowed(request, baseline)
    side = baseline.side
    require_comparable(side, replace(side, cells=side.cells[1:]))
    seeds, noise = [cell.rows for cell in side.cells], _noise(side)
    judged, left_out = _headlines(side, DEFAULT_LEVEL)
    suggestions = [suggest_margin(measure, seeds, noise) for measure in judged]
    write_baseline(folder / BASELINE, side, source_tree())
    written = [folder / BASELINE]
    if not (folder / RULES).exists():
        write_file(folder / RULES, render_rules(suggestions, left_out).encode())
        written.append(folder / RULES)
    else:
        notes.append(f"{RULES} is there already and was left as it is")
    for line in (*(f"note: {note}" for note in notes), *(f"wrote {path}" for path in written)):
        _print_plain(f"{line}\n", screen)
    return 0


def _noise(side: Side) -> list[Rows]:
    """Rows of several seeds of one unchanged model: the baseline's own, else its run's noop."""
    from unlearn_bench.compare.same_protocol import mismatches
    from unlearn_bench.runs.plan import TARGET
    from unlearn_bench.runs.sides import read_sides

    if len(side.cells) > 1 or side.run is None:
        return [cell.rows for cell in side.cells]
    try:
        cells = read_sides(f"{side.run}:{TARGET}")[TARGET].cells
    except UsageError:  # no noop there, or several of one seed
        return []
    alike = [
        cell for cell in cells if cell.scored and not mismatches(side.cells[0].facts, cell.facts)
    ]
    return [cell.rows for cell in alike]


def _headlines(side: Side, level: float) -> tuple[list[Measure], list[tuple[str, str]]]:
    """Headline metrics that a gate can judge, and the others with the reason."""
    from unlearn_bench.compare.noise import can_fail
    from unlearn_bench.compare.rules import Rule, Rules

    shown = {measure.name for measure in side.cells[0].measures if measure.headline}
    every = _choose(Rules(metrics={"*": Rule(margin=0.0)}), side)
    headline = [one for one in every if one.measure.name in shown]
    left_out = [(one.measure.name, one.unjudged) for one in headline if one.unjudged]
    able = [one.measure for one in headline if not one.unjudged]
    rows = [cell.rows for cell in side.cells]
    judged = [measure for measure in able if can_fail(measure, rows, level / len(able))]
    few = "too few independent items with a value for any loss to fail"
    left_out += [(measure.name, few) for measure in able if measure not in judged]
    if not judged:
        raise UsageError(
            "the baseline has no headline metric that a gate can judge: "
            + "; ".join(f"{name}: {reason}" for name, reason in left_out),
            next_step="evaluate with a larger suite",
        )
    return judged, left_out
