"""What `--dry-run` says as JSON, for programs. Times and memory are estimates; null: not known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unlearn_bench.board.table import public_text

if TYPE_CHECKING:
    from unlearn_bench.runs.detectable import Detectable
    from unlearn_bench.runs.outlook import Expected, Outlook
    from unlearn_bench.runs.plan import Plan
    from unlearn_bench.runs.tune import Tuning


def render_plan(plan: Plan, ahead: Outlook, seen: Sequence[Detectable]) -> str:
    """A run's cells with their costs, and per headline column the difference that can be seen."""
    content = {
        **_setting(plan),
        "cells": [_cell(one) for one in ahead.cells],
        "detectable": [asdict(one) | {"effect": _figure(one.effect)} for one in seen],
        "total": {"cells": len(ahead.cells), "done": ahead.done, **_seconds(ahead)},
    }
    return json.dumps(content, indent=1, allow_nan=False)


def render_tuning_plan(tuning: Tuning, ahead: Outlook) -> str:
    """The methods with what is drawn for them, their budget, and what one trial of each costs."""
    content = {
        **_setting(tuning.plan),
        "budget": {"trials": tuning.budget.trials, "seconds": tuning.budget.seconds},
        "methods": [
            {
                "method": own.method,
                "goals": list(own.goals),
                "space": {name: str(part) for name, part in own.space.items()},
            }
            for own in tuning.methods.values()
        ],
        "cells": [_cell(one) for one in ahead.cells],
        "total": {"trials": tuning.budget.trials * len(tuning.methods), **_seconds(ahead)},
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _setting(plan: Plan) -> dict[str, Any]:
    return {
        "model": plan.model.label,
        "suite": plan.suite_name,
        "tasks": list(plan.protocols),
        "engine": plan.engine_text,
        "dtype": plan.dtype,
        "scorer": dict(plan.scorer),
        **({"second_scorer": dict(plan.second_scorer)} if plan.second_scorer else {}),
        "output": str(plan.output),
        "data": {
            task: {"source": origin.source, "revision": origin.revision}
            for task, origin in plan.origins.items()
        },
        "notes": [public_text(note) for note in plan.notes],
    }


def _cell(one: Expected) -> dict[str, Any]:
    cell, found = one.cell, one.estimate
    return {
        "key": cell.key,
        "label": cell.label,
        "method": cell.method,
        "seed": cell.seed,
        "role": cell.role,
        "done": one.done,
        "measured": found.measured,
        "edit_seconds": _figure(found.edit_seconds),
        "evaluate_seconds": _figure(found.evaluate_seconds),
        "memory_bytes": _figure(found.memory_bytes),
    }


def _seconds(ahead: Outlook) -> dict[str, Any]:
    return {
        "seconds": _figure(ahead.seconds),
        "preparation_seconds": _figure(ahead.preparation),
    }


def _figure(value: float) -> float | str | None:
    """As on a board: NaN is null, an infinite one a word."""
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value
