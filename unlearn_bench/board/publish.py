"""From a run's records to its leaderboard files: `<leaderboards>/<model>/<suite>.csv|.json|.md`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_bench.board.files import render_csv, render_json
from unlearn_bench.board.markdown import render_markdown
from unlearn_bench.board.summary import ByMetric, Cells, by_metric, with_summary
from unlearn_bench.board.table import MEAN, TUNING, Board, Column, Row, build_board
from unlearn_bench.compare.against_exact import score_against_exact, spread_over_seeds
from unlearn_bench.compare.aggregate import RESAMPLES
from unlearn_bench.compare.agreement import AGREEMENT, UNIT, verdict_metric
from unlearn_bench.compare.columns import align
from unlearn_bench.compare.intervals import interval
from unlearn_bench.protocols.catalog import AgainstExact, Metric
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.plan import EXACT, TARGET, Plan, version_text
from unlearn_bench.runs.store import canonical_json, inside, read_items, read_scores, write_file
from unlearn_bench.runs.stored_plan import StoredPlan
from unlearn_bench.schema import SCORED, ItemScore, Score

Measured = Plan | StoredPlan  # what is read of either is the same


def publish(plan: Plan, results: Sequence[CellResult]) -> tuple[Board, list[Path]]:
    """Write the three files atomically; return the board and their paths."""
    board = make_board(plan, results)
    return board, write_board(board, plan.leaderboards)


def make_board(plan: Measured, results: Sequence[CellResult], kept: Sequence[Row] = ()) -> Board:
    """The board of these cells, and beside them rows that were `kept` without their cells.

    A kept row has the scores, costs and provenance that it came with, and no calibrated ones: what
    those are made of is not here.
    """
    items = [_items(result) for result in results]
    rows = [cell_row(plan, result) for result in results]
    board = build_board(
        plan.model.name,
        plan.suite_name,
        board_columns(plan),
        [
            replace(row, scores={**row.scores, **scores})
            for row, scores in zip(rows, against_exact(plan, results, items), strict=True)
        ]
        + list(kept),
        board_protocol(plan, decoding_of(results)),
    )
    board = with_seed_intervals(board, plan, results, items, {row.method for row in kept})
    return with_summary(board, scored_cells(plan, results, items))


def write_board(board: Board, folder: Path) -> list[Path]:
    """Write `<suite>.csv`, `.json` and `.md` atomically; return their paths."""
    renderings = {"csv": render_csv, "json": render_json, "md": render_markdown}
    paths = []
    for suffix, render in renderings.items():
        path = inside(folder, f"{board.suite}.{suffix}")
        write_file(path, render(board).encode("utf-8", "backslashreplace"))
        paths.append(path)
    return paths


def board_columns(plan: Measured) -> list[Column]:
    """One column per metric of every protocol that ran; a mini set's columns carry its own name."""
    columns = []
    for task, protocol in plan.protocols.items():
        shown: dict[str, Metric | AgainstExact] = {**protocol.metrics, **protocol.against_exact}
        columns += [
            Column(task, name, metric.direction, metric.unit, name in protocol.headline)
            for name, metric in shown.items()
        ]
        if plan.second_scorer and verdict_metric(protocol):
            columns.append(Column(task, AGREEMENT, "none", UNIT, headline=False))
    return columns


def against_exact(
    plan: Measured, results: Sequence[CellResult], items: Sequence[Sequence[ItemScore]]
) -> list[dict[str, Score]]:
    """Every cell's scores that take the exact model's items as well: of the same seed, else of the
    first one. Empty for a cell without scores. items: each cell's.
    """
    return [
        {
            f"{score.task}.{score.metric}": score
            for score in score_against_exact(rows, twin, plan.protocols)
        }
        if rows
        else {}
        for rows, twin in zip(items, _exact_items(results, items), strict=True)
    ]


def _exact_items(
    results: Sequence[CellResult], items: Sequence[Sequence[ItemScore]]
) -> list[Sequence[ItemScore]]:
    """For each cell the items of the exact model of its seed, else of the first one."""
    exact = {
        result.cell.seed: rows
        for result, rows in zip(results, items, strict=True)
        if result.cell.role == "exact" and rows
    }
    first = exact[min(exact)] if exact else []
    return [exact.get(result.cell.seed, first) for result in results]


