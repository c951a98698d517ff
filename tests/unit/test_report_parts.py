"""What a report's drawings are made of: the front, the labels, the map of changes, the SVG."""

from __future__ import annotations

import math
import random
import re

import pytest

from unlearn_bench.board.heat import LEVELS, map_changes, split_name
from unlearn_bench.board.labels import place_labels
from unlearn_bench.board.numbers import brief, plain, shown, spans
from unlearn_bench.board.plots import Axis, Bar, Point, draw_differences, draw_plane, front_of
from unlearn_bench.board.svg import fit_for_page
from unlearn_bench.board.table import Column

UP, DOWN = Axis("kept", "higher"), Axis("forget", "lower")


def point(name: str, x: float, y: float) -> Point:
    return Point(name, "method", (x, math.nan, math.nan), (y, math.nan, math.nan))


def test_the_front_is_what_nobody_beats_on_both_axes() -> None:
    """Kept is better to the right, forgotten better below: c is beaten by b, e by its equal no."""
    points = [
        point("a", 0.2, 0.1), point("b", 0.8, 0.4), point("c", 0.7, 0.4), point("d", 0.9, 0.9),
        point("e", 0.8, 0.4),
    ]  # fmt: skip
    assert [p.name for p in front_of(points, UP, DOWN)] == ["a", "b", "e", "d"]
    assert [p.name for p in front_of(points, DOWN, UP)] == ["a", "c", "d"]


@pytest.mark.parametrize("count", [2, 12])
def test_labels_cover_neither_each_other_nor_the_edge(count: int) -> None:
    """Points in one corner and in one heap, where labels in one place would all overlap."""
    draw = random.Random(0)
    points = [(990 - 30 * draw.random(), 540 - 30 * draw.random()) for _ in range(count)]
    labels = place_labels(points, [f"method_{n}" for n in range(count)], (1000, 560), 11)
    for place, label in enumerate(labels):
        assert label.x + label.width / 2 <= 1000
        assert label.y + label.height / 2 <= 560
        assert all(label.overlap(other) == 0 for other in labels[place + 1 :])


def test_a_lone_label_is_next_to_its_point() -> None:
    (label,) = place_labels([(500, 300)], ["npo"], (1000, 560), 11)
    assert not label.away
    assert math.hypot(label.x - 500, label.y - 300) < 30


def change(name: str, norm: float, elements: int = 100) -> dict[str, object]:
    return {"name": name, "elements": elements, "changed": elements, "norm": norm}


def test_the_map_is_relative_only_where_every_weight_is_known() -> None:
    """0.5 over √100 is 0.05; over a weight of norm 2 it is 0.25."""
    changes = [change("model.layers.1.mlp.up_proj.weight", 0.5)]
    plainly = map_changes(changes, 3, {})
    assert plainly is not None
    assert (plainly.relative, plainly.kinds[0].largest) == (False, pytest.approx(0.05))
    relative = map_changes(changes, 3, {"model.layers.1.mlp.up_proj.weight": 2.0})
    assert relative is not None
    assert (relative.relative, relative.kinds[0].largest) == (True, pytest.approx(0.25))
    assert map_changes([], 3, {}) is None


def test_the_map_has_a_square_where_something_changed() -> None:
    """Column 0 is what is in no layer; layer 2 is column 3, the second kind the second line."""
    changes = [
        change("model.embed_tokens.weight", 0.1),
        change("model.layers.2.mlp.up_proj.weight", 10),
    ]
    heat = map_changes(changes, 3, {})
    assert heat is not None
    assert heat.columns == ("–", "0", "1", "2")
    squares = [re.findall(r"M(\d+) (\d+)", path) for path in heat.paths]
    assert squares[0] == [("0", "0")]
    assert squares[LEVELS - 1] == [("42", "14")]
    assert sum(map(len, squares)) == 2


