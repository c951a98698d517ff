"""The files in examples/gate are what the commands take, and the workflow is a safe one."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from unlearn_bench.cli import app
from unlearn_bench.compare.rules import JUDGED, load_rules
from unlearn_bench.config import load_suite
from unlearn_bench.protocols.catalog import list_protocols

EXAMPLES = Path(__file__).parents[2] / "examples" / "gate"


@pytest.fixture
def workflow() -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    return content


def test_every_rule_names_a_judged_metric_of_the_suite() -> None:
    known = list_protocols()
    asked = [name for task in load_suite(str(EXAMPLES / "suite.yaml")).tasks
             for name in (task, f"{task}_mini") if name in known]  # fmt: skip
    judged = [
        f"{task}.{name}"
        for task in asked
        for name, metric in known[task].metrics.items()
        if metric.direction in JUDGED
    ]
    for pattern in load_rules(EXAMPLES / "gate.yaml").metrics:
        assert fnmatch.filter(judged, pattern), pattern


def test_actions_are_pinned_and_may_only_read(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True].keys() == {"pull_request"}  # YAML 1.1 reads `on` as a truth value
    steps = workflow["jobs"]["gate"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) == 5
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name) for name in used)
    kept = [step["with"]["persist-credentials"] for step in steps if "checkout" in
            step.get("uses", "")]  # fmt: skip
    assert kept == [False] * 3
    scripts = " ".join(step["run"] for step in steps if "run" in step)
    assert "${{" not in scripts  # nothing of a pull request becomes part of a script


def test_the_workflow_gives_the_gate_options_that_it_has(workflow: dict[Any, Any]) -> None:
    steps = workflow["jobs"]["gate"]["steps"]
    (run,) = [step["run"] for step in steps if step.get("name") == "Gate"]
    command = typer.main.get_command(app)
    known = {name for part in command.commands["gate"].params for name in part.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"--[a-z-]+", run)) <= known
    assert "--baseline trusted/" in run
    assert "--rules trusted/" in run
