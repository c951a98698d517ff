"""What a report says of one method: its account, its options, its cost, and what it answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.board.collect import Collection, Entrant
from unlearn_bench.board.excerpts import list_excerpts, list_facts
from unlearn_bench.board.heat import CELL, HeatMap, map_changes
from unlearn_bench.board.numbers import brief, plain, shown, spans
from unlearn_bench.board.own_board import Told
from unlearn_bench.board.table import public_text

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
LETTER = 6.4  # width of a letter beside the map
ROLES = ("forget", "update")  # the roles of facts that are not to stay


@dataclass(frozen=True)
class Model:
    """What is known of the edited model: its layers, and ‖W‖ by tensor where weights were kept."""

    layers: int
    norms: Mapping[str, float]


def method_section(
    found: Collection, entrant: Entrant, anchor: str, model: Model
) -> dict[str, Any]:
    """The section of one entrant, from its first scored cell."""
    account = entrant.first.read("account.json")
    paper = str(entrant.card.facts.get("paper", "")) if entrant.card else ""
    arxiv = ARXIV.fullmatch(paper)
    excerpts = list_excerpts(found, entrant)
    return {
        "name": entrant.name,
        "role": entrant.role,
        "anchor": anchor,
        "line": _line(account),
        "about": entrant.card.summary if entrant.card else "",
        "paper": paper,
        "link": f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "",
        "costs": _costs(entrant, account) + _tuning(found, entrant),
        "options": _pairs(account.get("options", {})),
        "details": _pairs(account.get("details", {})),
        "heat": heat_view(map_changes(account.get("changes", ()), model.layers, model.norms)),
        "facts": [
            {**vars(fact), "kind": fact.role if fact.role in ROLES else "kept"}
            | {"role": fact.role.replace("_", " ")}
            for fact in list_facts(found, entrant)
        ],
        "mild": [one for one in excerpts if not one.harsh],
        "harsh": [one for one in excerpts if one.harsh],
    }


def _line(account: Mapping[str, Any]) -> str:
    tensors = len(account.get("changes", ()))
    if not account:
        return "it left no account of its edit"
    if not tensors:
        return "changes nothing"
    seconds = shown(account["seconds"])
    return f"{seconds} s, {tensors} tensor{'' if tensors == 1 else 's'} changed"


def _costs(entrant: Entrant, account: Mapping[str, Any]) -> list[tuple[str, str]]:
    seeds = ("seeds", spans(cell.seed for cell in entrant.scored))
    if not account:  # a cell that another program wrote
        return [seeds]
    changes = account.get("changes", ())
    return [
        seeds,
        ("edit", f"{shown(account['seconds'])} s"),
        ("peak memory", f"{account['peak_memory_bytes'] / 1e9:.2f} GB"),
        ("forward passes", f"{account['forward_passes']:,}"),
        ("backward passes", f"{account['backward_passes']:,}"),
        ("tensors changed", f"{len(changes):,}"),
        ("weights changed", f"{account['parameters_touched']:,}"),
        ("‖ΔW‖ over all", shown(float(account["delta_norm"]))),
    ]


def _tuning(found: Collection, entrant: Entrant) -> list[tuple[str, str]]:
    """Objectives on validation items, of a method that ran as it was tuned."""
    told = found.own.rows.get(entrant.first.record.key, Told()).tuning
    return [(name.replace("_", " "), f"{value:.3g}") for name, value in told.items()]


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), public_text(plain(value))) for name, value in values.items()]


def heat_view(heat: HeatMap | None) -> dict[str, Any] | None:
    """The map as the template draws it, its measures in pixels."""
    if heat is None:
        return None
    left = round(max(len(kind.name) for kind in heat.kinds) * LETTER) + 10
    columns, lines = len(heat.columns), len(heat.kinds)
    title = (
        "‖ΔW‖ / ‖W‖ by layer" if heat.relative else "root mean square change of a weight by layer"
    )
    return {
        "title": title,
        "left": left,
        "cell": CELL,
        "first": 1 if heat.columns[:1] == ("–",) else 0,
        "width": left + columns * CELL + 10,
        "height": lines * CELL + 18,
        "columns": heat.columns,
        "all": _frame(columns, lines),
        "paths": heat.paths,
        "unknown": heat.unknown,
        "bounds": [brief(bound) for bound in heat.bounds],
        "kinds": [
            {
                **vars(kind),
                "changed": f"{kind.changed:,}",
                "elements": f"{kind.elements:,}",
                "norm": shown(kind.norm),
                "largest": brief(kind.largest),
            }
            for kind in heat.kinds
        ],
    }


def _frame(columns: int, lines: int) -> str:
    """A faint square for every place, so that what was not touched can be seen as such."""
    return "".join(
        f"M{column * CELL} {line * CELL}h{CELL - 1}v{CELL - 1}h-{CELL - 1}z"
        for line in range(lines)
        for column in range(columns)
    )
