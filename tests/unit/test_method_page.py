"""docs/methods.md: up to date with the methods' files, and Markdown that renders as meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt  # rich brings it

from unlearn_bench.method_page import built_in, main, read_costs, split_source, to_markdown
from unlearn_bench.registry import list_cards

REPOSITORY = Path(__file__).resolve().parents[2]
BOARD = Path("leaderboards/smollm2-135m/quick.csv")
PAGE = REPOSITORY / "docs" / "methods.md"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The page as `make docs` writes it."""
    monkeypatch.chdir(REPOSITORY)
    main(BOARD, tmp_path / "methods.md")
    return (tmp_path / "methods.md").read_text(encoding="utf-8")


def without_figures(page: str) -> str:
    """The page without the measured seconds, bytes and counts, which differ from run to run.

    What stays is whether there are any.
    """
    page = re.sub(r"^\| cost \| \d.*$", "| cost | measured |", page, flags=re.MULTILINE)
    return re.sub(r"\| [\d.]+ \|$", "| measured |", page, flags=re.MULTILINE)


def test_the_committed_page_is_what_the_methods_say(written: str) -> None:
    """A board of one's own (`make evaluate`) changes figures only, and makes no page stale."""
    committed = without_figures(PAGE.read_text(encoding="utf-8"))
    assert committed == without_figures(written), "docs/methods.md is stale: run `make docs`"


def test_every_method_has_its_section_and_every_link_its_target(written: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(written)
    names = {card.name for card in built_in(list_cards("method").values())}
    assert names <= set(re.findall(r"<h3>(.*?)</h3>", html))
    assert names == set(re.findall(r'<a href="#(\w+)"><code>', html))
    for link in set(re.findall(r'<a href="((?!http|#)[^"]+)"', html)):
        assert (PAGE.parent / link).exists(), link


def test_no_formula_is_taken_for_markup(written: str) -> None:
    """The introduction's two emphasised words are the only ones; each table is as wide as its head.

    A bar inside a cell would have cut the cell, and a star or underscore begun emphasis.
    """
    html = MarkdownIt("commonmark").enable("table").render(written)
    assert re.findall(r"<em>(.*?)</em>", html) == ["loss", "edit"]
    assert "<strong>" not in html
    for table in re.findall(r"(?:^\|.*\n)+", written, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_a_docstring_becomes_markdown() -> None:
    doc = """Minimise a* and <b> by _x of W.

Layer ℓ is found first; then
    first line;  second line
        and deeper
go on. See arXiv:2212.04089.
alpha: the strength; read
docs/design/edits.md. max_count the limit, `kept` as it is.

1. One step that
   goes on.
2. Two.
The end."""
    expected = r"""Minimise a\* and \<b> by \_x of W.

Layer ℓ is found first; then

```text
first line;  second line
    and deeper
```

go on. See [arXiv:2212.04089](https://arxiv.org/abs/2212.04089).

`alpha`: the strength; read [docs/design/edits.md](design/edits.md). `max_count` the limit, `kept`
as it is.

1. One step that goes on.
2. Two.

The end.
"""
    assert to_markdown(doc, ["alpha", "max_count", "step"]) == expected


def test_a_sign_that_comes_to_begin_a_line_starts_no_list() -> None:
    """At 100 columns the sign comes to stand first in the second line."""
    for sign, escaped in (("+", "\\+"), ("2.", "2\\."), ("-", "\\-"), ("#", "\\#")):
        words = "x" * 99
        text = to_markdown(f"{words} {sign} y")
        assert text == f"{words}\n{escaped} y\n"
        assert MarkdownIt("commonmark").render(text) == f"<p>{words}\n{sign} y</p>\n"


def test_the_source_is_told_apart() -> None:
    doc = "Do.\n\nMore of it.\nSource: a paper,\nsection 2."
    assert split_source(doc) == ("Do.\n\nMore of it.", "a paper, section 2.")
    assert split_source("Do.") == ("Do.", "")


def test_costs_are_the_means_over_seeds_of_what_succeeded(tmp_path: Path) -> None:
    head = "method,seed,status,edit_seconds,peak_memory_bytes,forward_passes,backward_passes,parameters_touched\n"  # noqa: E501
    rows = "a,0,success,1,2e9,3,4,5\na,1,success,3,2e9,3,4,5\na,mean,success,2,2e9,3,4,5\n"
    (tmp_path / "board.csv").write_text(head + rows + "b,0,failed,,,,,\nc,0,success,9,1,1,1,1\n")
    costs = read_costs(tmp_path / "board.csv")
    assert {name: cost.seconds for name, cost in costs.items()} == {"a": 2, "c": 9}
