"""What a cell will cost, before it runs: rough figures, replaced by measured ones once there are.

The rates were measured with SmolLM2-135M on two CPU cores in fp32 and are scaled by parameters and
cores. They are estimates: expect a factor of two either way.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.runs.footprint import (
    ENGINE_BYTES,
    Shape,
    Texts,
    estimate_memory,
    estimate_recipe,
    measure_texts,
    read_shape,
)
from unlearn_bench.runs.plan import Cell, Plan, needs_exact
from unlearn_bench.runs.store import RECORD
from unlearn_bench.training.prepare import Recipe

REFERENCE_PARAMETERS = 134.5e6
REFERENCE_CORES = 2
TRAIN_RATE = 330.0  # tokens per second, forward and backward
SCORE_RATE = 400.0  # tokens per second of likelihoods, shared prefixes counted once
GENERATE_RATE = 400.0  # tokens per second, batched
CUDA_FACTOR = 40.0  # one data-centre GPU against the two cores; the coarsest figure of all
SAVE_AND_LOAD_SECONDS = 3.0
PREPARE_SECONDS = 0.5  # per text that the target or the exact model is trained on, all passes
EXAMPLE_TOKENS = 60  # one training example with its prompt
CLOSED_FORM_TOKENS = 4_000  # what an edit without training reads to decide where to cut


@dataclass(frozen=True)
class ItemCost:
    """Average work of one item of a task, in tokens; `size` is the whole task's number of items."""

    scored: float
    generated: float
    size: int


ITEM_COSTS = {
    "fur": ItemCost(scored=24, generated=30, size=260),
    "truthfulqa": ItemCost(scored=95, generated=0, size=817),
    "wikitext": ItemCost(scored=4_500, generated=0, size=62),
    "wikitext_mini": ItemCost(scored=600, generated=0, size=28),
    "gsm8k": ItemCost(scored=0, generated=450, size=1319),
    "truthfulqa_gen": ItemCost(scored=0, generated=120, size=817),
    "realtoxicityprompts": ItemCost(scored=0, generated=20, size=1000),
    "realtoxicityprompts_greedy_challenging": ItemCost(scored=0, generated=20, size=900),
    "toxigen": ItemCost(scored=0, generated=45, size=940),
    "jailbreak": ItemCost(scored=0, generated=6 * 64, size=520),
    "jailbreak_mini": ItemCost(scored=0, generated=6 * 64, size=24),
    "jailbreak_harmbench": ItemCost(scored=0, generated=6 * 64, size=200),
    "over_refusal": ItemCost(scored=0, generated=64, size=450),
    "over_refusal_mini": ItemCost(scored=0, generated=64, size=48),
    "toxigen_classification": ItemCost(scored=45, generated=0, size=940),
    "toxigen_classification_mini": ItemCost(scored=35, generated=0, size=40),
}


@dataclass(frozen=True)
class Hardware:
    """What the estimate assumes to run on."""

    cores: int
    cuda: bool
    bf16: bool = False  # whether trainings have bf16 activations unless told otherwise

    @property
    def speed(self) -> float:
        """Times the reference machine's speed; cores help less the more there are."""
        return CUDA_FACTOR if self.cuda else math.sqrt(max(self.cores, 1) / REFERENCE_CORES)


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
    limits: Mapping[str, int | None], samples: int, parameters: float, hardware: Hardware
) -> float:
    """Seconds for one evaluation. limits: items by task (None = all); samples: k continuations."""
    scored = generated = 0.0
    for task, limit in limits.items():
        real = ITEM_COSTS.get(task.removesuffix("_mini"), ItemCost(100, 50, 500))
        cost = ITEM_COSTS.get(task, real)
        items = min(limit or cost.size, cost.size)
        scored += items * cost.scored
        generated += items * cost.generated * (samples if task == "realtoxicityprompts" else 1)
    work = scored / SCORE_RATE + generated / GENERATE_RATE
    return SAVE_AND_LOAD_SECONDS + work * parameters / REFERENCE_PARAMETERS / hardware.speed


