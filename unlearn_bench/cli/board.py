"""`unlearn-bench board`: leaderboards of several runs and people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unlearn_bench.board.visible import visible
from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples


class BoardGroup(TyperGroup):
    """Its commands; a folder where one of them should stand is what is to be merged."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, or `merge` of all words."""
        word = args[0]
        if word not in self.commands and Path(word).is_dir():
            args = ["merge", *args]
        elif word not in self.commands:
            ctx.fail(
                f"{visible(word)!r} is neither a command of board ({', '.join(self.commands)}) nor "
                "a folder to merge. For a board's file: board merge FILE"
            )
        return super().resolve_command(ctx, args)


board_app = typer.Typer(
    cls=BoardGroup,
    no_args_is_help=True,
    help="Merge, validate and publish leaderboards. `board DIR...` is `board merge DIR...`.",
    epilog=examples("board runs other/runs", "board validate quick.json"),
)
app.add_typer(board_app, name="board")


@board_app.command("merge", epilog=examples("board merge runs other/runs -o leaderboards"))
@ends_cleanly
def board_merge(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Output folders of runs, JSON files of boards, or folders of these.",
            metavar="DIR|FILE...",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the leaderboards.")
    ] = Path("leaderboards"),
    apart: Annotated[
        bool,
        typer.Option("--apart", help="A board of its own for rows under another protocol."),
    ] = False,
) -> None:
    """Put runs of several models, machines and people on one board per model and suite.

    Rows that are there already stay. Rows under different protocols are refused, by field.
    """
    from unlearn_bench.board_commands import run_merge

    raise typer.Exit(run_merge(paths, output, apart=apart))


@board_app.command("validate", epilog=examples("board validate quick.json --run runs"))
@ends_cleanly
def board_validate(
    files: Annotated[list[Path], typer.Argument(help="JSON files of boards.", metavar="FILE...")],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--run", help="A run's folder: rows must be its cells. Repeatable."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what is wrong with a board that somebody hands in, by row and column.

    Ends with 0 when nothing is, 1 on a fault, 2 on wrong usage.
    """
    from unlearn_bench.board_commands import run_validate

    raise typer.Exit(run_validate(files, runs or [], as_json=as_json))


@board_app.command("publish", epilog=examples("board publish quick.json --to owner/name --dry-run"))
@ends_cleanly
def board_publish(
    file: Annotated[Path, typer.Argument(help="The JSON file of a board.", metavar="FILE")],
    to: Annotated[str, typer.Option(help="The hub repository, owner/name. It must exist.")],
    kind: Annotated[
        str,
        typer.Option(help="dataset: the board's files; model: one row, in the model's card."),
    ] = "dataset",
    row: Annotated[
        str,
        typer.Option(help="For a model: METHOD, METHOD@SEED, or digits of a weights fingerprint."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, use no network.")
    ] = False,
) -> None:
    """Send a board to a hub dataset, or one row's results to a hub model's card."""
    from unlearn_bench.board_commands import run_publish

    raise typer.Exit(run_publish(file, to, kind, row, dry_run=dry_run))