def scored_cells(
    plan: Measured, results: Sequence[CellResult], items: Sequence[Sequence[ItemScore]]
) -> Cells:
    """What calibrated scores are made of. items: each cell's."""
    return Cells(
        protocols=plan.protocols,
        items={
            (result.cell.method, str(result.cell.seed)): by_metric(rows)
            for result, rows in zip(results, items, strict=True)
            if rows
        },
        goals={name: tuple(card.facts.get("goals", ())) for name, card in plan.cards.items()},
        target=TARGET,
        exact=EXACT,
    )


def with_seed_intervals(
    board: Board,
    plan: Measured,
    results: Sequence[CellResult],
    items: Sequence[Sequence[ItemScore]],
    kept: Collection[str] = (),
) -> Board:
    """The board with intervals in its rows of means: items and seeds drawn again together.

    kept: methods of which some seed's items are not here, so that nothing can be drawn.
    """
    seeds: dict[str, list[_Seed]] = {}
    for result, rows, twin in zip(results, items, _exact_items(results, items), strict=True):
        if rows and result.cell.method not in kept:
            own = _Seed(result.cell.seed, by_metric(rows), by_metric(twin))
            seeds.setdefault(result.cell.method, []).append(own)
    return replace(
        board,
        rows=tuple(
            replace(row, scores={**row.scores, **_seed_intervals(row, plan, seeds[row.method])})
            if row.seed == MEAN and row.method in seeds
            else row
            for row in board.rows
        ),
    )


@dataclass(frozen=True)
class _Seed:
    """One cell's rows, and those of the exact model that it is read against, by task and metric."""

    seed: int
    rows: ByMetric
    exact: ByMetric


def _seed_intervals(row: Row, plan: Measured, seeds: Sequence[_Seed]) -> dict[str, Score]:
    """The scores whose interval the items give, with it."""
    names = [f"{row.method} seed {one.seed}" for one in seeds]
    found: dict[str, Score] = {}
    for task, protocol in plan.protocols.items():
        for name, metric in protocol.metrics.items():
            models = [one.rows.get((task, name), ()) for one in seeds]
            score = row.scores.get(f"{task}.{name}")
            if score is not None and all(models):
                ends = interval(align(metric.reduce, models, names), RESAMPLES)
                found[f"{task}.{name}"] = replace(score, low=ends.low, high=ends.high)
        for name, comparison in protocol.against_exact.items():
            place = (task, comparison.metric)
            pairs = [(one.rows.get(place, ()), one.exact.get(place, ())) for one in seeds]
            if score := row.scores.get(f"{task}.{name}"):
                named = dict(zip(names, pairs, strict=True))
                spread = spread_over_seeds(protocol, comparison, named)
                found[f"{task}.{name}"] = replace(score, low=spread.low, high=spread.high)
    return found


def _items(result: CellResult) -> list[ItemScore]:
    path = result.folder / "items.parquet"
    return read_items(path) if result.record.status in SCORED else []


def cell_row(plan: Measured, result: CellResult) -> Row:
    """A cell's row, with scores and costs where its record says that it has them."""
    cell, record = result.cell, result.record
    scored = record.status in SCORED
    scores = read_scores(result.folder / "scores.json") if scored else []
    account = _read(result, "account.json") if scored else {}
    found = _read(result, "provenance.json") if scored else {}
    return Row(
        method=cell.method,
        seed=str(cell.seed),
        role=cell.role,
        status=record.status,
        reason=record.reason,
        scores={f"{score.task}.{score.metric}": score for score in scores},
        costs=_costs(account, record.seconds) if scored else {},
        tuning=_tuning(plan, cell.method),
        provenance=_provenance(plan, result, found),
    )


