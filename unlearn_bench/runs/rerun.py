"""Edit and ask again, for a few items of every cell: does the run come out as it is stored?"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.steps import ModelSteps
from unlearn_bench.runs.store import CHECKPOINT, cell_folder, read_record, read_samples
from unlearn_bench.runs.verify import Finding, some
from unlearn_bench.schema import SCORED, Sample

# Nats per token by which the likelihood of a text may move between two askings of one model, whose
# other batches round otherwise. fp32: packed and one by one, the summed log-probabilities of 500
# options were up to 1.5e-4 apart in trials, TruthfulQA's 610 up to 5e-5
# (docs/design/likelihoods.md); allowed is seven times the larger, per token. bf16: a sum moved by
# up to 0.7 (the same page). Other weights are those of another machine, say: allowed as in bf16.
FP32, LOOSE = 1e-3, 0.05
# The share of texts that may be others: in fp32 two tokens must be as close as that for one to
# turn, in bf16 many are.
FP32_TEXTS, LOOSE_TEXTS = 0.1, 0.5


@dataclass(frozen=True)
class Allowed:
    """How far two askings of one cell may be apart: nats per token of a text's likelihood, and the
    share of its texts. by_batch: subtasks whose texts depend on what else is asked, so that they
    cannot be compared.
    """

    nats: float
    texts: float
    by_batch: frozenset[str] = frozenset()


def rerun(plan: Plan, items: int, methods: Sequence[str], reporter: Reporter) -> list[Finding]:
    """One finding per cell of `methods` (all without any), in the plan's order.

    items: how many are asked again per cell, drawn with the cell's seed. A cell whose key the plan
    no longer has was made by other code, versions or data: it cannot be repeated, and is unchecked.
    """
    chosen = [cell for cell in plan.cells if not methods or cell.method in methods]
    if not chosen:
        raise UsageError(f"the run has no method {', '.join(methods)}")
    steps = ModelSteps(plan, reporter.say)
    findings = []
    try:
        with reporter.step("prepare the models") as tick:
            steps.prepare(tick)
        for cell in chosen:
            findings.append(_rerun_cell(cell, plan, steps, items, reporter))
    finally:
        steps.close()
    return findings


def _rerun_cell(
    cell: Cell, plan: Plan, steps: ModelSteps, items: int, reporter: Reporter
) -> Finding:
    folder = cell_folder(plan.output, cell.key, cell.method, cell.seed)
    finding = Finding(f"{folder.name} again")
    try:
        record = read_record(folder, cell.key)
    except CorruptDataError as error:
        finding.wrong.append(error.what)
        return finding
    if record is None or record.status not in SCORED:
        finding.status = record.status if record else "absent"
        finding.unchecked.append("no finished cell has this key: other code, versions or data")
        return finding
    finding.status = record.status
    stored = read_samples(folder / "samples.parquet")
    with tempfile.TemporaryDirectory(dir=plan.output) as place:
        checkpoint = Path(place) / CHECKPOINT
        with reporter.step(f"{cell.label}: edit") as tick:
            steps.edit(cell, checkpoint, tick)
        with reporter.step(f"{cell.label}: ask {items} items") as tick:
            anew = steps.ask_some(cell, checkpoint, _draw(stored, items, cell.seed), tick)
        known = json.loads((folder / "provenance.json").read_bytes())
        found = steps.describe(checkpoint)["weights_fingerprint"]
    same = found == known["weights_fingerprint"]
    if not same:
        finding.unchecked.append("the edit gave other weights: another kind of machine?")
    finding.samples = len(anew)
    allowed = allow(cell.determinants["engine"], known.get("decoding", {}), same_weights=same)
    _compare(stored, anew, allowed, finding)
    return finding


def allow(
    engine: Mapping[str, str], decoding: Mapping[str, Mapping[str, Any]], *, same_weights: bool
) -> Allowed:
    """What rounding explains. engine: name and dtype; decoding: by subtask.

    `mixed` scores in fp32 and writes in bf16; transformers draws a whole batch from one generator.
    """
    dtype = engine["dtype"]
    drawn = {name for name, settings in decoding.items() if settings.get("temperature")}
    return Allowed(
        nats=FP32 if same_weights and dtype in ("float32", "mixed") else LOOSE,
        texts=FP32_TEXTS if same_weights and dtype == "float32" else LOOSE_TEXTS,
        by_batch=frozenset(drawn if engine["name"] == "transformers" else ()),
    )


def _draw(samples: Sequence[Sample], items: int, seed: int) -> dict[str, set[str]]:
    """Item ids by subtask."""
    asked = sorted({(sample.task, sample.item_id) for sample in samples})
    chosen: dict[str, set[str]] = {}
    for task, item in random.Random(seed).sample(asked, min(items, len(asked))):  # noqa: S311
        chosen.setdefault(task, set()).add(item)
    return chosen


def _compare(
    stored: Sequence[Sample], anew: Sequence[Sample], allowed: Allowed, finding: Finding
) -> None:
    kept = {(sample.task, sample.item_id, sample.filter): sample for sample in stored}
    far, other, by_batch, texts = [], [], [], 0
    for sample in anew:
        before = kept[sample.task, sample.item_id, sample.filter]
        name = f"{sample.task} {sample.item_id}"
        gap = _gap(before, sample)
        if gap > allowed.nats:
            far.append(f"{name}: {gap:.2g} nats per token")
        far += [
            f"{name}: {gap:.2g} nats per token under the target"
            for gap in _target_gaps(before, sample)
            if not gap <= allowed.nats
        ]
        moved = [
            f"{name}: {one[:40]!r} was {two[:40]!r}"
            for one, two in zip(sample.outputs, before.outputs, strict=True)
            if one != two
        ]
        if sample.task in allowed.by_batch:
            by_batch += moved
        else:
            other += moved
            texts += len(sample.outputs)
    if far:
        finding.wrong.append(f"other likelihoods: {some(far)}")
    if len(other) > max(1, allowed.texts * texts):  # one text alone may be a close choice
        finding.wrong.append(f"too many texts are others, {len(other)} of {texts}: {some(other)}")
    elif other:
        finding.unchecked.append(f"{len(other)} of {texts} texts are others: {some(other)}")
    if by_batch:
        finding.unchecked.append(
            f"{len(by_batch)} texts, drawn with what else was asked, are others: {some(by_batch)}"
        )


def _target_gaps(one: Sample, other: Sample) -> list[float]:
    """Between what θ₀ thought of the texts that are the same; infinite where it was not asked."""
    if len(one.under_target) != len(other.under_target):
        return [math.inf]
    return [
        abs(before - after)
        for text, same, before, after in zip(
            one.outputs, other.outputs, one.under_target, other.under_target, strict=False
        )
        if text == same
    ]


def _gap(one: Sample, other: Sample) -> float:
    """Largest difference of a text's likelihood, in nats per token (per word or byte of a whole
    text); infinite where only one of them is a number.
    """
    weights = [value[1] for value in one.values.values() if isinstance(value, tuple)]
    lengths = [float(len(option.log_probs)) for option in one.tokens]
    lengths = lengths or [max(weights, default=1.0)] * len(one.likelihoods)
    gaps = [0.0]
    for (before, _), (after, _), length in zip(
        one.likelihoods, other.likelihoods, lengths, strict=True
    ):
        if before == after or (math.isnan(before) and math.isnan(after)):
            continue
        gap = abs(before - after) / length
        gaps.append(math.inf if math.isnan(gap) else gap)
    return max(gaps)
