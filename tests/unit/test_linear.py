"""The oneDNN products of the scoring model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from unlearn_bench.engine.linear import multiply_with_onednn

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
IDS = torch.arange(2, 50).reshape(2, 24)


def changed_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@needs_onednn
@pytest.mark.parametrize("biased", [False, True])
def test_logits_are_the_same(make_tiny_model: Callable[..., Any], biased: bool) -> None:
    model = make_tiny_model(attention_bias=biased, mlp_bias=biased)
    with torch.inference_mode():
        before = model(IDS).logits
        assert "lm_head" in changed_layers(multiply_with_onednn(model))
        torch.testing.assert_close(model(IDS).logits, before, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_a_changed_weight_is_used_at_once(make_tiny_model: Callable[..., Any]) -> None:
    """There is no packed copy: a layer scaled by 2 doubles its product, tied or not."""
    model = multiply_with_onednn(make_tiny_model())
    states = torch.randn(3, model.config.hidden_size)
    with torch.inference_mode():
        before = model.lm_head(states)
        model.model.embed_tokens.weight.mul_(2)
        torch.testing.assert_close(model.lm_head(states), 2 * before)


def test_other_formats_and_other_layers_stay_as_they_are(
    make_tiny_model: Callable[..., Any],
) -> None:
    class Scaled(nn.Linear):
        """A quantised layer, say: it does more than multiply."""

    model = make_tiny_model().to(torch.bfloat16)
    assert changed_layers(multiply_with_onednn(model)) == []
    model = make_tiny_model()
    model.model.layers[0].mlp.up_proj = Scaled(4, 4, bias=False)
    assert "model.layers.0.mlp.up_proj" not in changed_layers(multiply_with_onednn(model))
