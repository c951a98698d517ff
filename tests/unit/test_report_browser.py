"""The report in a real browser: what its script, its style and its policy make of it there."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit import report_cells
from tests.unit.browser import Browser, Tab, opened
from tests.unit.report_cells import write_cell
from tests.unit.test_report import SIGN, hostile_run, small_run
from unlearn_bench.board.report import write_report
from unlearn_bench.schema import ItemScore

pytest.importorskip("matplotlib")

DESK, PHONE = 1280, 412
PERPLEXITY = "wikitext_mini.word_perplexity"
BOARD = "document.querySelector('#board-table')"
HEAD = f"[...{BOARD}.tHead.querySelectorAll('th')].find(h => h.title.startsWith('{PERPLEXITY}'))"
METHODS = f"[...{BOARD}.querySelectorAll('tbody.method tr')].map(r => r.querySelector('a').text)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


def test_hostile_text_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    """Had one of the scripts run, the title would say so; the page's own script has, since the
    heads are buttons.
    """
    with opened(browser, write_report([hostile_run(tmp_path)])) as tab:
        title = tab.run("document.title")
        assert title.endswith("unlearn-bench")
        assert not title.startswith(SIGN)
        assert tab.run("document.querySelectorAll('th button').length") > 0


def perplexities(run: Path, monkeypatch: pytest.MonkeyPatch, *values: float) -> Path:
    """A run whose target, exact model and methods have these values; NaN: missing."""
    whole, left = report_cells._items, iter((50.0, 60.0, *values))

    def with_value(draw: random.Random) -> Iterator[ItemScore]:
        value = next(left)
        for row in whole(draw):
            own = row.task == "wikitext_mini"
            yield replace(row, value=-row.weight * math.log(value)) if own else row

    monkeypatch.setattr(report_cells, "_items", with_value)
    return small_run(run, len(values))


def test_a_click_on_a_head_sorts_numbers_as_numbers(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As texts 100 would come before 20, and 20 before 9. What is missing is last either way."""
    run = perplexities(tmp_path, monkeypatch, 20.0, math.nan, 100.0, 9.0)
    with opened(browser, write_report([run])) as tab:
        state = f"{HEAD}.getAttribute('aria-sort')"
        assert tab.run(state) is None
        for state_after, order in (("ascending", "3 0 2 1"), ("descending", "2 0 3 1")):
            tab.click(f"{HEAD}.querySelector('button')")
            assert tab.run(state) == state_after
            assert tab.run(METHODS) == [f"method_{number}" for number in order.split()]
        name = f"{BOARD}.tHead.querySelector('th.first')"
        tab.click(f"{name}.querySelector('button')")
        assert tab.run(f"{name}.getAttribute('aria-sort')") == "ascending"
        assert tab.run(state) is None  # one column at a time
        assert tab.run(METHODS) == [f"method_{number}" for number in range(4)]
        bodies = f"[...{BOARD}.tBodies].map(b => b.className)"
        assert tab.run(bodies) == ["target", "exact", "method"]


def test_a_row_leads_to_its_samples(browser: Browser, tmp_path: Path) -> None:
    """The link opens the method's fold and brings its answers into sight; one click on the command
    marks all of it, to be copied.
    """
    page = write_report([small_run(tmp_path, 12)])
    row = f"{BOARD}.querySelector('tbody.method tr:nth-child(5)')"
    with opened(browser, page) as tab:
        tab.click(f"{row}.querySelector('.ways summary')")
        code = f"{row}.querySelector('code')"
        tab.click(code)
        ends = f"[{code}, {row}.cells[0]].map(e => e.getBoundingClientRect().right)"
        assert sorted(tab.run(ends)) == tab.run(ends)  # within its cell
        assert tab.run("getSelection().toString().trim()") == tab.run(f"{code}.textContent")
        tab.click(f"{row}.querySelector('.ways a')")
        tab.run("new Promise(requestAnimationFrame)")
        goal = "document.getElementById(location.hash.slice(1))"
        assert tab.run(f"{goal}.closest('details').open")
        own = tab.run(f"{row}.querySelector('a').text").replace("method_", "answer ")
        assert own in tab.run(f"{goal}.closest('details').textContent")
        assert 0 <= tab.run(f"{goal}.getBoundingClientRect().top") < 100


