"""The model as it is: the noise floor of the board."""

from __future__ import annotations

from typing import Any

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method


@method("noop", paper="", kind="edit", needs=(), targets=(), goals=(), control=True, zero={})
def noop(context: EditContext) -> dict[str, Any]:
    """Change nothing. The spread of its scores over seeds is what no method can resolve."""
    return {}
