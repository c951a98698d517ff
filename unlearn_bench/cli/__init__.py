"""The command line: parse, call, print. What a command does is in the modules it calls."""

from __future__ import annotations

import io
import sys
from importlib import import_module

from unlearn_bench.cli.root import app

# Each is a file that adds itself to the app; the help lists them in this order.
COMMANDS = (
    "evaluate", "tune", "sequence", "verify", "compare", "gate", "board", "report", "show", "names",
    "doctor",
)  # fmt: skip
for command in COMMANDS:
    import_module(f"{__name__}.{command}")

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of `unlearn-bench` and `python -m unlearn_bench`.

    What a terminal's encoding lacks is written as its code: an arrow must stop no run and no
    verdict.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(obj=(sys.executable, *sys.orig_argv[1:]))  # how a command starts itself once more
