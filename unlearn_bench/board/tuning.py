"""A tuning run's files: tuning.json (every trial), tuned.yaml (the winners), tuning.md (tables)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from unlearn_bench.board.markdown import escape, table_line
from unlearn_bench.board.table import public_text
from unlearn_bench.compare.objective import REACHED, metrics_read
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.runs.provenance import installed_version
from unlearn_bench.runs.store import digest, to_json, write_file, write_json
from unlearn_bench.runs.tune import MethodTuning, Recorded, Reference, Trial, Tuning
from unlearn_bench.runs.tuned import TunedFile

FORMAT = 1
HEADER = "# Written by unlearn-bench tune; for unlearn-bench evaluate --tuned. docs/schema.md\n"
SUMMARY = ("method", "trials", "best", "median", "defaults", "gain", "keep", "seconds", "winner")
ON_TERMINAL = ("method", "trials", "best", "median", "defaults", "seconds")  # 80 characters
TRIAL = ("trial", "objective", "gain", "keep", "seconds", "options")


def publish_tuning(tuning: Tuning) -> list[Path]:
    """Write the three files atomically, the winners last; return their paths."""
    output, content = tuning.plan.output, tuning_content(tuning)
    paths = [output / name for name in ("tuning.json", "tuning.md", "tuned.yaml")]
    write_json(paths[0], content)
    write_file(paths[1], render_tuning(tuning).encode("utf-8", "backslashreplace"))
    winners = tuned_file(tuning, digest(content)).model_dump(mode="json")
    text = HEADER + yaml.safe_dump(winners, sort_keys=False, allow_unicode=True)
    write_file(paths[2], text.encode())
    return paths


def tuning_content(tuning: Tuning) -> dict[str, Any]:
    """What tuning.json holds: how it was measured, and every trial of every method."""
    plan, references = tuning.plan, tuning.references.values()
    common = plan.cells[0].determinants
    content = {
        "format": FORMAT,
        "model": plan.model.label,
        "model_fingerprint": plan.model.fingerprint,
        "suite": {"name": plan.suite.name, **common["suite"]},
        "seed": tuning.seed,
        "budget": tuning.budget.model_dump(),
        "complete": tuning.complete,
        "engine": plan.engine_text,
        "dtype": plan.dtype,
        "scorer": dict(plan.scorer),
        **({"second_scorer": plan.second.identity} if plan.second else {}),
        "versions": common.get("versions", {}) | {"optuna": installed_version("optuna")},
        "notes": [public_text(note) for note in plan.notes],
        "references": {reference.method: asdict(reference) for reference in references},
        "methods": {name: _method_content(own) for name, own in tuning.methods.items()},
    }
    plain: dict[str, Any] = to_json(content)
    return plain


def read_recorded(output: Path) -> Recorded:
    """What tuning.json in `output` holds of earlier runs; nothing where there is none.

    A trial without an objective, and a reference without a value that an objective reads, are left
    to their cells, whose judge may answer this time. Raises CorruptDataError for a file that no run
    of this format wrote.
    """
    path = output / "tuning.json"
    if not path.exists():
        return Recorded()
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        references = [
            Reference(**{**found, "scores": _numbers(found["scores"])})
            for found in content["references"].values()
        ]
        trials = [Trial(**trial) for own in content["methods"].values() for trial in own["trials"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(
            f"the earlier tuning cannot be read: {error}",
            where=str(path),
            next_step="move the file away to tune afresh, or choose another --output",
        ) from error
    scored = [trial for trial in trials if trial.objective is not None]
    read = metrics_read(REACHED)
    return Recorded(
        {
            found.cell_key: found
            for found in references
            if not any(math.isnan(found.scores.get(name, math.nan)) for name in read)
        },
        {trial.cell_key: replace(trial, scores=_numbers(trial.scores)) for trial in scored},
    )


def _numbers(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores as they were before NaN and ±inf became words."""
    return {name: float(v) if isinstance(v, str) else v for name, v in scores.items()}


def _method_content(own: MethodTuning) -> dict[str, Any]:
    return {
        "goals": own.goals,
        "space": {name: str(part) for name, part in own.space.items()},
        "fixed": own.fixed,
        "ended": own.ended,
        "best": own.best.number if own.best else None,
        "trials": [{**vars(trial), "reason": public_text(trial.reason)} for trial in own.trials],
    }


def tuned_file(tuning: Tuning, tuning_sha256: str) -> TunedFile:
    """The winners of all methods."""
    return TunedFile(
        model=tuning.plan.model.label,
        model_fingerprint=tuning.plan.model.fingerprint,
        suite=tuning.plan.suite.name,
        seed=tuning.seed,
        budget=tuning.budget,
        tuning_sha256=tuning_sha256,
        complete=tuning.complete,
        methods={name: own.winner() for name, own in tuning.methods.items()},
    )


def render_tuning(tuning: Tuning) -> str:
    """A table of the methods, then one of each method's trials."""
    budget = tuning.budget
    lines = [
        f"# Tuning {escape(tuning.plan.model.label)}, suite {escape(tuning.plan.suite.name)}",
        "",
        f"At most {budget.trials} trials and {budget.seconds:g} seconds for every method, seed "
        f"{tuning.seed}. Objectives, gains and keeps are in [0, 1]; trial 0 has the defaults.",
        "",
        table_line(list(SUMMARY)),
        table_line(["---"] * len(SUMMARY)),
        *(table_line([escape(text) for text in _summary(own)]) for own in tuning.methods.values()),
    ]
    for own in tuning.methods.values():
        lines += ["", f"## {escape(own.method)}", "", f"Goals: {', '.join(own.goals)}. Drawn:", ""]
        lines += [f"- {escape(name)}: {escape(str(part))}" for name, part in own.space.items()]
        lines += ["", table_line(list(TRIAL)), table_line(["---"] * len(TRIAL))]
        lines += [table_line([escape(text) for text in _trial(trial)]) for trial in own.trials]
    return "\n".join(lines) + "\n"


def print_tuning(tuning: Tuning, console: Console) -> None:
    """The methods' table, on a terminal, and below it the winning options."""
    table = Table(show_lines=False)
    for name in ON_TERMINAL:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    rows = [dict(zip(SUMMARY, _summary(own), strict=True)) for own in tuning.methods.values()]
    for row in rows:
        table.add_row(*(row[name] for name in ON_TERMINAL))
    console.print(table)
    for row in rows:
        line = f"winner  {row['method']}: {row['winner']}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _summary(own: MethodTuning) -> list[str]:
    winner, best = own.winner(), own.best
    return [
        own.method,
        str(winner.trials),
        _figure(winner.best),
        _figure(winner.median),
        _figure(own.trials[0].objective if own.trials else None),
        _figure(best.gain if best else None),
        _figure(best.keep if best else None),
        f"{own.seconds:.0f}",
        _options(best.options) if best else "none",
    ]


def _trial(trial: Trial) -> list[str]:
    numbers = [_figure(trial.objective), _figure(trial.gain), _figure(trial.keep)]
    options = _options(trial.options)
    if trial.status != "success":
        options += f" ({trial.status}: {public_text(trial.reason)})"
    return [str(trial.number), *numbers, f"{trial.seconds:.0f}", options]


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in options.items())


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
