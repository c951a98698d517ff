"""The root command, and what all commands share: how they end, and how examples are shown."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer

from unlearn_bench import __version__
from unlearn_bench.board.visible import visible
from unlearn_bench.errors import CancelledError, UnlearnBenchError

PROGRAM = "unlearn-bench"


def examples(*lines: str) -> str:
    """The foot of a command's help: what one would type, each on a line of its own.

    Every line is run by `tests/end_to_end/test_written_commands.py`.
    """
    return "\n\n".join(["Examples:", *(f"{PROGRAM} {line}" for line in lines)])


app = typer.Typer(
    name=PROGRAM,
    help="Compare methods that make language models forget, update or detoxify.",
    epilog=examples("doctor", "evaluate --methods all --dry-run", "report runs"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def ends_cleanly(command: Callable[..., None]) -> Callable[..., None]:
    """Turn known errors into a message and their exit code; Ctrl-C into 130."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UnlearnBenchError as error:
            if isinstance(error, CancelledError):  # all is recorded: more Ctrl-C change nothing
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            typer.echo(f"error: {visible(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("cancelled", err=True)
            raise typer.Exit(130) from None

    return guarded


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What may stand before any command."""
