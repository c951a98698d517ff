"""How long a run still takes: the estimates of its cells, corrected by what finished ones took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import fmean

from unlearn_bench.runs.estimate import Estimate, minutes


class TimeLeft:
    """The cells that are to be computed, by key, and how far their estimates have been off.

    Edits and evaluations are corrected apart. Every model of a run is asked the same, so what one
    evaluation took tells what the others will; edits differ, so the correction starts at 1 with the
    weight of one average edit. clock: wall time in seconds, given by tests.
    """

    def __init__(
        self, estimates: Mapping[str, Estimate], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.remaining = dict(estimates)
        self.clock = clock
        self.current, self.began = "", 0.0
        self.typical_edit = fmean(e.edit_seconds for e in estimates.values()) if estimates else 0.0
        self.expected = {"edit": 0.0, "evaluate": 0.0}
        self.took = {"edit": 0.0, "evaluate": 0.0}

    def begin(self, key: str) -> None:
        """Let this cell count for less from now on, second by second."""
        self.current, self.began = key, self.clock()

    def count(self, key: str, seconds: Mapping[str, float]) -> None:
        """A cell has ended. seconds: by step; steps that it did not reach teach nothing."""
        estimate = self.remaining.pop(key, None)
        if estimate is None:
            return
        if "edit" in seconds:
            self.expected["edit"] += estimate.edit_seconds
            self.took["edit"] += seconds["edit"]
        if "score" in seconds:
            self.expected["evaluate"] += estimate.evaluate_seconds
            self.took["evaluate"] += seconds.get("evaluate", 0.0) + seconds["score"]

    @property
    def seconds(self) -> float:
        """Wall seconds that the remaining cells are expected to take.

        The one that is at work counts for less from second to second, down to nothing.
        """
        expected = {key: self._corrected(estimate) for key, estimate in self.remaining.items()}
        spent = self.clock() - self.began
        current = max(expected.pop(self.current, 0.0) - spent, 0.0)
        return current + sum(expected.values())

    def _corrected(self, estimate: Estimate) -> float:
        edit = estimate.edit_seconds * self._correction("edit", self.typical_edit)
        return edit + estimate.evaluate_seconds * self._correction("evaluate", 0.0)

    def _correction(self, step: str, weight: float) -> float:
        expected = self.expected[step] + weight
        return (self.took[step] + weight) / expected if expected else 1.0

    def __str__(self) -> str:
        """For people; empty when no cell is left."""
        return f"{minutes(self.seconds)} left" if self.remaining else ""
