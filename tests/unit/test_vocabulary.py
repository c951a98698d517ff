"""Losses over the vocabulary against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from unlearn_bench.training import vocabulary
from unlearn_bench.training.vocabulary import token_divergences, token_log_probs

N, V = 11, 17


def drawn(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(N, V, generator=generator, dtype=torch.float64)).to(dtype)


@pytest.fixture(autouse=True, params=[4, 128])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several blocks, the last of them shorter, and with one."""
    monkeypatch.setattr(vocabulary, "ROWS", request.param)


def test_log_probs_and_their_gradient_are_those_of_the_cross_entropy() -> None:
    mine, theirs = drawn(1).requires_grad_(), drawn(1).requires_grad_()
    targets, weights = torch.arange(N) % V, torch.linspace(-1, 2, N, dtype=torch.float64)
    found = token_log_probs(mine, targets)
    expected = -functional.cross_entropy(theirs, targets, reduction="none")
    assert torch.allclose(found, expected, atol=1e-12)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-12)


def test_divergences_and_their_gradient_are_those_of_the_kl() -> None:
    reference, mine, theirs = drawn(2), drawn(1).requires_grad_(), drawn(1).requires_grad_()
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    found = token_divergences(reference, mine)
    expected = functional.kl_div(
        theirs.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    assert torch.allclose(found, expected, atol=1e-12)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-12)


def test_bf16_logits_are_summed_in_fp32() -> None:
    """The value is the fp32 one of the rounded logits; only the gradient is rounded back."""
    logits = drawn(3, torch.bfloat16).requires_grad_()
    targets = torch.arange(N) % V
    found = token_log_probs(logits, targets)
    assert found.dtype == torch.float32
    wide = logits.detach().float().requires_grad_()
    expected = -functional.cross_entropy(wide, targets, reduction="none")
    assert torch.allclose(found, expected, atol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    assert torch.allclose(logits.grad.float(), wide.grad, atol=1e-2)


def test_no_fp32_copy_of_the_logits_is_kept() -> None:
    """Between the passes: the logits as they came, and vectors."""
    logits = drawn(3, torch.bfloat16).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        token_log_probs(logits, torch.arange(N) % V)
    assert {t.dtype for t in kept if t.ndim == 2} == {torch.bfloat16}
