"""Control for Model Surgery: a random direction of the probe's length."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.gate_rows import cosines, count_rows, gate_weights, operate
from unlearn_bench.methods.toxicity_probe import ProbeOptions, Variant, fit_probe
from unlearn_bench.registry import method


@method(
    "model_surgery_random_probe",
    paper="arXiv:2407.08770",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.mlp.gate_proj.weight",),
    goals=(),
    control=True,
    zero={"alpha": 0.0},
)
def model_surgery_random_probe(
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
    """Model Surgery along a random direction of the trained probe's norm; rows chosen by it too.

    What this does to toxicity is done by any shift of that size, not by the probe.
    Source: after the paper's ablation of the probe (section 4.6), which keeps the rows that the
    trained probe chose; here nothing but the length is the probe's. Options as in `model_surgery`.
    """
    gates = gate_weights(context.model)
    options = ProbeOptions(variant, comments, layer, probe_epochs, probe_lr)
    probe = fit_probe(context, options)
    generator = torch.Generator().manual_seed(context.seed)
    direction = torch.randn(probe.toxic.shape, generator=generator)
    direction *= probe.toxic.norm() / direction.norm()
    rows = cosines(gates, direction).topk(count_rows(gates, fraction), largest=False).indices
    return operate(gates, rows, direction, alpha, probe)