def estimate_edit(
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    examples: Mapping[str, int],
    parameters: float,
    hardware: Hardware,
) -> float:
    """Seconds for one edit. facts: the decorator's; examples: texts per set that it may read.

    A method that needs the base trains on all that the target was trained on (set "base").
    """
    scale = parameters / REFERENCE_PARAMETERS / hardware.speed
    if "base" in facts.get("needs", ()):
        return SAVE_AND_LOAD_SECONDS + examples.get("base", 0) * PREPARE_SECONDS * scale
    batch = float(options.get("batch_size") or 8)
    # A round, where a method alternates, is an epoch of each of two losses.
    epochs = float(options.get("epochs") or 2 * (options.get("rounds") or 0))
    sets = [name for name in facts.get("needs", ()) if name in examples]
    steps = float(options.get("steps") or 0)
    if not steps and sets:
        drawn = float(options.get("comments") or math.inf)  # of a set, where a method says so
        steps = epochs * max(min(examples[name], drawn) for name in sets) / batch
    tokens = steps * batch * EXAMPLE_TOKENS * max(len(sets), 1)
    if facts.get("kind") == "edit":
        tokens = max(tokens, CLOSED_FORM_TOKENS) if facts.get("needs") else 0.0
    return SAVE_AND_LOAD_SECONDS + tokens / TRAIN_RATE * scale


def estimate_preparation(plan: Plan, hardware: Hardware | None = None) -> float:
    """Seconds to train the target and, where a method needs it, the exact model.

    Each once per machine, where they are cached. A sequence needs an exact model for every stage. 0
    for a target of the user's own.
    """
    if plan.own_target or plan.fur is None:
        return 0.0
    texts = len(plan.fur.target_training())
    for requested in {c.requested for c in plan.cells if needs_exact(plan.cards[c.method])}:
        texts += len(plan.fur.exact_training(requested))
    machine = hardware or this_machine()
    return texts * PREPARE_SECONDS * plan.parameters / REFERENCE_PARAMETERS / machine.speed


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


def estimate_cells(plan: Plan, hardware: Hardware | None = None) -> list[Estimate]:
    """One estimate per cell, in order: measured where this method and suite ran here before."""
    machine = hardware or this_machine()
    measured = measured_seconds(plan.output)
    limits = {
        name: plan.suite.limits.get(name, plan.suite.limits.get(protocol.base))
        for name, protocol in plan.protocols.items()
    }
    evaluation = estimate_evaluation(
        limits, plan.suite.samples_per_prompt, plan.parameters, machine
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
    plan: Plan, cell: Cell, shape: Shape, texts: Mapping[str, Texts], machine: Hardware
) -> float:
    """The edit's peak; vLLM starts after the first one and stays beside all others."""
    precision = cell.options.get("precision", "auto")
    bf16 = machine.bf16 if precision == "auto" else precision == "bf16"
    facts = plan.cards[cell.method].facts
    if "base" in facts.get("needs", ()) and plan.fur is not None:
        recipe = Recipe()
        sets = recipe.sets(plan.fur.target_training(), recipe.anchors(plan.anchors))
        found = estimate_recipe(sets, recipe, shape, cuda=machine.cuda, bf16=bf16)
    else:
        found = estimate_memory(facts, cell.options, shape, texts, cuda=machine.cuda, bf16=bf16)
    beside = plan.engine == "vllm" and not machine.cuda and cell is not plan.cells[0]
    return found + (ENGINE_BYTES if beside else 0.0)


def this_machine() -> Hardware:
    """Cores that this process may use, whether there is a CUDA device, and its number format."""
    import torch

    from unlearn_bench.training.precision import default_device, supports_bf16

    bf16 = supports_bf16(torch.device(default_device()))
    return Hardware(len(os.sched_getaffinity(0)), torch.cuda.is_available(), bf16)


def minutes(seconds: float) -> str:
    """An estimate in words: it is not known to the second."""
    return f"about {seconds / 60:.0f} min" if seconds >= 60 else "less than a minute"