# Of the first plane: the entrants' names; those that leave the drawing; pairs of which one stands
# on the other by more than a line's leading.
NAMES = """(() => {
    const svg = document.querySelector('#trade-offs svg'), whole = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')]
        .filter(text => /^(method_|noop|exact_|partly)/.test(text.textContent))
        .map(text => ({name: text.textContent, box: text.getBoundingClientRect()}));
    const common = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]);
    return {
        names: texts.map(text => text.name),
        outside: texts.filter(({box}) => box.left < whole.left || box.right > whole.right
            || box.top < whole.top || box.bottom > whole.bottom).map(text => text.name),
        covered: texts.flatMap((a, place) => texts.slice(place + 1).filter(b =>
            common(a.box, b.box, 'left', 'right') > 2 && common(a.box, b.box, 'top', 'bottom') > 4
        ).map(b => [a.name, b.name])),
    };
})()"""


def lights(tab: Tab) -> dict[str, str]:
    """Whether the page's ground, and the names in its drawings, are light or dark."""
    colours = tab.run(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('#trade-offs svg text')).fill]"
    )
    sums = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]
    return {
        name: "light" if n > 384 else "dark" for name, n in zip(("paper", "ink"), sums, strict=True)
    }


def with_losses(run: Path, methods: int) -> Path:
    """Methods, two that ended without scores and one that lacks some."""
    small_run(run, methods)
    write_cell(run, "burst", status="diverged", reason="loss is nan at step 3, then " + "x" * 300)
    write_cell(run, "broken", status="failed", reason="out of memory")
    write_cell(run, "partly", status="incomplete", reason="3 of 8 missing")
    return run


@pytest.mark.parametrize("methods", [1, 12, 40])
def test_only_tables_scroll_and_planes_are_legible(
    browser: Browser, tmp_path: Path, methods: int
) -> None:
    """With every fold open. A phone that had to widen the page would say a wider `innerWidth`, so
    the page is held against the phone.
    """
    page = write_report([with_losses(tmp_path, methods)])
    with opened(browser, page, DESK) as tab:
        assert tab.run("document.documentElement.scrollWidth") <= DESK
        plane = tab.run(NAMES)
        assert len(plane["names"]) == methods + 3  # target, exact model, and one that lacks some
        assert plane["outside"] == plane["covered"] == []
        assert lights(tab) == {"paper": "light", "ink": "dark"}
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        tab.ask("Emulation.setEmulatedMedia", features=features)
        assert lights(tab) == {"paper": "dark", "ink": "light"}
    with opened(browser, page, PHONE) as tab:
        assert tab.run(f"{BOARD}.querySelectorAll('tbody.method tr').length") == methods + 1
        lost = "[...document.querySelectorAll('.lost tbody th')].map(h => h.textContent)"
        assert sorted(tab.run(lost)) == ["broken", "burst"]
        tab.run("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        assert tab.run("document.documentElement.scrollWidth") <= PHONE
        assert tab.run("innerWidth") == PHONE
        tab.run(f"{BOARD}.parentElement.scrollTo(300, 0); scrollTo(300, 0)")
        assert tab.run(f"[{BOARD}.parentElement.scrollLeft, scrollX]") == [300, 0]
        first = f"{BOARD}.querySelector('tbody .first').getBoundingClientRect()"
        assert 0 <= tab.run(f"{first}.left") < tab.run(f"{first}.right") < PHONE / 2


def test_a_report_of_nothing_but_missing_values(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No method, no exact model and no value: a board of one row. Of no cell there is no page."""
    whole = report_cells._items
    monkeypatch.setattr(
        report_cells, "_items", lambda draw: (replace(row, value=math.nan) for row in whole(draw))
    )
    write_cell(tmp_path, "noop", status="incomplete", reason="no value of any item")
    for width in (DESK, PHONE):
        with opened(browser, write_report([tmp_path]), width) as tab:
            assert tab.run(f"[...{BOARD}.tBodies].map(b => b.rows.length)") == [1]
            assert tab.run(f"{BOARD}.querySelectorAll('td[data-v]').length") == 2  # its costs
            tab.click(f"{BOARD}.querySelector('th button')")
            assert tab.run("document.documentElement.scrollWidth") <= width
