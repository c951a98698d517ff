"""Losses over the vocabulary that do not keep its fp32 copies.

Logits are N·V numbers: for a batch of biographies more than all other activations together.
torch's cross-entropy on their fp32 copy holds four such arrays between forward and backward pass.
These hold the logits alone, in the format the model computed them in, and work in fp32 on a block
of rows at a time; values and gradients are torch's own up to fp32 rounding (a test shows it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 128  # of a block: 25 MB in fp32 at 49k tokens, which a CPU's cache nearly holds


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target] of every row. logits (N, V), targets (N,) → (N,) float32."""
    found: Tensor = _TokenLogProbs.apply(logits, targets)  # type: ignore[no-untyped-call]
    return found


def token_divergences(expected: Tensor, found: Tensor) -> Tensor:
    """KL(softmax(expected) ‖ softmax(found)) of every row, in nats. Both (N, V) → (N,) float32.

    The gradient flows into `found` only.
    """
    result: Tensor = _TokenDivergences.apply(expected, found)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def token_entropies(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) of every row, in nats. (N, V) → (N,) float32; no gradient."""
    parts = []
    for rows in _blocks(logits):
        log_probs = _wide(logits[rows]).log_softmax(dim=1)
        parts.append(-log_probs.exp().mul_(log_probs).sum(dim=1))
    return torch.cat(parts)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """Keeps the logits and each row's normaliser."""
        chosen, normalisers = [], []
        for rows in _blocks(logits):
            block = _wide(logits[rows])
            normalisers.append(block.logsumexp(dim=1))
            chosen.append(block.gather(1, targets[rows, None]).squeeze(1))
        normaliser = torch.cat(normalisers)
        ctx.save_for_backward(logits, targets, normaliser)
        return torch.cat(chosen) - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(onehot − softmax)·gradient, in the logits' format."""
        logits, targets, normaliser = ctx.saved_tensors
        found = torch.empty_like(logits)
        for rows in _blocks(logits):
            block = _wide(logits[rows]).sub(normaliser[rows, None]).exp_()
            block.mul_(-gradient[rows, None])
            block.scatter_add_(1, targets[rows, None], gradient[rows, None])
            found[rows] = block
        return found, None


class _TokenDivergences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, expected: Tensor, found: Tensor) -> Tensor:
        """Keeps both logits."""
        ctx.save_for_backward(expected, found)
        parts = []
        for rows in _blocks(found):
            wanted = _wide(expected[rows]).log_softmax(dim=1)
            gap = wanted - _wide(found[rows]).log_softmax(dim=1)
            parts.append(gap.mul_(wanted.exp_()).sum(dim=1))
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """(softmax(found) − softmax(expected))·gradient, in the logits' format."""
        expected, found = ctx.saved_tensors
        result = torch.empty_like(found)
        for rows in _blocks(found):
            block = _wide(found[rows]).softmax(dim=1).sub_(_wide(expected[rows]).softmax(dim=1))
            result[rows] = block.mul_(gradient[rows, None])
        return None, result


def _blocks(logits: Tensor) -> Iterator[slice]:
    return (slice(begin, begin + ROWS) for begin in range(0, len(logits), ROWS))


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values if values.dtype == torch.float64 else values.float()
