"""Ask a model exactly what another was asked, for a gate or a comparison that is given weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlearn_bench.compare.same_protocol import require_same_protocol
from unlearn_bench.config import OWN_SET, load_config
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.judge import NONE, without_guard
from unlearn_bench.runs.plan import TARGET, Plan, check_output
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.settings import read_settings, write_settings
from unlearn_bench.runs.sides import MeasuredCell, Side, read_cell
from unlearn_bench.runs.store import write_file

SUITE = "suite.yaml"
# Settings of the baseline's run that say where things lie.
FOLDERS = ("data", "scorer_checkpoint", "guard")


def plan_first(model: str, given: Mapping[str, Any], output: Path, reporter: Reporter) -> Plan:
    """The plan that asks `model` a suite, where there is nothing yet to compare it with."""
    from unlearn_bench.runs.resolve import resolve_plan

    told = {name: value for name, value in given.items() if value is not None}
    config = load_config({**told, "target": model, "methods": TARGET, "output": str(output)})
    plan = resolve_plan(config, reporter)
    write_settings(plan.output, config.model_dump(mode="json", exclude_none=True))
    return plan


def plan_candidate(
    baseline: Side,
    model: str,
    given: Mapping[str, Any],
    output: Path,
    reporter: Reporter,
    called: str = "the baseline",
) -> Plan:
    """The plan that asks `model` what the baseline was asked, with the same seeds.

    given: where data and the scorer's checkpoint lie, and whether to stay offline. called: what
    people call the baseline. Raises
    IncomparableError, before anything is computed, where this installation would ask or score
    otherwise; UnsafeArtefactError for a model that would run code.
    """
    from unlearn_bench.runs.resolve import resolve_plan

    first = baseline.cells[0]
    suite = check_output(output) / SUITE
    write_file(suite, yaml.safe_dump(suite_of(first), sort_keys=False).encode())
    told = {name: value for name, value in given.items() if value is not None}
    settings = {**_folders(baseline), **told, **_settings(first), "suite": str(suite)}
    settings |= {"target": model, "methods": TARGET, "output": str(output)}
    settings["seeds"] = [cell.seed for cell in baseline.cells]
    config = load_config(settings)
    plan = resolve_plan(config, reporter, part=first.facts["suite"].get("part", "test"))
    known = {**plan.cells[0].determinants, "decoding": {}}  # known once something was generated
    require_same_protocol(first.facts, known, (called, "this installation"))
    write_settings(plan.output, config.model_dump(mode="json", exclude_none=True))
    return plan


def evaluate_candidate(plan: Plan, label: str, reporter: Reporter) -> Side:
    """Ask the model; a finished cell is not asked again."""
    from unlearn_bench.runs.steps import ModelSteps

    results = execute(plan, lambda: ModelSteps(plan, reporter.say), reporter)
    return Side(label, tuple(read_cell(result.folder) for result in results), plan.output)


def suite_of(cell: MeasuredCell) -> dict[str, Any]:
    """The suite that a cell was asked, by the names that its tasks really had: a mini set stays a
    mini set where the real data are at hand.
    """
    facts = cell.facts["suite"]
    edit_set = cell.facts["target"]["edit_set"]["name"]
    over = "" if edit_set == OWN_SET else f"-{edit_set}"  # which planning appends again
    return {
        "name": cell.suite.removesuffix(over),
        "tasks": list(facts["tasks"]),
        "limits": {name: task["limit"] for name, task in facts["tasks"].items()},
        "samples_per_prompt": facts["samples_per_prompt"],
        "paraphrases": facts["paraphrases"],
        "part": facts.get("part", "test"),
    }


def _settings(cell: MeasuredCell) -> dict[str, Any]:
    """What decides how the model answers and who judges, as it was resolved."""
    facts = cell.facts
    scorer = without_guard(facts["scorer"]["name"])
    return {
        "edit_set": facts["target"]["edit_set"]["name"],
        "engine": facts["engine"]["name"],
        "dtype": facts["engine"]["dtype"],
        **({"engine_args": args} if (args := facts["engine"].get("args")) else {}),
        "scorer": "auto" if scorer == NONE else scorer,
    }


def _folders(baseline: Side) -> dict[str, Any]:
    """Where the baseline's run found its data and its scorer, if it is a run and says so."""
    if baseline.run is None:
        return {}
    try:
        settings = read_settings(baseline.run)
    except UnlearnBenchError:
        return {}
    return {name: settings[name] for name in FOLDERS if name in settings}
