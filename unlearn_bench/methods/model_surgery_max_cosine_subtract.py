"""Control for Model Surgery: push the most toxic-looking gates away instead."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.gate_rows import cosines, count_rows, gate_weights, operate
from unlearn_bench.methods.toxicity_probe import ProbeOptions, Variant, fit_probe
from unlearn_bench.registry import method


@method(
    "model_surgery_max_cosine_subtract",
    paper="arXiv:2407.08770",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.mlp.gate_proj.weight",),
    goals=(),
    control=True,
    zero={"alpha": 0.0},
)
def model_surgery_max_cosine_subtract(
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
    """Subtract α·W[1] from the K gate rows with the largest cosine: the intuitive edit, reversed.

    Source: the paper's ablation of the region. Options as in `model_surgery`.
    """
    gates = gate_weights(context.model)
    options = ProbeOptions(variant, comments, layer, probe_epochs, probe_lr)
    probe = fit_probe(context, options)
    rows = cosines(gates, probe.toxic).topk(count_rows(gates, fraction)).indices
    return operate(gates, rows, probe.toxic, -alpha, probe)
