"""Links from pages to files beside docs/, on the site.

The repository's other Markdown (tasks, boards, contributing) becomes pages of the same relative
path, so that a link to it works in both places. A link to a file that is no page, such as a
method's source, keeps its text only. What leads nowhere stays, and `mkdocs build --strict` refuses
it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (
    "tasks/*/README.md", "leaderboards/**/*.md", "examples/**/README.md", "CONTRIBUTING.md",
    "CHANGELOG.md",
)  # fmt: skip
# In this order at every place: what stands in a block or between backticks is no link, but a
# link's text may have backticks in it.
PART = re.compile(
    r"^```.*?^```"
    r"|\[(?P<text>(?:[^\[\]\\]|\\.)*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)"
    r"|(?P<ticks>`+)[^`].*?(?P=ticks)",
    re.MULTILINE | re.DOTALL,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the Markdown outside docs/ as pages."""
    for pattern in PAGES:
        for path in sorted(REPOSITORY.glob(pattern)):
            name = path.relative_to(REPOSITORY).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead every relative link to where its target is on the site, if it is there."""
    own = page.file.src_uri
    inside = Path(str(page.file.abs_src_path)).is_relative_to(config.docs_dir)
    folder = posixpath.dirname(f"docs/{own}" if inside else own)

    def lead(part: re.Match[str]) -> str:
        if not part["path"]:
            return part[0]
        path = posixpath.normpath(posixpath.join(folder, part["path"]))
        place = path.removeprefix("docs/")
        if files.get_file_from_path(place) is None:
            return part["text"] if (REPOSITORY / path).exists() else part[0]
        there = posixpath.relpath(place, posixpath.dirname(own) or ".")
        return f"[{part['text']}]({there}{part['anchor'] or ''})"

    return PART.sub(lead, markdown)
