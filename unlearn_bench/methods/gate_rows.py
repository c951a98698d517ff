"""Model Surgery's second half: pick rows of the gate projections by cosine and shift them.

Source: Wang et al. 2024, arXiv:2407.08770. L layers, d hidden size, d_ff rows per gate projection;
a row's flat index is layer · d_ff + row.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unlearn_bench.errors import UsageError
from unlearn_bench.methods.toxicity_probe import Probe
from unlearn_bench.models.layers import decoder_layers


def gate_weights(model: nn.Module) -> list[nn.Parameter]:
    """Every layer's `mlp.gate_proj.weight`, (d_ff, d) each.

    Raises UsageError for a model with a layer that has none (mixtures of experts, ungated MLPs).
    """
    weights = []
    for index, layer in enumerate(decoder_layers(model)):
        weight = getattr(getattr(getattr(layer, "mlp", None), "gate_proj", None), "weight", None)
        if not isinstance(weight, nn.Parameter):
            raise UsageError(
                f"model surgery edits mlp.gate_proj, which {type(model).__name__} lacks "
                f"in layer {index}",
                next_step="choose a gated decoder such as Llama, Qwen, Mistral or Gemma",
            )
        weights.append(weight)
    return weights


@torch.no_grad()
def cosines(gates: Sequence[Tensor], direction: Tensor) -> Tensor:
    """Cosine of every gate row with `direction` (d,). Returns (L·d_ff,) float32 on the CPU."""
    return torch.cat(
        [cosine_similarity(w.float(), direction.to(w.device), dim=-1).cpu() for w in gates]
    )


def count_rows(gates: Sequence[Tensor], fraction: float) -> int:
    """K = round(fraction · L · d_ff). Raises UsageError when that is no row at all."""
    total = sum(len(weight) for weight in gates)
    if not (rows := round(fraction * total)):
        raise UsageError(f"a fraction of {fraction} of {total} gate rows is no row")
    return rows


@torch.no_grad()
def shift_rows(gates: Sequence[Tensor], rows: Tensor, step: Tensor) -> None:
    """Add `step` (d,) to the rows with these flat indices, in float32, in place.

    A zero step touches nothing (−0 + 0 would flip a sign bit).
    """
    if not step.any():
        return
    d_ff = len(gates[0])
    for layer, weight in enumerate(gates):
        here = rows[rows // d_ff == layer].to(weight.device) % d_ff
        weight[here] = (weight[here].float() + step.to(weight.device)).to(weight.dtype)


def operate(
    gates: Sequence[Tensor], rows: Tensor, direction: Tensor, alpha: float, probe: Probe
) -> dict[str, Any]:
    """Row += alpha · direction on the chosen rows; returns the record that `undo` reads."""
    before = cosines(gates, direction)
    norm = torch.cat([weight.detach().float().norm(dim=-1).cpu() for weight in gates])[rows]
    shift_rows(gates, rows, alpha * direction)
    after = cosines(gates, direction)
    return {
        "variant": probe.variant,
        "probe_layer": probe.layer,
        "probe_after_norm": probe.after_norm,
        "probe_bias": None if probe.bias is None else probe.bias.tolist(),
        "probe_accuracy": probe.accuracy,
        "probe_trained_on": probe.trained_on,
        "probe_held_out": probe.held_out,
        "alpha": alpha,
        "direction_norm": float(direction.norm()),
        "mean_row_norm": float(norm.mean()),
        "rows": len(rows),
        "rows_by_layer": split_by_layer(rows, len(gates[0])),
        "mean_cosine_before": float(before[rows].mean()),
        "mean_cosine_after": float(after[rows].mean()),
        "direction": base64.b64encode(direction.numpy().astype("<f4").tobytes()).decode(),
    }


def split_by_layer(rows: Tensor, d_ff: int) -> dict[str, list[int]]:
    """Flat indices as {layer: its rows, ascending}; layers without a row are left out."""
    split: dict[str, list[int]] = {}
    for index in sorted(rows.tolist()):
        split.setdefault(str(index // d_ff), []).append(index % d_ff)
    return split


def undo(model: nn.Module, record: dict[str, Any]) -> None:
    """Subtract what `operate` added, to within rounding, from its record alone."""
    gates = gate_weights(model)
    d_ff = len(gates[0])
    rows = [int(k) * d_ff + row for k, found in record["rows_by_layer"].items() for row in found]
    raw = bytearray(base64.b64decode(record["direction"]))
    direction = torch.frombuffer(raw, dtype=torch.float32)
    shift_rows(gates, torch.tensor(rows), -record["alpha"] * direction)
