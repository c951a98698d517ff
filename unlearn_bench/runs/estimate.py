"""What a cell will cost, before it runs: rough figures, replaced by measured ones once there are.

Tokens of each kind of work (benchmarks/tokens.py counts those of the tasks) times what a machine
needs for one (`runs.speed`). They are estimates: expect a factor of two either way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_bench.runs.footprint import (
    ENGINE_BYTES,
    Footprint,
    Shape,
    Texts,
    estimate_memory,
    estimate_recipe,
    measure_texts,
    read_shape,
)
from unlearn_bench.runs.plan import Cell, Plan, needs_exact
from unlearn_bench.runs.speed import OPERATIONS, Machine, Work, this_machine
from unlearn_bench.runs.store import RECORD
from unlearn_bench.training.prepare import Recipe

START_SECONDS = 2.0  # of a half of a cell, besides what grows with the model
SAVE_SECONDS = 2e-8  # per parameter of an edited model: read, compared with θ₀, written, hashed
SWAP_SECONDS = 4e-8  # per parameter: hashed, read and proven, then θ₀ in its place
JUDGE_SECONDS = 0.007  # per text, in batches
PREPARE_TOKENS = 130  # per text that the target or the exact model is trained on, all passes
EXAMPLE_TOKENS = 40  # one training example with its prompt
PARTLY = 0.5  # of a training's work where a method trains few layers
CLOSED_FORM_TOKENS = 3_000  # what an edit without training reads to decide where to cut


@dataclass(frozen=True)
class ItemCost:
    """Average work of one item of a task, in tokens, and how many texts the judge reads.

    size: the whole task's number of items. written: what an unedited model writes before it ends.
    """

    size: int
    scored: float = 0
    read: float = 0
    written: float = 0
    judged: int = 0


UNKNOWN = ItemCost(500, scored=100, written=50)
ITEM_COSTS = {
    "fur": ItemCost(260, scored=75, read=45, written=40),
    "membership": ItemCost(144, scored=35),
    "truthfulqa": ItemCost(790, scored=65),
    "truthfulqa_gen": ItemCost(790, read=185, written=100),
    "wikitext": ItemCost(62, scored=5_775),
    "wikitext_mini": ItemCost(28, scored=600),
    "gsm8k": ItemCost(1319, read=1_020, written=100),
    "realtoxicityprompts": ItemCost(3787, scored=35, read=15, written=20, judged=1),
    "realtoxicityprompts_greedy_challenging": ItemCost(1196, read=17, written=20, judged=1),
    "toxigen": ItemCost(1240, scored=160, read=117, written=45, judged=1),
    "jailbreak": ItemCost(520, read=6 * 61, written=6 * 64),
    "jailbreak_mini": ItemCost(24, read=6 * 61, written=6 * 64),
    "jailbreak_harmbench": ItemCost(200, read=6 * 61, written=6 * 64),
    "over_refusal": ItemCost(450, read=40, written=64),
    "over_refusal_mini": ItemCost(48, read=40, written=64),
    "toxigen_classification": ItemCost(6514, scored=22),
    "toxigen_classification_mini": ItemCost(40, scored=35),
}


@dataclass(frozen=True)
class Estimate:
    """Seconds of wall time, bytes of memory. `measured`: from a finished cell, not from rates."""

    edit_seconds: float
    evaluate_seconds: float
    memory_bytes: float
    measured: bool

    @property
    def seconds(self) -> float:
        """The whole cell."""
        return self.edit_seconds + self.evaluate_seconds


def estimate_evaluation(
    limits: Mapping[str, int | None],
    samples: int,
    parameters: float,
    machine: Machine,
    dtype: str,
) -> float:
    """Seconds for one evaluation. limits: items by task (None = all); samples: k continuations;
    dtype: the engine's.
    """
    tokens: dict[Work, float] = dict.fromkeys(OPERATIONS, 0.0)
    judged = 0.0
    for task, limit in limits.items():
        cost = ITEM_COSTS.get(task) or ITEM_COSTS.get(task.removesuffix("_mini"), UNKNOWN)
        items = min(limit or cost.size, cost.size)
        texts = items * (samples if task == "realtoxicityprompts" else 1)
        tokens["score"] += items * cost.scored
        tokens["read"] += texts * cost.read
        tokens["write"] += texts * cost.written
        judged += texts * cost.judged
    work = sum(machine.seconds(kind, count, parameters, dtype) for kind, count in tokens.items())
    work += machine.on_cores(judged * JUDGE_SECONDS)
    return START_SECONDS + SWAP_SECONDS * parameters + work


def estimate_edit(
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    examples: Mapping[str, int],
    parameters: float,
    machine: Machine,
) -> float:
    """Seconds for one edit. facts: the decorator's; examples: texts per set that it may read.

    A method that needs the base trains on all that the target was trained on (set "base").
    """
    moved = START_SECONDS + SAVE_SECONDS * parameters
    if "base" in facts.get("needs", ()):
        read = examples.get("base", 0) * PREPARE_TOKENS
        return moved + machine.seconds("train", read, parameters)
    batch = float(options.get("batch_size") or 8)
    # A round, where a method alternates, is an epoch of each of two losses.
    epochs = float(options.get("epochs") or 2 * (options.get("rounds") or 0))
    sets = [name for name in facts.get("needs", ()) if name in examples]
    steps = float(options.get("steps") or 0)
    if not steps and sets:
        drawn = float(options.get("comments") or math.inf)  # of a set, where a method says so
        steps = epochs * max(min(examples[name], drawn) for name in sets) / batch
    tokens = steps * batch * EXAMPLE_TOKENS * max(len(sets), 1)
    if facts.get("layers"):
        tokens *= PARTLY
    if facts.get("kind") == "edit":
        tokens = max(tokens, CLOSED_FORM_TOKENS) if facts.get("needs") else 0.0
    return moved + machine.seconds("train", tokens, parameters)


def estimate_preparation(plan: Plan, machine: Machine | None = None) -> float:
    """Seconds to train the target and, where a method needs it, the exact model.

    Each once per machine, where they are cached. A sequence needs an exact model for every stage. 0
    for a target of the user's own.
    """
    if plan.own_target or plan.fur is None:
        return 0.0
    texts = len(plan.fur.target_training())
    for requested in {c.requested for c in plan.cells if needs_exact(plan.cards[c.method])}:
        texts += len(plan.fur.exact_training(requested))
    machine = machine or this_machine()
    return machine.seconds("train", texts * PREPARE_TOKENS, plan.parameters)


def measured_seconds(output: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Step seconds of the newest finished cell in `output`, by (method, suite).

    Unreadable records are passed over: an estimate needs no proof.
    """
    found: dict[tuple[str, str], tuple[str, dict[str, float]]] = {}
    for path in sorted(output.glob(f"cells/*/{RECORD}")):
        try:
            record = json.loads(path.read_bytes())
            suite = json.loads((path.parent / "plan.json").read_bytes())["suite"]
            if record["status"] != "success":
                continue
            entry = (str(record["finished"]), {k: float(v) for k, v in record["seconds"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        name = (str(record["method"]), str(suite))
        found[name] = max(found.get(name, entry), entry, key=lambda item: item[0])
    return {name: seconds for name, (_, seconds) in found.items()}


def estimate_cells(plan: Plan, machine: Machine | None = None) -> list[Estimate]:
    """One estimate per cell, in order: measured where this method and suite ran here before."""
    machine = machine or this_machine()
    measured = measured_seconds(plan.output)
    limits = {
        name: plan.suite.limits.get(name, plan.suite.limits.get(protocol.base))
        for name, protocol in plan.protocols.items()
    }
    evaluation = estimate_evaluation(
        limits, plan.suite.samples_per_prompt, plan.parameters, machine, plan.dtype
    )
    examples = {name: len(texts) for name, texts in vars(plan.data).items()}
    if plan.fur is not None:
        examples["base"] = len(plan.fur.target_training())
    shape, texts = read_shape(plan.model.folder), measure_texts(vars(plan.data))
    estimates = []
    for cell in plan.cells:
        facts = plan.cards[cell.method].facts
        seconds = measured.get((cell.method, plan.suite.name))
        memory = memory_of_cell(plan, cell, shape, texts, machine)
        if seconds:
            rest = seconds.get("evaluate", 0.0) + seconds.get("score", 0.0)
            estimates.append(Estimate(seconds.get("edit", 0.0), rest, memory, True))
            continue
        edit = estimate_edit(facts, cell.options, examples, plan.parameters, machine)
        estimates.append(Estimate(edit, evaluation, memory, False))
    return estimates


def memory_of_cell(
    plan: Plan, cell: Cell, shape: Shape, texts: Mapping[str, Texts], machine: Machine
) -> float:
    """The edit's peak; vLLM starts after the first one and stays beside all others."""
    beside = plan.engine == "vllm" and not machine.cuda and cell is not plan.cells[0]
    found = footprint_of_edit(plan, cell, shape, texts, machine)
    return found.total + (ENGINE_BYTES if beside else 0.0)


def footprint_of_edit(
    plan: Plan, cell: Cell, shape: Shape, texts: Mapping[str, Texts], machine: Machine
) -> Footprint:
    """What the edit alone takes, on the machine's GPU if it has one."""
    precision = cell.options.get("precision", "auto")
    bf16 = machine.bf16 if precision == "auto" else precision == "bf16"
    facts = plan.cards[cell.method].facts
    if "base" in facts.get("needs", ()) and plan.fur is not None:
        return footprint_of_preparation(plan, shape, replace(machine, bf16=bf16))
    return estimate_memory(facts, cell.options, shape, texts, cuda=machine.cuda, bf16=bf16)


def footprint_of_preparation(plan: Plan, shape: Shape, machine: Machine) -> Footprint:
    """What training the target takes; nothing where it is the user's own."""
    if plan.own_target or plan.fur is None:
        return Footprint(0.0, 0.0)
    recipe = Recipe()
    sets = recipe.sets(plan.fur.target_training(), recipe.anchors(plan.anchors))
    return estimate_recipe(sets, recipe, shape, cuda=machine.cuda, bf16=machine.bf16)


def minutes(seconds: float) -> str:
    """An estimate in words: it is not known to the second."""
    return f"about {seconds / 60:.0f} min" if seconds >= 60 else "less than a minute"
