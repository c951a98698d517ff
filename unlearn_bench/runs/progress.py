"""What a person sees while a run works: a bar on a terminal, plain timed lines elsewhere.

Libraries are quiet unless `-v`: their bars and notices would bury the cell that is running.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

Tick = Callable[[str, int, int], None]
SHORT = 2.0  # seconds below which a step's end is not worth a line
PLAIN_INTERVAL = 10.0  # seconds between plain lines of one step
CHATTY = (
    "transformers", "vllm", "lm_eval", "lm-eval", "datasets", "huggingface_hub", "accelerate",
    "peft", "httpx", "absl", "filelock", "torch", "py.warnings",
)  # fmt: skip
QUIET_ENVIRONMENT = {
    "ABSL_MIN_LOG_LEVEL": "2",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "LMEVAL_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def silence_libraries(*, verbose: bool) -> None:
    """Quieten every library we call, before any of them is imported; with `verbose`, do nothing.

    Variables that the user has set stand: they asked for them.
    """
    if verbose:
        logging.basicConfig(level=logging.INFO)
        return
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    _hide_bars()


def _hide_bars() -> None:
    """Let tqdm's bars draw nowhere. They stay enabled: vLLM divides by a bar's elapsed time, and
    lm-eval and transformers pass `disable=False` themselves, against TQDM_DISABLE.
    """
    bars: Any = importlib.import_module("tqdm").tqdm  # no stubs: Any
    make = bars.__init__

    def make_silent(bar: Any, *args: Any, **settings: Any) -> None:
        make(bar, *args, **{**settings, "file": io.StringIO()})

    bars.__init__ = make_silent


class _OutlookColumn(ProgressColumn):
    """Asked anew whenever the bar is drawn."""

    def __init__(self, outlook: Callable[[], object]) -> None:
        super().__init__()
        self.outlook = outlook

    def render(self, task: Task) -> Text:
        return Text(str(self.outlook()))


@dataclass
class Reporter:
    """Says what is going on.

    clock: wall time in seconds, given by tests. outlook: tells how long the whole run still takes,
    in words; it stands at the end of the bar.
    """

    console: Console = field(default_factory=lambda: Console(stderr=True, emoji=False))
    clock: Callable[[], float] = time.monotonic
    outlook: Callable[[], object] = str

    def say(self, text: str) -> None:
        """One line for the reader, with the time of day where there is no terminal."""
        stamp = "" if self.console.is_terminal else time.strftime("%H:%M:%S ")
        self.console.print(stamp + text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Tick]:
        """Show one step until the block ends; yields `tick(what, done, total)` for its inside."""
        began = self.clock()
        try:
            if self.console.is_terminal:
                with self._bar(title) as tick:
                    yield tick
            else:
                self.say(title)
                yield self._lines(title)
        except BaseException:
            self.say(f"{title}: stopped after {self.clock() - began:.1f} s")
            raise
        if (seconds := self.clock() - began) >= SHORT:
            self.say(f"{title}: {seconds:.1f} s")

    @contextlib.contextmanager
    def _bar(self, title: str) -> Iterator[Tick]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[what]}", markup=False),
            TimeElapsedColumn(),
            _OutlookColumn(self.outlook),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, what="")

            def tick(what: str, done: int, total: int) -> None:
                count = f" {done}/{total}" if total else ""
                progress.update(task, completed=done, total=total or None, what=what + count)

            yield tick

    def _lines(self, title: str) -> Tick:
        last = self.clock()

        def tick(what: str, done: int, total: int) -> None:
            nonlocal last
            if self.clock() - last >= PLAIN_INTERVAL:
                last = self.clock()
                self.say(f"{title}: {what} {done}/{total}" if total else f"{title}: {what}")

        return tick
