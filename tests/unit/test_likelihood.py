"""Likelihood terms against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from table_model import TableModel, token_batch

from unlearn_bench.training import likelihood
from unlearn_bench.training.batches import TokenBatch
from unlearn_bench.training.likelihood import (
    answer_log_probs,
    answer_logits,
    answer_rows,
    answer_targets,
    kl_to_reference,
    nll_mean,
    nll_sum,
    soft_cross_entropy_everywhere,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

HALF, QUARTER = 0.5, 0.25
TABLE = [[HALF, QUARTER, QUARTER], [QUARTER, HALF, QUARTER], [QUARTER, QUARTER, HALF]]


def test_nll_by_hand() -> None:
    """Row 0: prompt 0, answer 1 1: p(1|0)·p(1|1) = 1/4·1/2 = 1/8. Row 1: prompt 2 0, answer 2:
    p(2|0) = 1/4. So NLL_s = (ln 8, ln 4) and NLL_m = (ln 8 + ln 4)/3 = ln 32 / 3 over 3 tokens.
    The mean of the rows' means would be ln 8/4 + ln 4/2, another number.
    """
    model, batch = TableModel(TABLE), token_batch(([0, 1, 1], 1), ([2, 0, 2], 2))
    assert answer_targets(batch).tolist() == [1, 1, 2]
    assert answer_rows(batch).tolist() == [0, 0, 1]
    assert nll_sum(model, batch).tolist() == pytest.approx([math.log(8), math.log(4)])
    assert nll_mean(model, batch).item() == pytest.approx(math.log(32) / 3)


def test_prompt_tokens_are_outside_the_loss() -> None:
    """Only row 1 of the table predicts the answer, so only it gets a gradient: −p, +(1 − p)."""
    model = TableModel(TABLE)
    nll_mean(model, token_batch(([0, 2, 1, 2], 3))).backward()
    assert model.logits.grad is not None
    assert model.logits.grad.tolist() == [
        pytest.approx([0, 0, 0]),
        pytest.approx([QUARTER, HALF, QUARTER - 1]),
        pytest.approx([0, 0, 0]),
    ]


def test_kl_points_from_the_reference_to_the_policy() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): KL(p‖q) = 3/4·ln(3/2) + 1/4·ln(1/2) = 0.1308 nats, while
    KL(q‖p) = 1/2·ln(2/3) + 1/2·ln 2 = 0.1438.
    """
    reference = TableModel([[0.75, 0.25], [0.75, 0.25]])
    policy = TableModel([[0.5, 0.5], [0.5, 0.5]])
    kl = kl_to_reference(reference, policy, token_batch(([0, 1], 1)))
    assert kl.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)
    assert kl.item() != pytest.approx(0.5 * math.log(4 / 3), abs=1e-3)
    kl.backward()
    assert reference.logits.grad is None
    assert policy.logits.grad is not None
    # d KL / d logits = q − p at the one position that predicts.
    assert policy.logits.grad[0].tolist() == pytest.approx([-0.25, 0.25])


def test_kl_of_the_same_model_is_zero_with_zero_gradient() -> None:
    reference, policy = TableModel(TABLE), TableModel(TABLE)
    kl = kl_to_reference(reference, policy, token_batch(([0, 1, 2], 1), ([1, 0], 1)))
    kl.backward()
    assert kl.item() == pytest.approx(0, abs=1e-7)
    assert policy.logits.grad is not None
    assert float(policy.logits.grad.abs().max()) < 1e-7


def test_released_soft_cross_entropy_is_diluted_by_padding() -> None:
    """At θ = θ₀ it is the mean entropy. Row 0 of the table has entropy H0 = 1.5·ln 2, row 1 has
    H1 = 2·(0.05·ln 20) + 0.9·ln(1/0.9). Tokens 1 0 without padding: (H1 + H0)/2; with two pads
    (token 0): (H1 + 3·H0)/4.
    """
    rows = [[HALF, QUARTER, QUARTER], [0.05, 0.9, 0.05], [1 / 3] * 3]
    model = TableModel(rows)
    h0, h1 = 1.5 * math.log(2), 0.1 * math.log(20) - 0.9 * math.log(0.9)
    tight = soft_cross_entropy_everywhere(model, model, token_batch(([1, 0], 1)))
    padded = soft_cross_entropy_everywhere(model, model, token_batch(([1, 0], 1), width=4))
    assert float(tight) == pytest.approx((h1 + h0) / 2, abs=1e-6)
    assert float(padded) == pytest.approx((h1 + 3 * h0) / 4, abs=1e-6)


@pytest.fixture
def batch() -> TokenBatch:
    return token_batch(([7, 8, 9, 10, 11, 12], 3), ([20, 21, 22], 1), ([30, 31, 32, 33], 0))


def test_gathered_logits_equal_the_full_forward_pass(
    tiny_model: LlamaForCausalLM, batch: TokenBatch
) -> None:
    """The whole (B, T, V) logits under an explicit mask, cut by hand, against the gathered ones."""
    full = tiny_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    by_hand = torch.cat([full[0, 2:5], full[1, 0:2], full[2, 0:3]])
    assert torch.allclose(answer_logits(tiny_model, batch), by_hand, atol=1e-5)
    log_probs = torch.log_softmax(by_hand, -1)
    targets = torch.tensor([10, 11, 12, 21, 22, 31, 32, 33])
    expected = log_probs[torch.arange(8), targets]
    assert torch.allclose(answer_log_probs(tiny_model, batch), expected, atol=1e-5)


def test_the_output_layer_keeps_no_hook(tiny_model: LlamaForCausalLM, batch: TokenBatch) -> None:
    answer_logits(tiny_model, batch)
    assert tiny_model(input_ids=batch.input_ids).logits.shape == (3, 6, 300)


@pytest.mark.parametrize("width", [7, 16])
def test_padding_changes_nothing(
    width: int, tiny_model: LlamaForCausalLM, batch: TokenBatch
) -> None:
    padded = token_batch(
        ([7, 8, 9, 10, 11, 12], 3), ([20, 21, 22], 1), ([30, 31, 32, 33], 0), width=width
    )
    torch.testing.assert_close(nll_sum(tiny_model, padded), nll_sum(tiny_model, batch))
    reference = TableModel(torch.full((300, 300), 1 / 300).tolist())
    torch.testing.assert_close(
        kl_to_reference(reference, tiny_model, padded),
        kl_to_reference(reference, tiny_model, batch),
    )


def test_plain_attention_on_short_texts_changes_no_number(
    tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of unequal length: the same loss and gradients with either kernel, within fp32
    rounding, and the model keeps its own.
    """
    batch = token_batch(([1, 5, 9, 4, 7, 3], 2), ([2, 6, 8], 1))
    used: list[str] = []
    tiny_model.model.layers[0].self_attn.register_forward_hook(
        lambda module, inputs, output: used.append(module.config._attn_implementation)
    )
    found = []
    for limit in (256, 5):
        monkeypatch.setattr(likelihood, "SHORT_TOKENS", limit)
        tiny_model.zero_grad()
        loss = nll_mean(tiny_model, batch)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in tiny_model.parameters())])
    with torch.no_grad():
        nll_mean(tiny_model, batch)
    assert used == ["eager", "sdpa", "sdpa"]
    assert tiny_model.config._attn_implementation == "sdpa"
    for short, plain in zip(*found, strict=True):
        torch.testing.assert_close(short, plain, rtol=1e-4, atol=1e-6)