def _read(result: CellResult, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((result.folder / name).read_bytes())
    return content


def _tuning(plan: Measured, method: str) -> dict[str, float | int | None]:
    """Empty unless the method ran as it was tuned."""
    found = plan.tuned.get(method)
    return dict(zip(TUNING, (found.best, found.median, found.trials), strict=True)) if found else {}


def _costs(
    account: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, float | int | None]:
    """`edit_seconds` is the method's own time, without loading and saving the model."""
    return {
        "edit_seconds": account["seconds"],
        "evaluate_seconds": seconds.get("evaluate"),
        **{
            name: account[name]
            for name in (
                "peak_memory_bytes",
                "parameters_touched",
                "delta_norm",
                "forward_passes",
                "backward_passes",
            )
        },
    }


def _provenance(plan: Measured, result: CellResult, found: Mapping[str, Any]) -> dict[str, str]:
    cell = result.cell
    suite = cell.determinants["suite"]
    read = {origin["sha256"]: origin["source"] for origin in found.get("data", ())}
    return {
        "options": canonical_json(cell.options).decode(),
        "suite": plan.suite_name,
        "edit_set": plan.edit_set,
        "limits": ", ".join(
            f"{task} {facts['limit'] or 'all'}" for task, facts in suite["tasks"].items()
        ),
        "samples_per_prompt": str(suite.get("samples_per_prompt", "")),
        "seeds": str(cell.seed),
        "cell_key": cell.key,
        "weights_fingerprint": str(found.get("weights_fingerprint", "")),
        "base_fingerprint": "" if plan.own_target else plan.model.fingerprint,
        "target_fingerprint": str(found.get("target_fingerprint", "")),
        "tokenizer_sha256": str(found.get("tokenizer_sha256", "")),
        "template_sha256": str(found.get("template_sha256", "")),
        "data_sha256": data_digest(suite),
        "data_sources": ", ".join(
            f"{task} {read.get(origin.sha256, origin.source)}"
            for task, origin in plan.origins.items()
        ),
        "engine": plan.engine_text,
        "dtype": plan.dtype,
        "scorer": _of_scorers(plan, "name"),
        "scorer_version": _of_scorers(plan, "version"),
        "scorer_sha256": _of_scorers(plan, "weights_sha256"),
        "versions": ", ".join(
            f"{name} {version}" for name, version in cell.determinants.get("versions", {}).items()
        ),
    }


def _of_scorers(plan: Measured, fact: str) -> str:
    """The scorer's, and behind a comma the second one's."""
    second = [plan.second_scorer[fact]] if plan.second_scorer else []
    return ", ".join([plan.scorer[fact], *second])


def data_digest(suite: Mapping[str, Any]) -> str:
    """One hash of all evaluation data: two boards with the same one asked the same items.

    suite: as in a cell's determinants.
    """
    hashes = {task: facts.get("data_sha256", "") for task, facts in suite["tasks"].items()}
    return hashlib.sha256(canonical_json(hashes)).hexdigest()


def decoding_of(results: Sequence[CellResult]) -> dict[str, Any]:
    """How texts were drawn, by subtask, as the first cell with scores says; empty without one."""
    scored = (result for result in results if result.record.status in SCORED)
    found = (_read(result, "provenance.json").get("decoding", {}) for result in scored)
    return dict(next(found, {}))


def board_protocol(plan: Measured, decoding: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What every row of the board has in common. decoding: by subtask."""
    first = plan.cells[0].determinants if plan.cells else {}
    return {
        "model": plan.model.label,
        "base_fingerprint": plan.model.fingerprint,
        "suite": plan.suite_name,
        "edit_set": plan.edit_set,
        "tasks": {
            task: {"items": facts["limit"], "source": _source(plan, task)}
            for task, facts in first.get("suite", {}).get("tasks", {}).items()
        },
        "samples_per_prompt": first.get("suite", {}).get("samples_per_prompt"),
        "scorer": dict(plan.scorer),
        **({"second_scorer": dict(plan.second_scorer)} if plan.second_scorer else {}),
        "engine": plan.engine_text,
        "dtype": plan.dtype,
        "versions": first.get("versions", {}),
        "asked": asked_facts(first, decoding or {}),
        **({"tuning": dict(plan.tuning)} if plan.tuning else {}),
        "notes": list(plan.notes),
    }


def asked_facts(determinants: Mapping[str, Any], decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Hashes and settings that two boards must share before their rows stand in one column."""
    suite = determinants.get("suite", {})
    hashes = ("data_sha256", "data_revision", "protocol_sha256", "definition_sha256")
    return {
        "part": suite.get("part", "test"),
        "paraphrases": suite.get("paraphrases"),
        "tasks": {
            task: {name: facts[name] for name in hashes if name in facts}
            for task, facts in suite.get("tasks", {}).items()
        },
        "evaluation_code_sha256": determinants.get("evaluation_code_sha256", ""),
        "decoding": dict(decoding),
    }


def _source(plan: Measured, task: str) -> str:
    origin = plan.origins.get(task)
    return version_text(origin) if origin else ""
