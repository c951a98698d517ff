"""What a run was given, kept beside its cells: for whoever repeats it, and to find its boards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.store import write_json

SETTINGS = "run.json"
PATHS = ("data", "leaderboards", "output", "scorer_checkpoint", "tuned")  # whatever they look like
FILES = (".py", ".yaml", ".yml", ".gguf")  # what is named by its path on the command line


def write_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Keep what the command was given beside its cells, folders made absolute."""
    kept = {
        name: str(Path(value).expanduser().resolve()) if name in PATHS else _absolute(value)
        for name, value in settings.items()
    }
    write_json(output / SETTINGS, kept)


def _absolute(value: Any) -> Any:
    """A path, or every path of a list, made absolute. A name without a folder and an ending is no
    path, even if there is a file of that name.
    """
    if isinstance(value, list):
        return [_absolute(part) for part in value]
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    looks = "/" in value or path.suffix in FILES
    return str(path.resolve()) if looks and path.exists() else value


def read_settings(output: Path) -> dict[str, Any]:
    """What the last command of this output folder was given. Raises UnlearnBenchError."""
    try:
        settings: dict[str, Any] = json.loads((output / SETTINGS).read_bytes())
        return {**settings, "output": str(output)}
    except (OSError, ValueError, TypeError) as error:
        raise UnlearnBenchError(
            f"the run's settings cannot be read: {error}",
            where=str(output / SETTINGS),
            next_step="run the same evaluate command again: finished cells are not run again",
        ) from error


def board_files(output: Path) -> Iterator[Path]:
    """The JSON files of the boards that were written for this run: below it, or in the folder that
    its last command named. They may hold rows of other runs.
    """
    own = output / "leaderboards"
    yield from sorted(own.glob("*/*.json"))
    with contextlib.suppress(UnlearnBenchError):  # a run that was stopped before its first board
        told = Path(read_settings(output).get("leaderboards", own))
        if told.resolve() != own.resolve():
            yield from sorted(told.glob("*/*.json"))
