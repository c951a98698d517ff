"""docs/tasks.md: what protocols, data sets and suites say, and Markdown that renders as meant."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt  # rich brings it

from unlearn_bench.config import list_suites
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.task_page import main

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "tasks.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as `make docs` writes it."""
    page = tmp_path_factory.mktemp("docs") / "tasks.md"
    main(page)
    return page.read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_protocols_say(written: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == written, "docs/tasks.md is stale: run `make docs`"


def sections(page: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    _, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return dict(part.split("\n", 1) for part in parts)


def test_every_task_is_there_with_every_metric_its_unit_and_its_direction(written: str) -> None:
    """Read back out of the tables: nothing of a protocol is left out, and nothing is added."""
    words = {"higher": "higher", "lower": "lower", "nearer_exact": "nearer the exact model"}
    text = sections(written)
    for protocol in list_protocols().values():
        section = text[protocol.folder.name]
        assert f"`{protocol.name}`" in section
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (yes|) \|$", section, re.MULTILINE)
        every = {**protocol.metrics, **protocol.against_exact}
        if protocol.mini:
            (told,) = re.findall(r"^The mini set has nothing for (.*)\.$", section, re.M) or [""]
            rows = [row for row in rows if f"`{row[0]}`" not in told]
        assert {name: (unit, better, head) for name, unit, better, head in rows} == {
            name: (
                metric.unit,
                words.get(metric.direction, "–"),
                "yes" if name in protocol.headline else "",
            )
            for name, metric in every.items()
        }
        assert len(rows) == len(every)


def test_items_are_those_of_the_suites(written: str) -> None:
    """quick asks 52 facts of fur and 8 pages of the mini set in place of one of WikiText's."""
    text = sections(written)
    quick = list_suites()["quick"]
    assert f"`quick` {quick.limits['fur']}, `full` all" in text["fur"]
    assert f"of the mini set `smoke` 1, `quick` {quick.limits['wikitext_mini']}" in text["wikitext"]
    assert "in no suite: `--tasks jailbreak_harmbench`" in text["jailbreak_harmbench"]
    assert "in place of `fur`" in text["tofu"]


def test_no_description_is_taken_for_markup_and_every_link_has_its_target(written: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(written)
    assert re.findall(r"<em>(.*?)</em>", html) == ["Headline", "rewordings"]
    for link in set(re.findall(r'<a href="((?!http|#)[^"#]+)', html)):
        assert (PAGE.parent / link).exists(), link
    for table in re.findall(r"(?:^\|.*\n)+", written, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_writing_the_page_imports_nothing_heavy() -> None:
    heavy = "torch", "transformers", "datasets", "lm_eval", "vllm", "pandas"
    code = f"import sys, unlearn_bench.task_page; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
