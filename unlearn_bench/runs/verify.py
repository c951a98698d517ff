"""Work a run's scores out again from its stored answers, and say where they are not what they were.

Nothing that the run derived is believed: hashes of the files, the cell's key, every prompt, every
per-item value, every judgement and every score are made anew from the samples and the data. What is
stored beyond that is wrong as well: whoever reads the files would count it. The rows of the run's
own boards are held against their cells, forget quality and PrivLeak against the exact model's items
too; OUTSIDE is what is left.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from unlearn_bench.compare.against_exact import score_against_exact
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.compare.agreement import agreements
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.replay import replay, same_question
from unlearn_bench.errors import CorruptDataError, IncomparableError, UnlearnBenchError
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.harness import asked_positions
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.runs.contract import SECOND
from unlearn_bench.runs.judge import judged_items
from unlearn_bench.runs.settings import board_files
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
MEAN = "mean"  # in the place of a board's seed: a row of means
FIGURES = ("value", "stderr", "low", "high", "n", "missing")
OUTSIDE = (
    "what the run's boards derive from several cells (calibrated and overall scores, TRACE, other "
    "deltas, means): unlearn-bench board validate BOARD --run RUN makes it again"
)


@dataclass
class Finding:
    """What came of one cell. wrong: does not follow from the answers. unchecked: could not be made
    again here, and why. outside: what was not looked at, whatever the cell.
    """

    cell: str
    status: str = ""
    samples: int = 0
    scores: int = 0
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    outside: str = ""


@dataclass(frozen=True)
class _Checked:
    """One scored cell as it follows from its answers, of the tasks that are here as they were."""

    key: str
    protocols: Mapping[str, Protocol]
    items: Sequence[ItemScore]
    scores: Sequence[Score]
    finding: Finding


def verify_run(
    output: Path,
    sources: SourceOptions,
    *,
    scorer_checkpoint: Path | None = None,
    guard: str | None = None,
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
    workshop = Workshop(sources, scorer_checkpoint, allow_code=allow_code, guard=guard)
    findings, checked = [], {}
    for folder in folders:
        say(f"verify {folder.name}")
        finding = Finding(folder.name, outside=OUTSIDE)
        try:
            if found := _verify_cell(folder, workshop, finding):
                checked[found.key] = found
        except CorruptDataError as error:
            finding.wrong.append(error.what)
        findings.append(finding)
    for path in board_files(output):
        name = str(path.relative_to(output) if path.is_relative_to(output) else path)
        say(f"verify {name}")
        _verify_board(path, name, checked)
    say(f"not looked at: {OUTSIDE}")
    return findings


def _verify_cell(folder: Path, workshop: Workshop, finding: Finding) -> _Checked | None:
    plan = _read_plan(folder)
    if digest(plan["determinants"]) != plan["key"]:
        finding.wrong.append("the key is not the hash of the determinants")
    record = read_record(folder, plan["key"])
    finding.status = record.status if record else "absent"
    if record is None or record.status not in SCORED:
        return None
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
    left_out = facts["suite"]["tasks"].keys() - protocols.keys()  # nobody here knows their rows

    def judge_again(
        file: str, asked: Mapping[str, Protocol], scorer: Mapping[str, str]
    ) -> list[ItemScore]:
        stored = [row for row in read_items(folder / file) if row.task not in left_out]
        rows = _judged_again(samples, asked, scorer, stored, workshop, finding)
        rows = judged_items(asked, rows) if file == SECOND else rows
        _compare_items(file, stored, rows, finding)
        return rows

    items = judge_again("items.parquet", protocols, facts["scorer"])
    scores = aggregate(items, protocols)
    if identity := facts.get("second_scorer"):
        judged = {name: protocol for name, protocol in protocols.items() if protocol.judged}
        scores += agreements(items, judge_again(SECOND, judged, identity), protocols)
    stored = [one for one in read_scores(folder / "scores.json") if one.task not in left_out]
    _compare_scores(stored, scores, finding)
    return _Checked(plan["key"], protocols, items, scores, finding)


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
    stored: Sequence[ItemScore],
    workshop: Workshop,
    finding: Finding,
) -> list[ItemScore]:
    """All rows as they should be; without the run's scorer the values of judged metrics are taken
    as stored, and nothing else is.
    """
    items: list[ItemScore] = []
    values = {_place(row): row.value for row in stored}
    judged = {name: own for name, own in protocols.items() if own.judged or own.guarded}
    judge = workshop.judge(scorer, judged) if judged else None
    for name, protocol in protocols.items():
        asked = (judge.scorer, judge.guard) if judge else (None, None)
        rows = score_samples(protocol, samples, *asked)
        if name in judged and judge is None:
            rows = [
                replace(row, value=values.get(_place(row), row.value))
                if protocol.metrics[row.metric].by_judge
                else row
                for row in rows
            ]
            finding.unchecked.append(f"{name}: {scorer['name']} as it was is not available here")
        items += rows
    return items


def _compare_items(
    file: str, stored: Sequence[ItemScore], anew: Sequence[ItemScore], finding: Finding
) -> None:
    """Row by row in every field, both ways: a row too many would be counted as well."""
    kept, made = ({_place(row): row for row in rows} for rows in (stored, anew))
    wrong = [
        f"{_title(place)}: {count} rows"
        for place, count in Counter(map(_place, stored)).items()
        if count > 1
    ]
    for place in kept.keys() | made.keys():
        there, row = kept.get(place), made.get(place)
        if there is None or row is None:
            values = (one.value if one else "nothing" for one in (there, row))
            wrong.append("{}: stored {}, is {}".format(_title(place), *values))
            continue
        for name in (one.name for one in fields(row)):
            one, other = getattr(there, name), getattr(row, name)
            if not _same(one, other):
                part = "" if name == "value" else f", {name}"
                wrong.append(f"{_title(place)}{part}: stored {one!r}, is {other!r}")
    if wrong:
        finding.wrong.append(f"{file}: {some(wrong)}")


def _place(row: ItemScore) -> tuple[str, str, str]:
    return row.task, row.metric, row.item_id


def _title(place: tuple[str, str, str]) -> str:
    return f"{place[0]}.{place[1]} of {place[2]}"


def _compare_scores(stored: Sequence[Score], anew: Sequence[Score], finding: Finding) -> None:
    """Score by score in every field, both ways."""
    finding.scores = len(anew)
    wrong = [
        f"{name}: {count} scores"
        for name, count in Counter(_full_name(score) for score in stored).items()
        if count > 1
    ]
    kept, made = ({_full_name(one): _facts(one) for one in scores} for scores in (stored, anew))
    wrong += _unlike(kept, made)
    if wrong:
        finding.wrong.append(f"scores.json: {some(wrong)}")


def _unlike(
    stored: Mapping[str, tuple[Any, ...]], made: Mapping[str, tuple[Any, ...]]
) -> list[str]:
    return [
        f"{name}: stored {stored.get(name, 'nothing')}, is {made.get(name, 'nothing')}"
        for name in stored.keys() | made.keys()
        if not _same(stored.get(name), made.get(name))
    ]


def _full_name(score: Score) -> str:
    return f"{score.task}.{score.metric}"


def _facts(score: Score) -> tuple[Any, ...]:
    return (*_figures(score), score.direction, score.unit)


def _figures(score: Score) -> tuple[float, ...]:
    return tuple(getattr(score, name) for name in FIGURES)


def _verify_board(path: Path, name: str, checked: Mapping[str, _Checked]) -> None:
    """Every row of these cells: its scores are the cell's, and those against the exact model what
    the items of both make them.

    A file that is no board, or a sequence's, whose columns are its requests, says nothing of them.
    """
    try:
        content = json.loads(path.read_bytes())
        tasks = {column["name"]: column["task"] for column in content["columns"]}
        scored = [row for row in content["rows"] if row["seed"] != MEAN and row["scores"]]
        rows = {row["provenance"]["cell_key"]: _told(row) for row in scored}
        seeds = {row["provenance"]["cell_key"]: int(row["seed"]) for row in scored}
        exact = {seeds[key]: key for row in scored if (key := _exact_key(row))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for key in (key for key in rows if key in checked and "requests" not in content):
        own = checked[key]
        told = {one: row for one, row in rows[key].items() if _is_known(tasks.get(one), own)}
        made = {_full_name(score): _figures(score) for score in own.scores}
        twin = exact.get(seeds[key], exact[min(exact)] if exact else "")
        if twin and twin not in checked:
            own.finding.unchecked.append(f"{name}: the exact model's cell is of another run")
            told = {one: row for one, row in told.items() if one in made}
        else:
            made |= _against_exact(own, checked.get(twin), name)
        if wrong := _unlike(told, made):
            own.finding.wrong.append(f"{name}: {some(wrong)}")


def _told(row: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """What a board's row says, by column: null is missing, a word infinite."""
    return {
        name: tuple(math.nan if score.get(part) is None else float(score[part]) for part in FIGURES)
        for name, score in row["scores"].items()
    }


def _exact_key(row: Mapping[str, Any]) -> str:
    return str(row["provenance"]["cell_key"]) if row["role"] == "exact" else ""


def _is_known(task: str | None, cell: _Checked) -> bool:
    """False of a task that is not here as it was; a score of no column follows from nothing."""
    return task is None or task in cell.protocols


def _against_exact(
    own: _Checked, exact: _Checked | None, board: str
) -> dict[str, tuple[float, ...]]:
    try:
        found = score_against_exact(own.items, exact.items if exact else (), own.protocols)
    except IncomparableError as error:
        own.finding.unchecked.append(f"{board}: against the exact model: {error.what}")
        return {}
    return {_full_name(score): _figures(score) for score in found}


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
