"""Which version of this package's source is running: its commit, and whether it was changed since.

Cells hash the code that their numbers pass through, which does not say whether it was committed:
their provenance does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.runs.provenance import PACKAGE

SECONDS = 20.0  # what git may take


@dataclass(frozen=True)
class Tree:
    """commit: "" where the package is installed and no git tree, or git does not say.

    dirty: changed since that commit, or a git tree of which nobody can say whether it was.
    """

    commit: str = ""
    dirty: bool = False

    def __str__(self) -> str:
        """For people."""
        if not self.commit:
            return "git could not say" if self.dirty else "installed, of no commit"
        return f"commit {self.commit}{', with changes' if self.dirty else ''}"


def tree_of(provenance: Mapping[str, Any]) -> Tree | None:
    """Of the source that asked a cell's model, from its provenance.json; None where a run of an
    older version did not say.
    """
    return Tree(**provenance["source"]) if "source" in provenance else None


def source_tree() -> Tree:
    """The state of the git tree that the running package lies in, if it does."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        # Not there, or it refuses the folder: another user's, as a container's checkout often is.
        mute = _git("rev-parse") is None and (PACKAGE.parent / ".git").exists()
        return Tree(dirty=mute)  # else installed, maybe in a venv inside another's tree
    commit = (_git("rev-parse", "HEAD") or "").strip()
    changed = _git("status", "--porcelain", "--", ".", str(tasks_folder()))
    return Tree(commit, dirty=changed is None or bool(changed.strip()))


def _git(*arguments: str) -> str | None:
    """What git says, None where it fails or is not there."""
    try:
        done = subprocess.run(
            # Without locks: looking must not get in the way of who works in that tree.
            ["git", "--no-optional-locks", "-C", str(PACKAGE), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
