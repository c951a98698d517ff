"""A run's results at a second place, anything that fsspec can reach: s3://, gs://, file://.

Cells that are finished there are taken over before a run, those that end here are copied there, the
record last: a copy that was cut short is no finished cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.plan import Plan
from unlearn_bench.runs.store import RECORD, cell_folder
from unlearn_bench.schema import SCORED

# How far a cell came, by its status; 0 for all without scores, and less where there is no record.
PROGRESS, NOTHING = {"success": 2, "incomplete": 1}, -1


def _progress(record: bytes) -> int:
    try:
        return PROGRESS.get(json.loads(record)["status"], 0)
    except (ValueError, KeyError, TypeError):
        return NOTHING


def _progress_here(folder: Path) -> int:
    try:
        return _progress((folder / RECORD).read_bytes())
    except OSError:
        return NOTHING


class Mirror:
    """The second place. Raises UsageError for an address that fsspec cannot open."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"{url!r} cannot be opened: {error}",
                next_step="pip install what fsspec needs for it (s3fs, gcsfs), or correct --mirror",
            ) from error

    def take_over(self, plan: Plan) -> list[str]:
        """Copy the plan's cells that came further there than here; return their labels.

        Their files are checked when they are read, as those of any cell.
        """
        taken = []
        with self._reached():
            for cell in plan.cells:
                folder = cell_folder(plan.output, cell.key, cell.method, cell.seed)
                there = posixpath.join(self.root, "cells", folder.name)
                if self._progress(there) > _progress_here(folder):
                    self._fetch(there, folder)
                    taken.append(cell.label)
        return taken

    def _fetch(self, there: str, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            for path in self.files.ls(there, detail=False):
                self.files.get_file(path, str(Path(unfinished) / posixpath.basename(path)))
            shutil.rmtree(folder, ignore_errors=True)
            Path(unfinished).rename(folder)
            Path(unfinished).mkdir()  # for the context to remove

    def keep(self, result: CellResult) -> None:
        """Copy a cell's files, but no checkpoint. What is there already is left as it is, and so is
        a cell that came further there: a failure here takes no scores from anybody.
        """
        if result.record.status not in SCORED and not os.path.exists(result.folder / RECORD):
            return  # its folder took no record
        names = sorted(path.name for path in result.folder.iterdir() if path.is_file())
        record = (result.folder / RECORD).read_bytes()
        there = posixpath.join(self.root, "cells", result.folder.name)
        with self._reached():
            if self._progress(there) > PROGRESS.get(result.record.status, 0):
                return
            self.files.makedirs(there, exist_ok=True)
            if self.files.exists(posixpath.join(there, RECORD)):
                if self.files.cat_file(posixpath.join(there, RECORD)) == record:
                    return
                self.files.rm_file(posixpath.join(there, RECORD))
            for name in [*(name for name in names if name != RECORD), RECORD]:
                self.files.put_file(str(result.folder / name), posixpath.join(there, name))

    def _progress(self, there: str) -> int:
        """Of the cell in this folder of the mirror, as its record says."""
        path = posixpath.join(there, RECORD)
        return _progress(self.files.cat_file(path)) if self.files.exists(path) else NOTHING

    def keep_files(self, files: Sequence[Path], below: Path) -> None:
        """Copy files to the same places below the address that they have in `below`."""
        with self._reached():
            for file in files:
                inside = file.relative_to(below) if file.is_relative_to(below) else Path(file.name)
                there = posixpath.join(self.root, inside.as_posix())
                self.files.makedirs(posixpath.dirname(there), exist_ok=True)
                self.files.put_file(str(file), there)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # which one depends on the file system behind the address
            raise UnlearnBenchError(
                f"the mirror cannot be reached: {type(error).__name__}: {error}",
                where=self.url,
                next_step="what was computed is in the output folder; run the same command again",
            ) from error
