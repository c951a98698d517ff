"""What a decorator's `search` may say, and what is drawn of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.methods.search import Choice, Range, search_space
from unlearn_bench.registry import Card, find_card

METHOD = '''
from typing import Annotated
from pydantic import Field
from unlearn_bench.registry import method

@method("mine", kind="edit", needs=(), targets=("*",), goals=("forget",), search={search})
def mine(
    context,
    *,
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1,
    steps: int = 4,
    layer: int | None = None,
):
    """A method of a user's own."""
    return {{}}
'''


def card(folder: Path, search: str) -> Card:
    file = folder / f"m{abs(hash(search))}.py"
    file.write_text(METHOD.format(search=search))
    return find_card("method", "mine", (file,))


def space(folder: Path, search: str, **fixed: Any) -> dict[str, Choice | Range]:
    return search_space(card(folder, search), fixed)


def test_lists_are_choices_and_tuples_are_ranges(tmp_path: Path) -> None:
    found = space(tmp_path, '{"rate": (0.01, 1.0, "log"), "steps": (1, 8), "layer": [None, 3, -1]}')
    assert found == {
        "rate": Range(0.01, 1.0, log=True),
        "steps": Range(1, 8),
        "layer": Choice((None, 3, -1)),
    }
    assert (found["steps"].whole, found["rate"].whole) == (True, False)  # type: ignore[union-attr]


def test_a_fixed_option_is_not_drawn_and_may_lie_outside(tmp_path: Path) -> None:
    assert list(space(tmp_path, '{"rate": (0.01, 0.5), "steps": (1, 8)}', rate=0.9)) == ["steps"]


def test_no_search_is_an_empty_space(tmp_path: Path) -> None:
    assert space(tmp_path, "{}") == {}


@pytest.mark.parametrize(
    "search",
    [
        '{"rate": (0.01, 2.0)}',  # beyond what the option takes
        '{"rate": (0.2, 0.5)}',  # without the default
        '{"steps": [1, 2]}',  # without the default
        '{"layer": (1, 8)}',  # without the default, which is no number
        '{"rate": (0.5, 0.01)}',
        '{"steps": (0, 8, "log")}',
        '{"rate": (0.01, 0.5, "sqrt")}',
        '{"rate": 0.1}',
        '{"rate": []}',
        '{"steps": ["few", 4]}',
        '["rate"]',
    ],
)
def test_a_space_that_does_not_fit_is_refused(tmp_path: Path, search: str) -> None:
    with pytest.raises(UsageError):
        space(tmp_path, search)


def test_an_unknown_option_gets_the_near_match(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="rate"):
        space(tmp_path, '{"rat": (0.1, 0.5)}')
