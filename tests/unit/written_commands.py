"""The commands that are written down for users: in the pages, the examples and the helps."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from unlearn_bench.cli import app

ROOT = Path(__file__).parents[2]
PROGRAM = "unlearn-bench"
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", "tasks/**/*.md")
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK_LINE = re.compile(rf"^    (?:\$ )?({PROGRAM} .*)$", re.MULTILINE)
INLINE = re.compile(rf"`({PROGRAM} [^`\n]+)`")


@dataclass(frozen=True)
class Written:
    """A command as it is written, and where."""

    line: str
    place: str

    @property
    def words(self) -> list[str]:
        """Without the program's name and the remark behind it."""
        return shlex.split(self.line, comments=True)[1:]


def whole_lines() -> list[Written]:
    """Every line that a reader could paste, once. `a|b` stands for a line with each."""
    found: dict[str, Written] = {}
    for line, place in (*_in_pages(BLOCK_LINE), *_in_helps()):
        for one in _alternatives(line):
            found.setdefault(" ".join(shlex.split(one, comments=True)), Written(one, place))
    return list(found.values())


def mentions() -> list[Written]:
    """Commands within a sentence: parts of one, which name commands and options."""
    return [Written(line, place) for line, place in _in_pages(INLINE)]


def _in_pages(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for page in sorted({page for glob in PAGES for page in ROOT.glob(glob)}):
        if not page.is_relative_to(ROOT / ".venv"):
            for match in pattern.finditer(_text(page)):
                yield match[1].strip(), page.relative_to(ROOT).as_posix()


def _text(page: Path) -> str:
    """The page with fenced blocks as indented ones, which a sentence can be told from."""
    text = page.read_text(encoding="utf-8")
    return FENCED.sub(lambda block: textwrap.indent(block[1], "    "), text)


def _in_helps() -> Iterator[tuple[str, str]]:
    for path, command in commands().items():
        for line in (command.epilog or "").split("\n\n"):
            if line.startswith(PROGRAM):
                yield line, f"{' '.join((PROGRAM, *path))} --help"


def commands() -> dict[tuple[str, ...], Any]:
    """Every command and group of the program by its path; the program itself is ()."""
    found: dict[tuple[str, ...], Any] = {}

    def add(path: tuple[str, ...], command: Any) -> None:
        found[path] = command
        for name, below in getattr(command, "commands", {}).items():
            add((*path, name), below)

    add((), typer.main.get_command(app))
    return found


def _alternatives(line: str) -> list[str]:
    choice = re.search(r"\S+\|\S+", line.partition("#")[0])
    if choice is None or "[" in line:
        return [line]
    return [line.replace(choice[0], word) for word in choice[0].split("|")]
