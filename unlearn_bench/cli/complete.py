"""What the shell offers after Tab: names that `list` knows, also the last of several with commas.

Switched on by `unlearn-bench --install-completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Completer = Callable[[str], list[tuple[str, str]]]


def complete_names(kind: str, *more: str) -> Completer:
    """A completer of the names of a `kind` (as `list` has them) and of `more` words.

    It is given what is typed so far, and returns (the whole word, one line about it). Names that
    are typed already are not offered again.
    """

    def offer(typed: str) -> list[tuple[str, str]]:
        before, comma, begun = typed.rpartition(",")
        taken = before.split(",")
        return [
            (f"{before}{comma}{name}", summary)
            for name, summary in _names(kind, more)
            if name.startswith(begun) and name not in taken
        ]

    return offer


def _names(kind: str, more: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    from unlearn_bench.listing import list_entries

    yield from ((word, "") for word in more)
    yield from ((entry.name, entry.summary) for entry in list_entries(kind))


def complete_kinds(typed: str) -> list[str]:
    """The kinds that `list` takes."""
    from unlearn_bench.listing import KINDS

    return [kind for kind in KINDS if kind.startswith(typed)]
