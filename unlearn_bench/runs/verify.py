"""Work a run's scores out again from its stored answers, and say where they are not what they were.

Nothing that the run derived is believed: hashes of the files, the cell's key, every prompt, every
per-item value, every judgement and every score are made anew from the samples and the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.compare.agreement import agreements
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.replay import replay, same_question
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.harness import asked_positions
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.runs.execute import SECOND
from unlearn_bench.runs.judge import judged_items
from unlearn_bench.runs.store import (
    RECORD,
    digest,
    read_items,
    read_record,
    read_samples,
    read_scores,
)
from unlearn_bench.runs.workshop import Workshop, is_aggregate
from unlearn_bench.schema import SCORED, ItemScore, Sample, Score

SHOWN = 3  # of differences of one kind


@dataclass
class Finding:
    """What came of one cell. wrong: does not follow from the answers. unchecked: could not be made
    again here, and why.
    """

    cell: str
    status: str = ""
    samples: int = 0
    scores: int = 0
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def verify_run(
    output: Path,
    sources: SourceOptions,
    *,
    scorer_checkpoint: Path | None = None,
    allow_code: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """One finding per cell folder of a run, by name.

    allow_code: let task files of the user's run the code that they name. Raises UnlearnBenchError
    when there is no cell.
    """
    folders = sorted(path.parent for path in output.glob(f"cells/*/{RECORD}"))
    if not folders:
        raise UnlearnBenchError(
            "there is no cell to verify",
            where=str(output),
            next_step="name the output folder of a run, which has a folder `cells`",
        )
    workshop = Workshop(sources, scorer_checkpoint, allow_code=allow_code)
    findings = []
    for folder in folders:
        say(f"verify {folder.name}")
        finding = Finding(folder.name)
        try:
            _verify_cell(folder, workshop, finding)
        except CorruptDataError as error:
            finding.wrong.append(error.what)
        findings.append(finding)
    return findings


def _verify_cell(folder: Path, workshop: Workshop, finding: Finding) -> None:
    plan = _read_plan(folder)
    if digest(plan["determinants"]) != plan["key"]:
        finding.wrong.append("the key is not the hash of the determinants")
    record = read_record(folder, plan["key"])
    finding.status = record.status if record else "absent"
    if record is None or record.status not in SCORED:
        return
    samples = read_samples(folder / "samples.parquet")
    finding.samples = len(samples)
    facts = plan["determinants"]
    protocols, unknown = workshop.protocols(plan)
    finding.unchecked += unknown
    for protocol in protocols.values():
        if is_aggregate(protocol):
            continue  # its tasks are among the others
        own = [sample for sample in samples if sample.task in protocol.subtasks]
        _verify_values(own, protocol, facts["suite"], workshop, finding)
    items = _judged_again(samples, protocols, facts["scorer"], workshop, finding)
    stored = [row for row in read_items(folder / "items.parquet") if row.task in protocols]
    _compare_items("items.parquet", stored, items, finding)
    scores = aggregate(stored, protocols)
    if identity := facts.get("second_scorer"):
        second = [row for row in read_items(folder / SECOND) if row.task in protocols]
        judged = {name: protocol for name, protocol in protocols.items() if protocol.judged}
        items = judged_items(protocols, _judged_again(samples, judged, identity, workshop, finding))
        _compare_items(SECOND, second, items, finding)
        scores += agreements(stored, second, protocols)
    _compare_scores(read_scores(folder / "scores.json"), scores, finding)


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "plan.json"
    try:
        plan: dict[str, Any] = json.loads(path.read_bytes())
        plan["key"], plan["determinants"]["suite"]["tasks"], plan["determinants"]["scorer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"plan.json cannot be read: {error}", where=str(path)) from error
    return plan


def _verify_values(
    samples: Sequence[Sample],
    protocol: Protocol,
    suite: Mapping[str, Any],
    workshop: Workshop,
    finding: Finding,
) -> None:
    """Every prompt and every per-item value, from the data and the answers."""
    task = protocol.name
    tasks = workshop.tasks(protocol, suite)
    if isinstance(tasks, str):
        finding.unchecked.append(f"{task}: values are taken as stored, since {tasks}")
        return
    positions = asked_positions([protocol], {protocol.base: suite["tasks"][task]["limit"]}, tasks)
    anew = {_name(sample): sample for sample in replay(samples, tasks, positions)}
    kept = {_name(sample): sample for sample in samples}
    wrong = [f"{' '.join(name)} is not asked, or not stored" for name in kept.keys() ^ anew.keys()]
    for name in anew.keys() & kept.keys():
        wrong += _differences(kept[name], anew[name])
    if wrong:
        finding.wrong.append(f"{task}: {some(wrong)}")


def _differences(stored: Sample, anew: Sample) -> list[str]:
    name = " ".join(_name(stored))
    found = (
        [] if same_question(stored.prompt, anew.prompt) else [f"{name} prompt is not the task's"]
    )
    found += [
        f"{name} {part} is not the task's"
        for part in ("outputs", "likelihoods")
        if not _same(getattr(stored, part), getattr(anew, part))
    ]
    return found + [
        f"{name} {metric}: stored {stored.values.get(metric)}, is {value}"
        for metric, value in anew.values.items()
        if not _same(stored.values.get(metric), value)
    ]


def _name(sample: Sample) -> tuple[str, str, str]:
    return sample.task, sample.item_id, sample.filter


def _judged_again(
    samples: Sequence[Sample],
    protocols: Mapping[str, Protocol],
    scorer: Mapping[str, str],
    workshop: Workshop,
    finding: Finding,
) -> list[ItemScore]:
    """All rows as they should be; without the run's scorer those of judged metrics are left out."""
    items: list[ItemScore] = []
    judged = {name: protocol for name, protocol in protocols.items() if protocol.judged}
    judge = workshop.judge(scorer, judged) if judged else None
    for name, protocol in protocols.items():
        rows = score_samples(protocol, samples, judge)
        if protocol.judged and judge is None:
            rows = [row for row in rows if not protocol.metrics[row.metric].judge]
            finding.unchecked.append(f"{name}: {scorer['name']} as it was is not available here")
        items += rows
    return items


def _compare_items(
    file: str, stored: Sequence[ItemScore], anew: Sequence[ItemScore], finding: Finding
) -> None:
    kept = {(row.task, row.metric, row.item_id): row for row in stored}
    wrong = []
    for row in anew:
        found = kept.get((row.task, row.metric, row.item_id))
        if found is None or not _same((found.value, found.weight), (row.value, row.weight)):
            there = "nothing" if found is None else found.value
            wrong.append(
                f"{row.task}.{row.metric} of {row.item_id}: stored {there}, is {row.value}"
            )
    if wrong:
        finding.wrong.append(f"{file}: {some(wrong)}")


def _compare_scores(stored: Sequence[Score], anew: Sequence[Score], finding: Finding) -> None:
    kept = {(score.task, score.metric): score for score in stored}
    finding.scores = len(anew)
    wrong = []
    for score in anew:
        found = kept.get((score.task, score.metric))
        figures, there = _figures(score), _figures(found) if found else ()
        if not _same(there, figures):
            wrong.append(f"{score.task}.{score.metric}: stored {there}, is {figures}")
    if wrong:
        finding.wrong.append(f"scores.json: {some(wrong)}")


def _figures(score: Score) -> tuple[float, ...]:
    return (score.value, score.stderr, score.low, score.high, score.n, score.missing)


def _same(one: Any, other: Any) -> bool:
    """Equal, part by part of tuples; NaN equals NaN."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def some(texts: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    found = sorted(texts)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more
