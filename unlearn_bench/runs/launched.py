"""Whether accelerate's or torch's launcher started this process. Imports neither."""

from __future__ import annotations

import os

from unlearn_bench.errors import UsageError


def is_launched() -> bool:
    """Whether a launcher started this process as one of several, or the one of several."""
    return {"WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


def is_helper() -> bool:
    """Whether the launcher made another process the main one."""
    return is_launched() and os.environ.get("RANK", "0") != "0"


def require_alone(command: str) -> None:
    """Raise UsageError where a launcher started several processes: only `evaluate` shares work."""
    if is_launched():
        raise UsageError(
            f"{command} decides by what it has evaluated, which several processes cannot share",
            next_step=f"start unlearn-bench {command} by itself, without the launcher",
        )
