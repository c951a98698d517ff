"""Plan likelihood requests so that no shared token is computed twice.

lm-eval asks for log p(continuation | context) one pair at a time: the options of one question share
the question, and all questions of a few-shot task share the prompt. Merged into a prefix tree, each
distinct token needs one forward position. Prefixes shared by many rows become a *trunk*, whose keys
and values are computed once; what hangs below is cut into *rows* of a size that batches well, each
a small tree evaluated in one sequence under an ancestor mask.

Tree attention as in SpecInfer (arXiv 2305.09781, §4.2), used here for scoring instead of drafting.
No torch in this file: it is pure planning and is tested as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MIN_TRUNK = 32  # a trunk costs one forward pass of its own: shorter ones do not pay
MAX_ROW = 192  # nodes per row: attention inside a row is dense, so its cost grows with this


@dataclass(frozen=True)
class Request:
    """Score `continuation` after `context` (token ids; both non-empty).

    moments: also of the whole vocabulary at every place, which costs three passes over its logits.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    moments: bool = False

    @property
    def fed(self) -> tuple[int, ...]:
        """The tokens a model must read: the last continuation token is only predicted."""
        return self.context + self.continuation[:-1]


@dataclass
class Row:
    """One tree, flattened in depth-first order below a trunk.

    tokens, depths, parents: (T,) per node; `parents` is −1 for children of the trunk, `depths`
    counts from the start of the text. edges: for each request index, the node from which each of
    its continuation tokens is predicted.
    """

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    edges: dict[int, list[int]] = field(default_factory=dict)

    @property
    def is_chain(self) -> bool:
        """True if no node has two children: plain causal attention is then the right mask."""
        return self.parents == list(range(-1, len(self.parents) - 1))

    def ancestors(self) -> NDArray[np.bool_]:
        """(T, T): entry [i, j] says whether node i may attend to node j (itself included)."""
        mask = np.zeros((len(self.tokens),) * 2, dtype=np.bool_)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node] = mask[parent]
            mask[node, node] = True
        return mask


@dataclass
class Group:
    """Rows that continue one trunk (possibly empty)."""

    trunk: tuple[int, ...]
    rows: list[Row]

    @property
    def tokens(self) -> int:
        """Forward positions this group costs."""
        return len(self.trunk) + sum(len(row.tokens) for row in self.rows)


def plan_groups(
    requests: Sequence[Request], *, min_trunk: int = MIN_TRUNK, max_row: int = MAX_ROW
) -> list[Group]:
    """Cut the prefix tree of all requests into trunks and rows. Every request is in one row."""
    order = sorted(range(len(requests)), key=lambda index: requests[index].fed)
    planner = _Planner(requests, order, min_trunk, max_row)
    groups: dict[tuple[int, ...], Group] = {}
    for trunk, members in planner.cut(0, len(order), 0):
        group = groups.setdefault(trunk, Group(trunk, []))
        group.rows.append(_build_row(requests, members, len(trunk)))
    return list(groups.values())


class _Planner:
    """Recursive descent over ranges of the lexicographically sorted requests."""

    def __init__(
        self, requests: Sequence[Request], order: list[int], min_trunk: int, max_row: int
    ) -> None:
        self.requests, self.order = requests, order
        self.min_trunk, self.max_row = min_trunk, max_row
        fed = [requests[index].fed for index in order]
        self.fed = fed
        # shared[i]: tokens that sorted request i has in common with its predecessor
        self.shared = [0, *(common_prefix(a, b) for a, b in pairwise(fed))]

    def cut(self, low: int, high: int, start: int) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Yield (trunk, request indices of one row) for the sorted range [low, high)."""
        if high <= low:
            return
        if self._nodes(low, high, start) <= self.max_row or high - low == 1:
            yield self.fed[low][:start], self.order[low:high]
            return
        prefix = self._common(low, high)
        # The trunk ends before any request's last context token: all predictions are in rows.
        shortest = min(len(self.requests[index].context) for index in self.order[low:high])
        trunk_end = min(prefix, shortest - 1)
        if trunk_end - start >= self.min_trunk:
            start = trunk_end
        yield from self._cut_children(low, high, start, prefix)

    def _cut_children(
        self, low: int, high: int, start: int, depth: int
    ) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Split at `depth` by next token; neighbours that fit together share one row."""
        pending = low
        for begin, end in self._children(low, high, depth):
            if self._nodes(begin, end, start) > self.max_row:
                yield from self._emit(pending, begin, start)
                yield from self.cut(begin, end, start)
                pending = end
            elif self._nodes(pending, end, start) > self.max_row:
                yield from self._emit(pending, begin, start)
                pending = begin
        yield from self._emit(pending, high, start)

    def _emit(self, low: int, high: int, start: int) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        if high > low:
            yield self.fed[low][:start], self.order[low:high]

    def _children(self, low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
        begin = low
        for index in range(low + 1, high):
            if self.shared[index] <= depth:
                yield begin, index
                begin = index
        yield begin, high

    def _common(self, low: int, high: int) -> int:
        return min(self.shared[low + 1 : high], default=len(self.fed[low]))

    def _nodes(self, low: int, high: int, start: int) -> int:
        first = len(self.fed[low]) - start
        return first + sum(
            len(self.fed[index]) - max(self.shared[index], start) for index in range(low + 1, high)
        )


def _build_row(requests: Sequence[Request], members: Sequence[int], start: int) -> Row:
    row = Row()
    path: list[int] = []  # node of each depth on the current branch
    previous: tuple[int, ...] = ()
    for index in members:
        fed = requests[index].fed
        keep = max(common_prefix(previous, fed) - start, 0)
        del path[keep:]
        for depth in range(start + keep, len(fed)):
            row.parents.append(path[-1] if path else -1)
            row.tokens.append(fed[depth])
            row.depths.append(depth)
            path.append(len(row.tokens) - 1)
        first = len(requests[index].context) - 1 - start
        row.edges[index] = path[first : first + len(requests[index].continuation)]
        previous = fed
    return row


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length
