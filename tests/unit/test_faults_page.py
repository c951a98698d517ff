"""docs/design/faults.md names a test for every fault, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design" / "faults.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| (\d+ )?\| ", line)][1:]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_of(file: str) -> set[str]:
    path = ROOT / file
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_rows_in_order() -> None:
    numbers = [number for row in ROWS for number in re.findall(r"\d+", row[0])]
    assert numbers == [str(number) for number in range(1, 26)]
    assert [row for row in ROWS if not TEST.search(row[-1])] == []


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) == PAGE.count("::")
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(file)] == []
