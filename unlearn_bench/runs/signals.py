"""What Ctrl-C and a polite kill do to a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


def sigterm_as_interrupt() -> contextlib.AbstractContextManager[None]:
    """A polite kill ends a run as Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    return _handling(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Ctrl-C and a polite kill do nothing inside the block."""
    with (
        _handling(signal.SIGINT, signal.SIG_IGN),
        _handling(signal.SIGTERM, signal.SIG_IGN),
    ):
        yield


@contextlib.contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle one signal so inside the block; only the main thread may, others change nothing."""
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)