def test_a_change_that_is_no_number_has_a_square_of_its_own() -> None:
    heat = map_changes([{**change("model.layers.0.a.weight", 1.0), "norm": "nan"}], 1, {})
    assert heat is not None
    assert heat.unknown.startswith("M0 0")
    assert not any(heat.paths)


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.layers.12.self_attn.q_proj.weight", "self_attn.q_proj", 12),
        ("transformer.h.3.mlp.c_fc.bias", "mlp.c_fc.bias", 3),
        ("model.embed_tokens.weight", "embed_tokens", -1),
        ("lm_head.weight", "lm_head", -1),
    ],
)
def test_tensors_by_kind_and_layer(name: str, kind: str, layer: int) -> None:
    assert split_name(name) == (kind, layer)


def test_drawings_have_text_variables_and_no_style() -> None:
    pytest.importorskip("matplotlib")
    points = [point("npo$x^2$</text>", 0.2, 0.1), Point("noop", "target", (1, 0, 2), (1, 0, 2))]
    svg = draw_plane("p", "title <b>", UP, DOWN, points)
    assert "npo$x^2$&lt;/text&gt;" in svg
    assert "var(--target)" in svg
    assert "title &lt;b&gt;" in svg
    assert not re.search(r"style=|#0[0-9a-f]0[0-9a-f]|http|<script", svg)
    assert svg == draw_plane("p", "title <b>", UP, DOWN, points)


@pytest.mark.parametrize("sign", [1, -1])
def test_one_far_difference_leaves_the_others_apart(sign: int) -> None:
    """Beside 300,000 a difference of 1 and one of 40 would be a hundredth of a pixel apart."""
    pytest.importorskip("matplotlib")
    column = Column("wikitext_mini", "word_perplexity", "lower", "perplexity", True)

    def draw(*values: float) -> str:
        bars = [[Bar(sign * value, math.nan, math.nan, False, None) for value in values]]
        return draw_differences("d", "t", [column], [str(value) for value in values], bars)

    svg = draw(1, 40, 300_000)
    near, farther, far = (float(x) for x in re.findall(r'<use x="([\d.]+)"', svg))
    assert abs(farther - near) > 10
    assert abs(far - farther) > 100
    assert "logarithmic beyond 100" in svg
    assert "logarithmic" not in draw(1, 40, 90)


def test_two_drawings_share_no_id() -> None:
    pytest.importorskip("matplotlib")
    column = Column("fur", "forget_choice_acc", "lower", "share", True)
    bars = [[Bar(0.1, 0.0, 0.2, True, False), None]]
    one, other = (draw_differences(n, "t", [column], ["a", "b"], bars) for n in ("d0", "d1"))
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in ((one, ids[0]), (other, ids[1])):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {
            pair for name in own for pair in ((name, ""), ("", name))
        }
    assert "missing" in one
    assert "var(--worse)" in one


def test_what_the_page_would_ignore_becomes_attributes() -> None:
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" version="1.1">'
        "<style>*{}</style>"
        '<path style="fill: #010101; stroke-width: 2; clip: auto" d="M 1.23456 2"/></svg>'
    )
    svg = fit_for_page(drawing, "x", "t")
    assert '<path d="M 1.23 2" fill="var(--ink)" stroke-width="2" />' in svg
    assert svg.startswith(
        '<svg viewBox="0 0 10 10" width="10" height="10" role="img"><title>t</title>'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (-0.5, "−0.500"), (123.45, "123.5"), (2e5, "2.0e+05"), (1e-5, "1.0e−05"),
     (7e-18, "0.000"), (math.nan, "missing"), (math.inf, "∞")],
)  # fmt: skip
def test_numbers_for_people(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([1, 0], "0, 1"),
        ([2, 0, 1], "0–2"),
        ([9, 0, 1, 2, 3, 5, 6], "0–3, 5, 6, 9"),
    ],
)
def test_seeds_in_a_row_are_told_by_their_ends(seeds: list[int], text: str) -> None:
    assert spans(seeds) == text


def test_structures_in_words() -> None:
    assert plain({"a": {"b": [1, 2.5]}, "on": True}) == "a (b 1, 2.5); on yes"
    assert plain({"until": ["\n", "x"]}) == "until '\\n', x"
    assert brief(0.0012345) == "0.00123"
