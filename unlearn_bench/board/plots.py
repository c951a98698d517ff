"""The report's drawings: what was gained against what was kept and what it cost, and differences.

Static SVG with its text as text. The same data give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unlearn_bench.board.labels import LETTER, place_labels
from unlearn_bench.board.svg import COLOURS, fit_for_page
from unlearn_bench.board.table import ARROWS, Column, Role
from unlearn_bench.board.visible import one_line
from unlearn_bench.schema import Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCH = 72.0  # points: one of them is one unit of the drawing, and one pixel of the page
FONT = 12.0
FAR = 50.0  # times the usual difference: one that would press all others onto the zero line
WIDE, NARROW = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)  # ticks in a power of ten
MARKS: dict[Role, tuple[str, str, float]] = {  # shape, colour, size
    "target": ("D", "target", 8.0),
    "exact": ("s", "exact", 8.0),
    "method": ("o", "method", 6.0),
    "control": ("^", "control", 6.5),
}
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unlearn-bench",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same measures on every machine
    "font.size": FONT,
    "text.parse_math": False,  # names are names, also with a dollar in them
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
}


@dataclass(frozen=True)
class Axis:
    """What one axis shows. logarithmic: of costs, which differ by powers of ten."""

    label: str
    direction: Direction
    logarithmic: bool = False


@dataclass(frozen=True)
class Point:
    """One entrant in a plane: value, low and high on both axes; NaN ends have no line."""

    name: str
    role: Role
    x: tuple[float, float, float]
    y: tuple[float, float, float]


@dataclass(frozen=True)
class Bar:
    """One entrant's difference to the target with its interval; `sure`: chance does not explain."""

    value: float
    low: float
    high: float
    sure: bool
    better: bool | None


def draw_plane(name: str, title: str, x: Axis, y: Axis, points: Sequence[Point]) -> str:
    """Points with intervals and names; a line joins the contenders that no other one beats."""
    size = (1000.0, 560.0)
    left, bottom = 66.0, 50.0
    inner = (size[0] - left - 14, size[1] - bottom - 14)

    def draw(figure: Figure) -> None:
        box = (left / size[0], bottom / size[1], inner[0] / size[0], inner[1] / size[1])
        axes = figure.add_axes(box)
        _dress(axes, x, y, [point.x[0] for point in points])
        for point in points:
            _mark(axes, point)
        axes.margins(0.08, 0.1)
        if front := front_of([point for point in points if point.role == "method"], x, y):
            style: dict[str, Any] = {
                "color": COLOURS["method"],
                "linewidth": 1.0,
                "linestyle": (0, (2, 2)),
            }
            axes.plot([p.x[0] for p in front], [p.y[0] for p in front], zorder=1, **style)
        axes.autoscale_view()
        _name_points(axes, points, inner)

    return _drawing(name, title, size, draw)


def front_of(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    """The points that no other is at least as good as on both axes and better on one, by x."""

    def losses(point: Point) -> tuple[float, float]:
        signs = (-1 if axis.direction == "higher" else 1 for axis in (x, y))
        across, up = (sign * ends[0] for sign, ends in zip(signs, (point.x, point.y), strict=True))
        return across, up

    front = [
        point
        for point in points
        if not any(
            losses(other) != losses(point)
            and all(a <= b for a, b in zip(losses(other), losses(point), strict=True))
            for other in points
        )
    ]
    return sorted(front, key=lambda point: (point.x[0], point.y[0]))


def _dress(axes: Axes, x: Axis, y: Axis, values: Sequence[float]) -> None:
    """Labels, grid and ticks. values: those on the x axis, which say how close its ticks are."""
    from matplotlib.ticker import LogLocator

    axes.set_xlabel(one_line(f"{x.label} {_wish(x, '→', '←')}".strip()))
    axes.set_ylabel(one_line(f"{y.label} {_wish(y, '→', '←')}".strip()))
    axes.set_axisbelow(True)
    axes.grid(visible=True)
    axes.tick_params(length=0, labelsize=FONT - 1)
    if x.logarithmic:
        axes.set_xscale("log")
        narrow = bool(values) and max(values) < 10 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=NARROW if narrow else WIDE))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()


def _wish(axis: Axis, more: str, less: str) -> str:
    """Which way is better."""
    return {"higher": f"({more} better)", "lower": f"(better {less})"}.get(axis.direction, "")


def _mark(axes: Axes, point: Point) -> None:
    shape, colour, size = MARKS[point.role]
    (x, left, right), (y, low, high) = point.x, point.y
    code = COLOURS[colour]
    if math.isfinite(left) and math.isfinite(right):
        axes.hlines(y, left, right, colors=code, lw=1, alpha=0.45)
    if math.isfinite(low) and math.isfinite(high):
        axes.vlines(x, low, high, colors=code, lw=1, alpha=0.45)
    hollow = point.role == "control"
    axes.plot(
        [x],
        [y],
        marker=shape,
        markersize=size,
        color=code,
        markerfacecolor=COLOURS["paper"] if hollow else code,
        markeredgecolor=code if hollow else COLOURS["paper"],
        markeredgewidth=1.2 if hollow else 0.8,
        zorder=4 if point.role in ("target", "exact") else 3,
    )


