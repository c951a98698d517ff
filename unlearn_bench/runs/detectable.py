"""What a difference from the target must be to be seen, per headline column, before a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_bench.compare.power import minimum_detectable_effect
from unlearn_bench.compare.spreads import find_spread, read_spreads
from unlearn_bench.protocols.catalog import EVERY, Metric, Protocol
from unlearn_bench.runs.plan import Plan

# Units of values in [0, 1], whose differences have a standard deviation of at most 1; those of the
# last two lines are of lm-eval's own tasks, whose unit is the metric's name.
BOUNDED = (
    "share", "recall", "toxicity in [0, 1]", "probability per token",
    "acc", "acc_norm", "exact_match", "em", "f1",
    "prompt_level_strict_acc", "prompt_level_loose_acc",
)  # fmt: skip
LABELS = ("part", "label")  # fields whose value begins the names of the metrics that a document has


@dataclass(frozen=True)
class Detectable:
    """One column with its size in this suite. effect: in the column's unit, or as a share of the
    value where `relative`; inf where no difference could be seen, NaN where no spread is known.

    source: the task that the spread was measured on, from so many `pairs` of models; "" where the
    effect is the largest that values between 0 and 1 can need.
    """

    column: str
    items: int
    clusters: int
    effect: float = math.nan
    relative: bool = False
    source: str = ""
    pairs: int = 0


def detectable_effects(plan: Plan) -> list[Detectable]:
    """One entry per headline column of the plan's tasks, in their order.

    Items are counted on the very documents that lm-eval will ask. Of lm-eval's own tasks each
    stands alone, and nobody has measured how much they vary.
    """
    from unlearn_bench.engine.evaluate import load_tasks  # lm-eval takes seconds to import
    from unlearn_bench.protocols.harness import asked_positions

    protocols = list(plan.protocols.values())
    tasks = load_tasks(
        protocols,
        limits=plan.suite.limits,
        samples_per_prompt=plan.suite.samples_per_prompt,
        paraphrases=plan.suite.paraphrases,
        sources=plan.sources,
        part=plan.suite.part,
    )
    documents: dict[str, Sequence[Mapping[str, Any]]] = {
        name: list(task.eval_docs) for name, task in tasks.items()
    }
    for name, positions in asked_positions(protocols, plan.suite.limits, tasks).items():
        documents[name] = [{"id": f"{name}:{position}"} for position in positions]
    seeds = seed_count(plan)
    return [own for protocol in protocols for own in effects_of_task(protocol, documents, seeds)]


def seed_count(plan: Plan) -> int:
    """How many seeds each method has."""
    return len({cell.seed for cell in plan.cells}) or 1


def effects_of_task(
    protocol: Protocol, documents: Mapping[str, Sequence[Mapping[str, Any]]], seeds: int = 1
) -> Iterable[Detectable]:
    """The task's headline columns. documents: by subtask."""
    spreads = read_spreads()
    for name in (name for name in protocol.headline if name in protocol.metrics):
        metric, column = protocol.metrics[name], f"{protocol.name}.{name}"
        names = protocol.subtasks if metric.subtask == EVERY else (metric.subtask,)
        own = asked(metric, [document for subtask in names for document in documents[subtask]])
        clusters = len({_cluster(metric, document) for document in own})
        found = find_spread(spreads, protocol.name, name)
        if found is None:
            bounded = metric.unit in BOUNDED and metric.reduce in ("mean", "macro_mean")
            worst = math.nan
            if bounded:
                worst = minimum_detectable_effect(1.0, clusters, binary=True, seeds=seeds)
            yield Detectable(column, len(own), clusters, worst)
            continue
        source, spread = found
        effect = minimum_detectable_effect(
            spread.spread, clusters, binary=spread.binary, seeds=seeds
        )
        yield Detectable(column, len(own), clusters, effect, spread.relative, source, spread.pairs)


def asked(metric: Metric, documents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The documents that have a value of the metric.

    A document's part or label begins the names of its values: of several that fit a name the
    longest is meant (`forget_text` before `forget`). A reworded question has `paraphrase` in them.
    """
    kept = list(documents)
    for field in LABELS if metric.value else ():
        labels = {str(document[field]) for document in kept if field in document}
        fitting = [label for label in labels if metric.value.startswith(f"{label}_")]
        if fitting:
            kept = [d for d in kept if d.get(field) == max(fitting, key=len)]
        elif labels and field == "part":
            kept = []
    reworded = "paraphrase" in metric.value
    return [d for d in kept if "phrasing" not in d or (d["phrasing"] != "verbatim") == reworded]


def _cluster(metric: Metric, document: Mapping[str, Any]) -> tuple[str, str]:
    """As items are grouped when they are compared: by cluster, else each for itself."""
    if metric.cluster:
        return "", str(document[metric.cluster])
    return str(document[metric.group]) if metric.group else "", str(document["id"])
