"""Which tensors an edit changed and how far: a map of layers and matrices, and one line per kind.

Rows of the map are kinds of tensors, columns layers. What is shown is relative where the target's
weights lie beside its cell (--keep-checkpoints), ‖ΔW‖ / ‖W‖; otherwise ‖ΔW‖ / √(weights), the root
mean square of a single weight's change, which does not grow with the matrix either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEVELS = 6
LAYER = re.compile(r"^(.*?)\.(\d+)\.(.*)$")
REST = -1  # column of tensors outside the layers
CELL = 14


@dataclass(frozen=True)
class Kind:
    """One kind of tensor in all layers. changed: number of scalars, out of `elements`.

    norm: ‖ΔW‖ over the layers. largest: of what the map shows.
    """

    name: str
    layers: str
    changed: int
    elements: int
    norm: float
    largest: float


@dataclass(frozen=True)
class HeatMap:
    """paths: per level, weakest first, the squares of that level as one SVG path. unknown: those
    whose change is no number. bounds: the levels' upper ends.
    """

    kinds: tuple[Kind, ...]
    columns: tuple[str, ...]
    paths: tuple[str, ...]
    unknown: str
    bounds: tuple[float, ...]
    relative: bool


def map_changes(
    changes: Sequence[Mapping[str, Any]], layers: int, norms: Mapping[str, float]
) -> HeatMap | None:
    """The map of an account's changes; None where nothing changed.

    layers: of the model, so that untouched ones show as such. norms: ‖W‖ of the target by name.
    """
    if not changes:
        return None
    relative = all(norms.get(change["name"], 0.0) > 0 for change in changes)
    grid: dict[str, dict[int, Mapping[str, Any]]] = {}
    for change in changes:
        kind, layer = split_name(change["name"])
        grid.setdefault(kind, {})[layer] = change
    values = {
        (kind, layer): _size(change, norms if relative else {})
        for kind, row in grid.items()
        for layer, change in row.items()
    }
    places = [*([REST] if any(REST in row for row in grid.values()) else []), *range(layers)]
    bounds = _bounds([value for value in values.values() if math.isfinite(value)])
    squares: list[list[str]] = [[] for _ in range(LEVELS + 1)]
    for line, kind in enumerate(grid):
        for column, layer in enumerate(places):
            if (kind, layer) in values:
                square = f"M{column * CELL} {line * CELL}h{CELL - 1}v{CELL - 1}h-{CELL - 1}z"
                squares[_level(values[kind, layer], bounds)].append(square)
    return HeatMap(
        kinds=tuple(_kind(kind, row, values) for kind, row in grid.items()),
        columns=tuple("–" if place == REST else str(place) for place in places),
        paths=tuple("".join(level) for level in squares[:LEVELS]),
        unknown="".join(squares[LEVELS]),
        bounds=tuple(bounds),
        relative=relative,
    )


def split_name(name: str) -> tuple[str, int]:
    """`model.layers.3.mlp.up_proj.weight` is kind `mlp.up_proj` in layer 3."""
    found = LAYER.match(name)
    kind = found[3] if found else name.removeprefix("model.")
    return kind.removesuffix(".weight"), int(found[2]) if found else REST


def count_layers(accounts: Sequence[Mapping[str, Any]]) -> int:
    """Layers of the model, as far as any edit has reached: one that trains everything tells all."""
    found = [split_name(c["name"])[1] for account in accounts for c in account.get("changes", ())]
    return 1 + max(found, default=REST)


def weight_norms(checkpoint: Path) -> dict[str, float]:
    """‖W‖ of every tensor of a kept checkpoint, by name; nothing where none was kept."""
    norms: dict[str, float] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            norms |= {name: float(tensors.get_tensor(name).norm()) for name in tensors.keys()}  # noqa: SIM118
    return norms


def _size(change: Mapping[str, Any], norms: Mapping[str, float]) -> float:
    whole = norms.get(change["name"]) or math.sqrt(change["elements"])
    return float(change["norm"]) / whole


def _bounds(values: Sequence[float]) -> list[float]:
    """Upper ends of equal steps of the logarithm, over at most three powers of ten."""
    top = max(values, default=1.0) or 1.0
    low = max(min((value for value in values if value > 0), default=top), top / 1000)
    step = (top / low) ** (1 / LEVELS) if low < top else 1.0
    return [low * step**number for number in range(1, LEVELS)] + [top]


def _level(value: float, bounds: Sequence[float]) -> int:
    if not math.isfinite(value):
        return LEVELS
    return next((n for n, bound in enumerate(bounds) if value <= bound), LEVELS - 1)


def _kind(
    name: str, row: Mapping[int, Mapping[str, Any]], values: Mapping[tuple[str, int], float]
) -> Kind:
    numbers = sorted(layer for layer in row if layer != REST)
    whole = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
    text = f"{numbers[0]}–{numbers[-1]}" if whole else ", ".join(map(str, numbers))
    return Kind(
        name=name,
        layers=text or "–",
        changed=sum(change["changed"] for change in row.values()),
        elements=sum(change["elements"] for change in row.values()),
        norm=math.sqrt(sum(float(change["norm"]) ** 2 for change in row.values())),
        largest=max((values[name, layer] for layer in row), default=math.nan),
    )
