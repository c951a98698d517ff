"""Names beside points of a plot, each where it covers least of what is already there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RADII = (9.0, 15.0, 24.0, 36.0, 52.0, 70.0, 95.0, 125.0)
ANGLES = 16
LETTER = 0.63  # width of a letter in font sizes, of a wide font: the reader's is not known
POINT = 5.0  # half of the square that a mark covers


@dataclass(frozen=True)
class Label:
    """A text's box by its middle, in the points' units. away: it needs a line to its point."""

    x: float
    y: float
    width: float
    height: float
    away: bool

    def overlap(self, other: Label) -> float:
        """Area that two boxes share."""
        wide = min(self.x + self.width / 2, other.x + other.width / 2) - max(
            self.x - self.width / 2, other.x - other.width / 2
        )
        high = min(self.y + self.height / 2, other.y + other.height / 2) - max(
            self.y - self.height / 2, other.y - other.height / 2
        )
        return max(0.0, wide) * max(0.0, high)


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    size: tuple[float, float],
    font: float,
) -> list[Label]:
    """One label per point, in order; the first ones choose first.

    size: of the plot, in which every label stays. font: size of the letters, in the same units.
    """
    marks = [Label(x, y, 2 * POINT, 2 * POINT, away=False) for x, y in points]
    placed: list[Label] = []
    for (x, y), text in zip(points, texts, strict=True):
        width, height = LETTER * font * len(text), 1.25 * font
        choices = [
            _beside(x, y, width, height, radius, 2 * math.pi * step / ANGLES)
            for radius in RADII
            for step in range(ANGLES)
        ]
        placed.append(min(choices, key=lambda label: _cost(label, (x, y), marks, placed, size)))
    return placed


def _beside(x: float, y: float, width: float, height: float, radius: float, angle: float) -> Label:
    """The box whose edge, not its middle, is `radius` away from the point in one direction."""
    right, up = math.cos(angle), math.sin(angle)
    middle = (x + right * (radius + width / 2), y + up * (radius + height / 2))
    return Label(*middle, width, height, away=radius > RADII[1])


def _cost(
    label: Label,
    point: tuple[float, float],
    marks: Sequence[Label],
    placed: Sequence[Label],
    size: tuple[float, float],
) -> float:
    """Covering a name is worst, then a mark; then how far the eye has to go."""
    outside = max(
        0.0,
        label.width / 2 - label.x,
        label.x + label.width / 2 - size[0],
        label.height / 2 - label.y,
        label.y + label.height / 2 - size[1],
    )
    names = sum(label.overlap(other) for other in placed)
    covered = sum(label.overlap(mark) for mark in marks)
    far = math.hypot(label.x - point[0], label.y - point[1])
    return 1e4 * outside + 50 * names + 10 * covered + far
