"""Likelihoods of answers. Logits are computed only where an answer token stands.

The projection onto the vocabulary is about a fifth of a small model's cost, and most tokens of a
question–answer batch are prompt. Every function masks prompt and padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_bench.training.batches import IGNORE, TokenBatch
from unlearn_bench.training.vocabulary import (
    token_divergences,
    token_entropies,
    token_log_probs,
)

SHORT_TOKENS = 256

# A PreTrainedModel, or whatever is called like one (`training.loop.AdapterOff`).
Model = Any


def answer_targets(batch: TokenBatch) -> Tensor:
    """The batch's N answer tokens in row order. Returns (N,) int64."""
    shifted = batch.labels[:, 1:]
    return shifted[shifted != IGNORE]


def answer_rows(batch: TokenBatch) -> Tensor:
    """Which row each answer token is in. Returns (N,) int64."""
    return (batch.labels[:, 1:] != IGNORE).nonzero()[:, 0]


def answer_lengths(batch: TokenBatch) -> Tensor:
    """Answer tokens of each row, end token included. Returns (B,) int64."""
    return torch.bincount(answer_rows(batch), minlength=len(batch.ids))


def answer_logits(model: Model, batch: TokenBatch) -> Tensor:
    """Logits that predict each answer token. Returns (N, V) in the dtype the model computes in.

    The hidden states are gathered by a hook in front of the output layer, so that whatever the
    architecture does to its logits afterwards (soft-capping, scaling) still happens. No attention
    mask is passed: under causal attention no real token sees the padding to its right, and without
    a mask the faster attention kernel runs.
    """
    length = batch.labels.shape[1]
    rows, columns = (batch.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    predicting = rows * length + columns

    def gather(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1).index_select(0, predicting).unsqueeze(0), *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    with hook, fastest_attention(model, batch):
        logits: Tensor = model(input_ids=batch.input_ids, use_cache=False).logits
    return logits.squeeze(0)


@contextmanager
def fastest_attention(model: Model, batch: TokenBatch) -> Iterator[None]:
    """Plain attention while a CPU trains on short texts, the model's own otherwise.

    The fused kernel's backward pass makes such a step a third slower (docs/design/target.md). Its
    memory, which grows with the length and not with its square, is what long texts need. Layers
    that are checkpointed keep their own: they are computed again after this block has ended.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    short = batch.input_ids.shape[1] <= SHORT_TOKENS and batch.input_ids.device.type == "cpu"
    own = getattr(getattr(inner, "config", None), "_attn_implementation", None)
    repeated = getattr(inner, "is_gradient_checkpointing", False)
    if repeated or not (short and torch.is_grad_enabled() and own == "sdpa"):
        yield
        return
    inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(own)


def answer_log_probs(model: Model, batch: TokenBatch) -> Tensor:
    """Log-probability of every answer token given all before it. Returns (N,) float32, in nats."""
    return token_log_probs(answer_logits(model, batch), answer_targets(batch))


def nll_sum(model: Model, batch: TokenBatch) -> Tensor:
    """NLL_s: negative log-likelihood of each answer, summed over its tokens. Returns (B,)."""
    log_probs = answer_log_probs(model, batch)
    return log_probs.new_zeros(len(batch.ids)).index_add(0, answer_rows(batch), -log_probs)


def nll_mean(model: Model, batch: TokenBatch) -> Tensor:
    """NLL_m: mean negative log-likelihood over all answer tokens of the batch. A scalar."""
    return -answer_log_probs(model, batch).mean()


def kl_to_reference(reference: Model, policy: Model, batch: TokenBatch) -> Tensor:
    """KL(p_reference ‖ p_policy), the mean over answer tokens. A scalar in nats.

    The gradient flows into the policy only. Zero, with zero gradient, where both agree.
    """
    with torch.no_grad():
        expected = answer_logits(reference, batch)
    return token_divergences(expected, answer_logits(policy, batch)).mean()


def soft_cross_entropy(expected: Tensor, found: Tensor) -> Tensor:
    """−Σ softmax(expected)·log softmax(found), the mean over rows. Both (N, V). A scalar in nats.

    The gradient flows into `found` only. A token with the lowest finite logit in `expected` has
    probability zero.
    """
    return (token_divergences(expected, found) + token_entropies(expected)).mean()


def soft_cross_entropy_everywhere(reference: Model, policy: Model, batch: TokenBatch) -> Tensor:
    """−Σ p_reference·log p_policy, averaged over every position, padding included. A scalar.

    The retain term as LLM Surgery's code computes it: KL plus the reference's entropy, so not zero
    where both agree, and diluted by padding. Use `kl_to_reference` unless that form is wanted.
    """
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        expected = functional.softmax(reference(**inputs, use_cache=False).logits.float(), dim=-1)
    found = functional.log_softmax(policy(**inputs, use_cache=False).logits.float(), dim=-1)
    return -(expected * found).sum(dim=-1).mean()
