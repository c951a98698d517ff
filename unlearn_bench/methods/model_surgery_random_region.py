"""Control for Model Surgery: the same shift on random rows."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.gate_rows import count_rows, gate_weights, operate
from unlearn_bench.methods.toxicity_probe import ProbeOptions, Variant, fit_probe
from unlearn_bench.registry import method


@method(
    "model_surgery_random_region",
    paper="arXiv:2407.08770",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.mlp.gate_proj.weight",),
    goals=(),
    control=True,
    zero={"alpha": 0.0},
)
def model_surgery_random_region(
    context: EditContext,
    *,
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 10.0,
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.0465,
    layer: int | None = None,
    comments: Annotated[int, Field(ge=10)] = 250,
    probe_epochs: Annotated[int, Field(ge=1)] = 100,
    probe_lr: Annotated[float, Field(gt=0)] = 1e-4,
    variant: Variant = "paper",
) -> dict[str, Any]:
    """Model Surgery's shift on K gate rows drawn at random from all layers.

    What this does to toxicity needs no choice of rows.
    Source: the paper's ablation of the region. Options as in `model_surgery`.
    """
    gates = gate_weights(context.model)
    options = ProbeOptions(variant, comments, layer, probe_epochs, probe_lr)
    probe = fit_probe(context, options)
    generator = torch.Generator().manual_seed(context.seed)
    order = torch.randperm(sum(len(weight) for weight in gates), generator=generator)
    return operate(gates, order[: count_rows(gates, fraction)], probe.toxic, alpha, probe)
