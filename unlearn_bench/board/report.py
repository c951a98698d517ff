"""`unlearn-bench report`: one page from the cells of some runs, explained in docs/report.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench import __version__
from unlearn_bench.board.collect import Collection, collect
from unlearn_bench.board.excerpts import RULE
from unlearn_bench.board.heat import count_layers, weight_norms
from unlearn_bench.board.method_section import Model, method_section
from unlearn_bench.board.numbers import plain, shown, spans
from unlearn_bench.board.own_board import OVERALL, Calibrated
from unlearn_bench.board.page import drawing, render_page
from unlearn_bench.board.planes import Figure, draw_bars, draw_planes
from unlearn_bench.board.reach import Reach, reach
from unlearn_bench.board.standing import Standing, stand
from unlearn_bench.board.table import ARROWS, ROLE_ORDER, Column, Row, public_text
from unlearn_bench.compare.ranks import Rank
from unlearn_bench.runs.finished import Found, StoredCell, choose_setting, read_cells
from unlearn_bench.runs.store import CHECKPOINT, write_file
from unlearn_bench.runs.tree import Tree, tree_of
from unlearn_bench.schema import Score

FILE = "report.html"


def write_report(runs: Sequence[Path], file: Path | None = None, suite: str = "") -> Path:
    """Write the page of these runs' cells atomically, by default into the first run's folder.

    suite: show only its cells. Raises UnlearnBenchError where there is nothing to show.
    """
    found = read_cells(runs)
    cells = choose_setting(found.cells, suite)
    path = file or runs[0] / FILE
    page = render_page(report_content(found, cells, runs, reach(runs, path)))
    write_file(path, page.encode("utf-8", "backslashreplace"))
    return path


def report_content(
    found: Found, cells: Sequence[StoredCell], runs: Sequence[Path], way: Reach
) -> dict[str, Any]:
    """All that the template shows. cells: those of one setting; the others are only counted. way:
    to their samples.
    """
    name = model_name(runs, cells)
    all_of = collect(cells, runs, name)
    standing = stand(all_of)
    columns = all_of.board.shown_columns()
    anchors = {one.name: f"m{number}" for number, one in enumerate(all_of.entrants)}
    rows = all_of.board.shown_rows()
    planes, undrawn = draw_planes(all_of)
    commands = {
        one.name: {str(cell.seed): way.command(cell) for cell in one.cells}
        for one in all_of.entrants
    }
    return {
        "version": __version__,
        "model": name,
        "suite": all_of.board.suite,
        "summary": _summary(all_of),
        "formula": all_of.own.formula,
        "tasks": _spans(columns),
        "columns": [_head(column) for column in columns],
        "groups": _groups(rows, columns, standing, anchors),
        "commands": {name: [one for one in own.values() if one] for name, own in commands.items()},
        "commands_for": way.said,
        "lost": [
            _named(row) | {"seed": row.seed, "command": commands[row.method][row.seed]}
            for row in _lost(all_of)
        ],
        "incomplete": [_named(row) for row in rows if row.scores and row.reason],
        "names": [row.method for row in rows if row.scores],
        "full": _every_metric(all_of, standing),
        "planes": [_figure(one) for one in planes],
        "undrawn": undrawn,
        "bars": [_figure(one) for one in draw_bars(all_of, standing)],
        "rule": RULE,
        "methods": _methods(all_of, anchors),
        "notes": _notes(found, cells, [*all_of.notes, *standing.notes]),
        "protocol": _protocol(all_of, cells),
        "data": _data(all_of),
        "cells": [_cell_line(one.name, cell) for one in all_of.entrants for cell in one.cells],
    }


def model_name(runs: Sequence[Path], cells: Sequence[StoredCell]) -> str:
    """As the command that ran it had it, or the first digits of what identifies the weights."""
    for run in runs:
        for file in ("run.json", "tuning.json"):
            try:
                settings = json.loads((run / file).read_bytes())
                if name := settings.get("target") or settings.get("model"):
                    return public_text(str(name))
            except (OSError, ValueError, AttributeError):
                continue
    base = cells[0].determinants.get("target", {})
    known = str(base.get("fingerprint", "unknown")) if isinstance(base, dict) else "unknown"
    return f"model {known.removeprefix('sha256:')[:12]}"


def _summary(found: Collection) -> str:
    scored = [one for one in found.entrants if one.scored]
    counts = {
        "method": sum(one.role == "method" for one in scored),
        "control": sum(one.role == "control" for one in scored),
    }
    parts = [
        f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n or word == "method"
    ]
    seeds = sorted({cell.seed for one in scored for cell in one.scored})
    parts.append(f"seed{'' if len(seeds) == 1 else 's'} {spans(seeds)}")
    if lost := sum(not cell.scored for one in found.entrants for cell in one.cells):
        parts.append(f"{lost} cell{'' if lost == 1 else 's'} without scores")
    return "; ".join(parts) + "."


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Tasks with how many columns in a row are theirs."""
    spans: list[tuple[str, int]] = []
    for column in columns:
        if spans and spans[-1][0] == column.task:
            spans[-1] = (column.task, spans[-1][1] + 1)
        else:
            spans.append((column.task, 1))
    return spans


