"""How a reader of a report gets from a row to all its samples: the command to copy."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.runs.finished import StoredCell

DIGITS = 16  # of a key, as in the name of the cell's folder
SAMPLES = "samples.parquet"


@dataclass(frozen=True)
class Reach:
    """Where a command that names the runs' folders is given. start: None where the page cannot name
    them without folders of this machine, which are nobody's business.
    """

    start: Path | None
    said: str

    def command(self, cell: StoredCell) -> str:
        """What shows the cell's samples; "" where it has none."""
        if SAMPLES not in cell.record.files:
            return ""
        run = cell.folder.parent.parent.resolve()
        folder = os.path.relpath(run, self.start) if self.start else "RUN"
        return shlex.join(("unlearn-bench", "show", folder, cell.record.key[:DIGITS]))


def reach(runs: Sequence[Path], page: Path) -> Reach:
    """From where the report is made, if the runs lie below, else from the page's own folder."""
    for start, said in (
        (Path.cwd(), "in the folder where this report was made"),
        (page.resolve().parent, "in the folder of this page"),
    ):
        if all(run.resolve().is_relative_to(start) for run in runs):
            return Reach(start, said)
    return Reach(None, "RUN is the folder of the run")
