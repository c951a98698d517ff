"""Where a decoder keeps its layers."""

from __future__ import annotations

from torch import nn

from unlearn_bench.errors import UsageError


def longest_list(stack: nn.Module) -> nn.ModuleList:
    """The longest ModuleList of a module: by every architecture's convention, its layers."""
    lists = [module for module in stack.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def layer_index(layer: int, count: int) -> int:
    """`layer` counted from 0, given from 0 or, if negative, from the end.

    Raises UsageError for one that a model of `count` layers does not have.
    """
    if not -count <= layer < count:
        raise UsageError(f"there is no layer {layer} in a model of {count} layers")
    return layer % count


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers in order, counted from 0. Raises UsageError for a model without layers."""
    layers = longest_list(getattr(model, "base_model", model))
    if not len(layers):
        raise UsageError(f"{type(model).__name__} has no list of decoder layers")
    return layers