def _head(column: Column) -> dict[str, Any]:
    return {
        "name": column.name.strip("."),
        "unit": column.unit or "no unit",
        "label": column.metric.replace("_", " "),
        "arrow": ARROWS[column.direction],
    }


def _groups(
    rows: Sequence[Row],
    columns: Sequence[Column],
    standing: Standing,
    anchors: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Rows with scores by role. Sorting stays within a role, so the references stay on top."""
    groups = []
    for role in ROLE_ORDER:
        own = sorted((row for row in rows if row.role == role and row.scores), key=_standing)
        lines = []
        for row in own:
            cells = [
                score_cell(row.scores.get(c.name), standing.ranks.get(c.name, {}).get(row.method))
                for c in columns
            ]
            cells += [_cost(row, "edit_seconds", 1.0), _cost(row, "peak_memory_bytes", 1e9)]
            seeds = spans(map(int, row.provenance.get("seeds", "").split()))
            lines.append(
                _named(row)
                | {
                    "anchor": anchors[row.method],
                    "cells": cells,
                    "seeds": f"seeds {seeds}" if seeds else "",
                }
            )
        if lines:
            groups.append({"role": role, "rows": lines})
    return groups


def _standing(row: Row) -> float:
    """By the overall score where the run's board has one, else as they stand."""
    score = row.scores.get(f"{OVERALL}.{OVERALL}")
    return math.inf if score is None or math.isnan(score.value) else -score.value


def score_cell(
    score: Score | None, rank: Rank | None = None, calibrated: Calibrated | None = None
) -> dict[str, Any]:
    """What a table shows of one score. key: what it is sorted by; text is empty where missing."""
    empty = {"text": "", "key": "", "ends": "", "rank": "", "tied": False, "missing": 0, "on": ""}
    if score is None or math.isnan(score.value):
        return empty
    known = math.isfinite(score.low) and math.isfinite(score.high)
    return empty | {
        "text": shown(score.value),
        "key": repr(score.value).replace("inf", "Infinity"),
        "ends": f"{shown(score.low)} to {shown(score.high)}" if known else "",
        "rank": _span(rank) if rank else "",
        "tied": rank is not None and rank.tie == 1,
        "missing": score.missing,
        "on": f"{calibrated.form} {shown(calibrated.value)}" if calibrated else "",
    }


def _span(rank: Rank) -> str:
    return str(rank.low) if rank.low == rank.high else f"{rank.low}–{rank.high}"


def _cost(row: Row, name: str, unit: float) -> dict[str, Any]:
    value = row.costs.get(name)
    text = "" if value is None else shown(value / unit)
    return score_cell(None) | {"text": text, "key": "" if value is None else repr(float(value))}


def _named(row: Row) -> dict[str, Any]:
    return {"name": row.method, "status": row.status, "reason": public_text(row.reason)}


def _lost(found: Collection) -> list[Row]:
    """Cells without scores, one line each."""
    return [row for row in found.board.rows if not row.scores and row.seed != "mean"]


def _every_metric(found: Collection, standing: Standing) -> list[dict[str, Any]]:
    """Per task all its metrics, methods side by side."""
    rows = [row for row in found.board.shown_rows() if row.scores]
    tables = []
    for task in dict.fromkeys(column.task for column in found.board.columns):
        own = [column for column in found.board.columns if column.task == task]
        lines = []
        for column in own:
            ranks = standing.ranks.get(column.name, {})
            cells = [
                score_cell(
                    row.scores.get(column.name),
                    ranks.get(row.method),
                    found.told(row).calibrated.get(column.name),
                )
                for row in rows
            ]
            lines.append(_head(column) | {"cells": cells})
        protocol = found.protocols.get(task)
        tables.append(
            {
                "task": task or "over all tasks",
                "title": protocol.title if protocol else "",
                "about": protocol.description if protocol else "",
                "columns": lines,
            }
        )
    return tables


def _figure(one: Figure) -> dict[str, Any]:
    return {"title": one.title, "svg": drawing(one.svg), "note": one.note}


def _methods(found: Collection, anchors: Mapping[str, str]) -> list[dict[str, Any]]:
    scored = [one for one in found.entrants if one.scored]
    target = found.entrant("target")
    norms = weight_norms(target.first.folder / CHECKPOINT) if target else {}
    layers = count_layers([one.first.read("account.json") for one in scored])
    places = {row.method: place for place, row in enumerate(found.board.rows)}
    ordered = sorted(scored, key=lambda one: places[one.name])
    model = Model(layers, norms)
    return [method_section(found, one, anchors[one.name], model) for one in ordered]


def _notes(found: Found, cells: Sequence[StoredCell], told: Sequence[str]) -> list[str]:
    notes = [public_text(note) for note in told]
    if others := len(found.cells) - len(cells):
        notes.append(
            f"{others} cell{'' if others == 1 else 's'} of these runs are not shown: measured "
            "under another setting (suite, target, data, scorer, engine), or a sequence's stage."
        )
    notes += [f"Not read, because it is damaged: {public_text(line)}" for line in found.damaged]
    for name in ("versions", "evaluation_code_sha256"):
        kinds = {json.dumps(cell.determinants.get(name), sort_keys=True) for cell in cells}
        if len(kinds) > 1:
            words = name.removesuffix("_sha256").replace("_", " ")
            notes.append(f"The cells differ in their {words}: compare with care.")
    if any(tree and tree.dirty for tree in _trees(cells)):
        notes.append("Cells were asked by source that may not be that of its commit (Protocol).")
    return notes


def _trees(cells: Sequence[StoredCell]) -> list[Tree | None]:
    """Every state of this package's source that asked one of the cells."""
    found = (tree_of(cell.read("provenance.json")) for cell in cells if cell.scored)
    return list(dict.fromkeys(found))


def _protocol(found: Collection, cells: Sequence[StoredCell]) -> list[tuple[str, str]]:
    """What all cells have in common, then the engine and the machine of the first scored one."""
    first = next(cell for cell in cells if cell.scored)
    facts = {name: value for name, value in first.determinants.items() if name != "method"}
    suite = dict(facts.pop("suite", {}))
    suite.pop("tasks", None)
    ran = first.read("provenance.json")
    told: dict[str, Any] = {
        "model": found.board.model,
        "suite": {"name": first.suite, **suite},
        **{name: facts[name] for name in ("target", "scorer") if name in facts},
        "engine": ran.get("engine") or facts.get("engine", {}),
        "decoding": ran.get("decoding", {}),
        "overall score": found.own.formula,
        "versions": facts.get("versions", {}),
        "evaluation code": facts.get("evaluation_code_sha256", ""),
        "source": "; ".join(str(tree or "not recorded") for tree in _trees(cells)),
        "machine": ran.get("machine", {}),
        **{
            name.replace("_", " "): ran.get(name, "")
            for name in ("target_fingerprint", "tokenizer_sha256", "template_sha256")
        },
    }
    return [(name, public_text(plain(value))) for name, value in told.items() if value]


def _data(found: Collection) -> list[dict[str, Any]]:
    first = next(one.first for one in found.entrants if one.scored)
    origins = {one.get("sha256"): one for one in first.read("provenance.json").get("data", ())}
    rows = []
    for task, facts in first.determinants["suite"]["tasks"].items():
        origin = origins.get(facts.get("data_sha256"), {})
        rows.append(
            {
                "task": task,
                "limit": facts.get("limit") or "all",
                "source": public_text(str(origin.get("source", "–"))),
                "revision": public_text(str(facts.get("data_revision", "–"))),
                "sha256": str(facts.get("data_sha256", "–")),
            }
        )
    return rows


def _cell_line(name: str, cell: StoredCell) -> dict[str, Any]:
    seconds = cell.record.seconds
    weights = str(cell.read("provenance.json").get("weights_fingerprint", "–"))
    return {
        "name": name,
        "seed": cell.seed,
        "status": cell.record.status,
        "edit": shown(seconds["edit"]) if "edit" in seconds else "–",
        "evaluate": shown(seconds["evaluate"]) if "evaluate" in seconds else "–",
        "key": cell.record.key[:16],
        "weights": weights.removeprefix("sha256:")[:16],
    }
