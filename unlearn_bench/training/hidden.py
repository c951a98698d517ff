"""Hidden states of one decoder layer, with gradients, without computing the layers above it.

B rows, T positions, N answer tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.training.batches import IGNORE, TokenBatch
from unlearn_bench.training.likelihood import Model, fastest_attention


def answer_states(model: Model, layer: int, batch: TokenBatch) -> Tensor:
    """Output of `layer` (from 0) at the positions that predict an answer token. (N, d).

    Those are the last prompt token and every answer token but the last: what stands there decides
    the answer. Prompt and padding are left out; a text's own first token has nothing before it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    stack = decoder_layers(inner)
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found[:] = [output[0] if isinstance(output, tuple) else output]

    hook = stack[layer].register_forward_hook(keep)
    with hook, cut_after(inner, layer), fastest_attention(model, batch):
        model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=1)
    rows, columns = (batch.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    return found[0][rows, columns]


@contextmanager
def cut_after(model: nn.Module, layer: int) -> Iterator[None]:
    """The model's stack ends with `layer`, counted from 0, inside the block."""
    stack = decoder_layers(model)
    owner, name = next(
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if child is stack
    )
    setattr(owner, name, stack[: layer + 1])
    try:
        yield
    finally:
        setattr(owner, name, stack)
