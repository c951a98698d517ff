"""Random noise of a chosen size: what an edit of that norm does without any idea."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.errors import UsageError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method


@method(
    "random_noise",
    paper="",
    kind="edit",
    needs=(),
    targets=("*",),
    goals=(),
    control=True,
    zero={"relative_norm": 0.0},
)
def random_noise(
    context: EditContext,
    *,
    relative_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.03,
    like: Path | None = None,
) -> dict[str, Any]:
    """Add Gaussian noise, scaled tensor by tensor to an exact Frobenius norm.

    relative_norm: ‖ΔW‖ = relative_norm·‖W‖ on every matrix (norms and biases are left alone).
    like: the `account.json` of another method's cell; then ‖ΔW‖ is that edit's, on the tensors it
    changed, and `relative_norm` is not used. Raises UsageError for an account of another model.
    """
    parameters = dict(context.model.named_parameters())
    norms = (
        {
            name: relative_norm * float(parameter.detach().float().norm())
            for name, parameter in parameters.items()
            if parameter.ndim >= 2
        }
        if like is None
        else read_norms(like)
    )
    if strange := sorted(set(norms) - set(parameters)):
        raise UsageError(f"the model has no tensor {strange[0]}", where=str(like))
    generator = torch.Generator().manual_seed(context.seed)
    with torch.no_grad():
        for name, norm in norms.items():
            if norm == 0:
                continue
            weight = parameters[name]
            noise = torch.randn(weight.shape, generator=generator)
            noise *= norm / noise.norm()
            weight.copy_(weight.float() + noise.to(weight.device))
    return {"tensors": len(norms)}


def read_norms(account: Path) -> dict[str, float]:
    """‖ΔW‖ by tensor name from an `account.json`. Raises UsageError if it is none."""
    try:
        changes = json.loads(account.read_text(encoding="utf-8"))["changes"]
        return {change["name"]: float(change["norm"]) for change in changes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"no account of an edit can be read there: {error}",
            where=str(account),
            next_step="name the account.json in the folder of another method's cell",
        ) from error
