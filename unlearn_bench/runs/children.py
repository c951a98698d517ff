"""The processes that this one started, and theirs."""

from __future__ import annotations

import contextlib

import psutil

PATIENCE = 5.0  # seconds that a process gets to end by itself


def end_children() -> None:
    """Ask every child process of this one to end, and theirs, then kill those that stay."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
