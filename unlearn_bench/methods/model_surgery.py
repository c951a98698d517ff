"""Model Surgery: turn the gates that oppose a toxicity probe towards it (Wang et al. 2024)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.gate_rows import cosines, count_rows, gate_weights, operate
from unlearn_bench.methods.toxicity_probe import ProbeOptions, Variant, fit_probe
from unlearn_bench.registry import method


@method(
    "model_surgery",
    paper="arXiv:2407.08770",
    kind="edit",
    needs=("toxic", "clean"),
    targets=("*.mlp.gate_proj.weight",),
    goals=("detoxify",),
    search={
        "alpha": (2.5, 40.0, "log"),
        "fraction": (0.012, 0.18, "log"),
        "layer": [None, -1],
    },
    zero={"alpha": 0.0},
)
def model_surgery(
    context: EditContext,
    *,
    alpha: Annotated[float, Field(allow_inf_nan=False)] = 16.69,
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.02977,
    layer: int | None = None,
    comments: Annotated[int, Field(ge=10)] = 250,
    probe_epochs: Annotated[int, Field(ge=1)] = 100,
    probe_lr: Annotated[float, Field(gt=0)] = 1e-4,
    variant: Variant = "paper",
) -> dict[str, Any]:
    """Shift the gate rows most opposed to a toxicity probe along the probe: row += α·W[1].

    The probe P(toxic) = softmax(W·x̄)[1] reads x̄, the mean hidden state of a toxic or clean comment.
    Among all rows of all gate projections together the K = round(fraction·L·d_ff) with the most
    negative cosine to W[1] are edited. −α is the opposite behaviour.

    comments: of each kind. layer: whose output the probe reads, counted from 0, or from the end if
    negative; None is the middle one, where the chosen rows lower the toxicity more than random ones
    do, which a probe of the last layer (the paper's: −1) does not show on SmolLM2-135M. alpha: the
    paper's 1.08 is for LLaMA2-7B; on SmolLM2-135M, whose gate rows are five times as long as W[1],
    it changes nothing. Both were chosen on prompts that no suite asks: docs/design/edits.md.
    variant "released": as the authors' code, softmax(W·x̄ + b), and the last layer (then what None
    means) read behind the model's final norm. Rows and shift are the same in both.
    Source: Wang et al. 2024, equations 1 and 3 and table 14 (K = 16,384 of 352,256 rows).
    """
    gates = gate_weights(context.model)
    options = ProbeOptions(variant, comments, layer, probe_epochs, probe_lr)
    probe = fit_probe(context, options)
    rows = cosines(gates, probe.toxic).topk(count_rows(gates, fraction), largest=False).indices
    return operate(gates, rows, probe.toxic, alpha, probe)
