"""The documentation: it builds, asks no other server for anything, and names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from markdown_it import MarkdownIt  # rich brings it

from unlearn_bench.protocols.catalog import list_protocols

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [*(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")), *PAGES]
# What a browser fetches by itself, by element: the attributes that hold its address.
FETCHED = {
    "script": ("src",), "link": ("href",), "img": ("src", "srcset"), "source": ("src", "srcset"),
    "iframe": ("src",), "video": ("src", "poster"), "audio": ("src",), "object": ("data",),
    "embed": ("src",), "input": ("src",), "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}  # fmt: skip
REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make site` builds them."""
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install 'unlearn-bench[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet: mkdocs would not count its warnings then, and be strict about nothing.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--config-file", str(REPOSITORY / "mkdocs.yml"), "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Fetches(HTMLParser):
    """The addresses that a browser fetches for a page, and what its inline styles hold."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.styles.append(given.get("style", ""))
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        self.addresses += [given[name] for name in FETCHED.get(tag, ()) if name in given]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)


def remote_in_style(text: str) -> list[str]:
    """The addresses of another server in url(...) and @import."""
    found = re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)
    return [address for pair in found for address in pair if REMOTE.match(address)]


def test_the_pages_are_built_and_ask_no_other_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        seen = Fetches()
        seen.feed(page.read_text(encoding="utf-8"))
        assert seen.addresses
        remote = [address for address in seen.addresses if REMOTE.match(address)]
        assert remote + remote_in_style("\n".join(seen.styles)) == [], page.relative_to(site)
    for sheet in site.rglob("*.css"):
        assert remote_in_style(sheet.read_text(encoding="utf-8")) == [], sheet.relative_to(site)


def test_a_remote_address_would_be_seen() -> None:
    seen = Fetches()
    seen.feed('<script src="https://a"></script><style>@import "//b";</style><img srcset="//c">')
    assert seen.addresses == ["https://a", "//c"]
    assert remote_in_style("\n".join(seen.styles)) == ["//b"]
    assert remote_in_style("a { background: url( 'http://d/e' ) }") == ["http://d/e"]


def test_links_beside_the_pages_lead_somewhere_on_the_site(site: Path) -> None:
    """A task's README is a page of the site, and the link in docs/tasks.md leads to it; a method's
    source is none, and its name stays as text.
    """
    assert 'href="fur/"' in (site / "tasks" / "index.html").read_text(encoding="utf-8")
    assert (site / "tasks" / "fur" / "index.html").is_file()
    methods = (site / "methods" / "index.html").read_text(encoding="utf-8")
    assert "<td>unlearn_bench/methods/npo.py</td>" in methods
    for page in site.rglob("index.html"):
        for link in re.findall(r'<a href="([^"#:?]+)"', page.read_text(encoding="utf-8")):
            target = page.parent / link
            assert target.is_file() or (target / "index.html").is_file(), f"{page}: {link}"


def links(page: Path) -> Iterator[str]:
    """The relative links and pictures of a Markdown file, without their anchors."""
    html = MarkdownIt("commonmark").enable("table").render(page.read_text(encoding="utf-8"))
    for link in re.findall(r'(?:href|src)="([^"]*)"', html):
        path = link.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            yield path


@pytest.mark.parametrize("page", READ, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    absent = [link for link in links(page) if not (page.parent / link).exists()]
    assert absent == []


def test_the_pages_have_links_at_all() -> None:
    """The search for them has not gone blind."""
    assert {"../examples/gate", "schema.md"} <= {link for page in PAGES for link in links(page)}


@pytest.mark.parametrize("page", READ, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_column_that_is_named_is_one(page: Path) -> None:
    """Whoever writes `fur.forget_choice_accuracy` has made it up."""
    protocols = list_protocols()
    names = {
        name: {*own.metrics, *own.against_exact, *own.subtasks} for name, own in protocols.items()
    }
    files = {"md", "py", "yaml", "jsonl", "json"}
    wrong = [
        f"{task}.{metric}"
        for task, metric in re.findall(
            r"(?<![\w./*])(\w+)\.([a-z]\w*[a-z0-9])(?![\w*/?])", page.read_text(encoding="utf-8")
        )
        if task in names and metric not in names[task] | files
    ]
    assert wrong == []
