"""Faster fp32 matrix products on CPU.

torch multiplies fp32 matrices on CPU with MKL, which reaches two thirds of an AMD core's speed;
oneDNN, which torch carries for its other formats, comes near all of it (docs/design/likelihoods.md
has the figures). The weights are read where they lie, in no packed copy that could grow stale.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def multiply_with_onednn(model: PreTrainedModel) -> PreTrainedModel:
    """Let every plain fp32 linear layer on CPU multiply with oneDNN. Returns the same model.

    For scoring only: the products have no gradient. Other layers, and builds of torch without
    oneDNN, stay as they are.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return model
    for module in model.modules():
        if type(module) is not nn.Linear or module.weight.device.type != "cpu":
            continue
        if module.weight.dtype == torch.float32:
            module.forward = functools.partial(_multiply, module)  # type: ignore[method-assign]
    return model


def _multiply(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """inputs (..., in) fp32 times the layer's own weight. Returns (..., out)."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs.contiguous(), layer.weight, layer.bias, "none", [], ""
    )
    return product