def _name_points(axes: Axes, points: Sequence[Point], size: tuple[float, float]) -> None:
    """Names in the axes' own points, the target's and the exact model's first."""
    ordered = sorted(points, key=lambda p: (p.role not in ("target", "exact"), p.role, p.name))
    box = axes.get_window_extent()
    places = [
        (float(px) - box.x0, float(py) - box.y0)
        for px, py in axes.transData.transform([(p.x[0], p.y[0]) for p in ordered])
    ]
    names = [one_line(point.name) for point in ordered]
    labels = place_labels(places, names, size, FONT - 1)
    for point, (px, py), text, label in zip(ordered, places, names, labels, strict=True):
        bold = "bold" if point.role in ("target", "exact") else "normal"
        axes.annotate(
            text,
            (px, py),
            xytext=(label.x, label.y),
            xycoords="axes points",
            textcoords="axes points",
            ha="center",
            va="center",
            fontsize=FONT - 1,
            fontweight=bold,
            color=COLOURS["muted" if point.role == "control" else "ink"],
            zorder=5,
        )
        if label.away:
            near_x = min(max(px, label.x - label.width / 2), label.x + label.width / 2)
            near_y = min(max(py, label.y - label.height / 2), label.y + label.height / 2)
            axes.annotate(
                "",
                (px, py),
                xytext=(near_x, near_y),
                xycoords="axes points",
                textcoords="axes points",
                arrowprops={"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.6},
                zorder=2,
            )


def draw_differences(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[str],
    bars: Sequence[Sequence[Bar | None]],
) -> str:  # fmt: skip
    """One panel per column, one line per row. bars: by column, then by row; None is missing."""
    across = math.ceil(len(columns) / math.ceil(len(columns) / 4))
    down = math.ceil(len(columns) / across)
    panel, line, head, foot = 245.0, 16.0, 36.0, 30.0
    left = 16 + LETTER * FONT * max(map(len, rows))
    high = line * len(rows) + head + foot
    size = (left + panel * across, high * down)

    def draw(figure: Figure) -> None:
        for number, (column, own) in enumerate(zip(columns, bars, strict=True)):
            row, place = divmod(number, across)
            x, y = left + panel * place + 8, size[1] - high * (row + 1) + foot
            box = (x / size[0], y / size[1], (panel - 34) / size[0], line * len(rows) / size[1])
            axes = figure.add_axes(box)
            _panel(axes, column, rows, own, named=place == 0)

    return _drawing(name, title, size, draw)


def _panel(
    axes: Axes, column: Column, rows: Sequence[str], bars: Sequence[Bar | None], *, named: bool
) -> None:
    title = f"{column.metric.replace('_', ' ')} {ARROWS[column.direction]}".strip()
    axes.axvline(0, color=COLOURS["muted"], linewidth=1, zorder=1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [one_line(row) for row in rows] if named else [])
    axes.tick_params(length=0, labelsize=FONT - 1.5)
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    if usual := _usual(bars):
        title += f", logarithmic beyond {usual:g}"
        _bend(axes, usual, [bar.value for bar in bars if bar and math.isfinite(bar.value)])
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.set_title(title, fontsize=FONT - 1, loc="left")
    for place, bar in enumerate(bars):
        if bar is None or not math.isfinite(bar.value):
            style: dict[str, Any] = {
                "fontsize": FONT - 2.5,
                "va": "center",
                "color": COLOURS["muted"],
            }
            axes.text(0.02, place, "missing", transform=axes.get_yaxis_transform(), **style)
            continue
        word = "method" if bar.better is None else "better" if bar.better else "worse"
        code = COLOURS[word if bar.sure else "muted"]
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            axes.hlines(place, bar.low, bar.high, colors=code, lw=1.6, zorder=2)
        face = code if bar.sure else COLOURS["paper"]
        axes.plot([bar.value], [place], marker="o", markersize=5, color=code, zorder=3,
                  markerfacecolor=face, markeredgecolor=code)  # fmt: skip


def _usual(bars: Sequence[Bar | None]) -> float:
    """The power of ten above most differences where one is far beyond it; 0 where none is."""
    sizes = sorted(abs(bar.value) for bar in bars if bar and math.isfinite(bar.value) and bar.value)
    if not sizes or sizes[-1] < FAR * sizes[len(sizes) // 2]:
        return 0.0
    return float(10.0 ** math.ceil(math.log10(sizes[len(sizes) // 2])))


def _bend(axes: Axes, usual: float, values: Sequence[float]) -> None:
    """An x axis that is straight up to `usual` on both sides, and logarithmic from there on."""
    ticks = {0.0}
    for sign in (-1, 1):
        if (far := max(sign * value for value in values)) > usual:
            ticks |= {sign * usual, sign * 10.0 ** math.floor(math.log10(far))}
    axes.set_xscale("symlog", linthresh=usual)
    axes.set_xticks(sorted(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.minorticks_off()


def _drawing(
    name: str, title: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(size[0] / INCH, size[1] / INCH), dpi=INCH)
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return fit_for_page(stream.getvalue(), name, title)
