"""Methods and steps small enough to test tuning without a model: one number decides every score."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit import run_doubles
from tests.unit.run_doubles import SmallSteps
from tests.unit.test_execute import Screen
from unlearn_bench.board.tuning import publish_tuning, read_recorded
from unlearn_bench.compare.objective import GIBBERISH, KNOWN, PERPLEXITY, REACHED, SILENCE
from unlearn_bench.errors import DivergedError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.registry import Card, find_card
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.tune import Tuning, plan_tuning, tune
from unlearn_bench.runs.tuned import Budget
from unlearn_bench.schema import EditReport, ItemScore, Sample

METHOD = '''
from unlearn_bench.registry import method

@method("{name}", kind="edit", needs=(), targets=("*",), {facts})
def {name}(context, *, strength: float = 1.0, steps: int = 2):
    """A method of a test's own."""
    return {{}}
'''
SPACE = 'search={"strength": (0.1, 10.0, "log"), "steps": [1, 2, 3]}'
SUITE = {"part": "validation", "tasks": {"fur": {"limit": 60}}}
WORDS = 100.0  # of the one page whose perplexity is scored


def method_cards(
    folder: Path, *names: str, facts: str = f'goals=("forget",), {SPACE}'
) -> dict[str, Card]:
    """noop, exact_unlearning and methods of the given names, each in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    cards = {name: find_card("method", name) for name in ("noop", "exact_unlearning")}
    for name in names:
        file = folder / f"{name}.py"
        file.write_text(METHOD.format(name=name, facts=facts))
        cards[name] = find_card("method", name, (file,))
    return cards


def tuning_plan(output: Path, cards: Mapping[str, Card], **changes: Any) -> Plan:
    """A plan over the validation suite's real protocols, with one cell per method."""
    known = list_protocols()
    names = ("fur", "realtoxicityprompts", "wikitext_mini")
    cells = []
    for name in cards:
        options = {} if name in ("noop", "exact_unlearning") else {"strength": 1.0, "steps": 2}
        cell = run_doubles.cell(name, suite=SUITE)
        method = {"name": name, "options": options}
        determinants = {**cell.determinants, "method": method}
        cells.append(dataclasses.replace(cell, options=options, determinants=determinants))
    facts: dict[str, Any] = {
        "protocols": {name: known[name] for name in names},
        "cards": cards,
        "judge": object(),
    }
    return run_doubles.plan(output, *cells, **facts | changes)


class TuningSteps(SmallSteps):
    """Strength s forgets 0.6·min(1, s/4) and keeps 0.8·(1 − s/20) of what must stay.

    broken: strengths above it fail, as a diverging training does. target: what θ₀ has.
    """

    def __init__(self, broken: float = math.inf) -> None:
        super().__init__()
        self.broken = broken
        self.target = {"forget": 0.8, "known": 0.8, "toxicity": 0.4}

    def edit(self, cell: Cell, checkpoint: Path, tick: Any) -> EditReport:
        strength = float(cell.options.get("strength", 0.0))
        report = super().edit(cell, checkpoint, tick)
        if strength > self.broken:
            raise DivergedError("the loss is not finite", step=3, last_losses={"forget": 1.0})
        (checkpoint / "weights").write_text(
            json.dumps({"method": cell.method, "strength": strength})
        )
        return report

    def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        self.calls.append("score")
        made = json.loads(samples[0].outputs[0].rpartition(" ")[0])
        forget = self.target["forget"] - 0.6 * min(1.0, made["strength"] / 4)
        values = {
            **dict.fromkeys(
                REACHED["forget"], 0.2 if made["method"] == "exact_unlearning" else forget
            ),
            **dict.fromkeys(REACHED["update"], 0.0),
            **dict.fromkeys(REACHED["detoxify"], self.target["toxicity"]),
            **dict.fromkeys(KNOWN, self.target["known"] * (1 - made["strength"] / 20)),
            **dict.fromkeys((*GIBBERISH, *SILENCE["detoxify"]), 0.0),
        }
        items = [
            ItemScore(*name.split("."), "1", "", value, 1.0)  # type: ignore[call-arg]
            for name, value in values.items()
        ]
        metric = PERPLEXITY.split(".")[1]
        page = ItemScore("wikitext_mini", metric, "1", "", -WORDS * math.log(80.0), WORDS)
        return [*items, page]


def run_tuning(
    output: Path,
    cards: Mapping[str, Card],
    steps: SmallSteps,
    *,
    trials: int = 4,
    seconds: float = 1e6,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Tuning:
    """Plan and run a tuning in `output`, writing its files as the command does."""
    plan = tuning_plan(output, cards, **changes)
    tuning = plan_tuning(plan, Budget(trials=trials, seconds=seconds), settings or {})
    tune(tuning, lambda: steps, Screen(), publish_tuning, read_recorded(output))
    return tuning
