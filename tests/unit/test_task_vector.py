"""Task vector negation: the arithmetic, and where the vector comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.run import edit_model
from unlearn_bench.methods.task_vector import negate
from unlearn_bench.registry import find_card
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.likelihood import nll_mean

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class Weights(nn.Module):
    """Two parameters, one of them of integers."""

    def __init__(self, values: list[float], count: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))
        self.count = nn.Parameter(torch.tensor([count]), requires_grad=False)


def parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def test_negation_by_hand() -> None:
    """θ₀ = (1, −2, 0), θ_ft = (1.5, −2, 4): 1 − 2·0.5 = 0; −2 stays; 0 − 2·4 = −8. ‖τ‖² = 16.25."""
    before, tuned = Weights([1.0, -2.0, 0.0], 7), Weights([1.5, -2.0, 4.0], 9)
    length = negate(tuned, parameters(before), 2.0)
    assert tuned.values.tolist() == [0.0, -2.0, -8.0]
    assert tuned.count.item() == 7, "integers are no directions"
    assert length == pytest.approx(16.25**0.5)


def test_scale_one_is_the_mirror_image_and_twice_is_the_identity() -> None:
    before, tuned = Weights([0.5, -1.25, 3.0], 0), Weights([0.75, 2.0, -1.5], 0)
    once = Weights([0.75, 2.0, -1.5], 0)
    negate(once, parameters(before), 1.0)
    assert once.values.tolist() == [0.25, -4.5, 7.5]  # 2·θ₀ − θ_ft
    negate(once, parameters(before), 1.0)
    assert torch.equal(once.values, tuned.values)


@pytest.mark.parametrize("scale", [0.0, 1.0, -1.0])
def test_what_did_not_move_keeps_its_bits(scale: float) -> None:
    """−0 stays −0, where θ₀ − scale·0 would make 0 of it for a negative scale."""
    before, tuned = Weights([-0.0, 1.0], 0), Weights([-0.0, 1.0], 0)
    negate(tuned, parameters(before), scale)
    assert torch.equal(tuned.values.view(torch.int32), before.values.view(torch.int32))


def test_forget_texts_become_less_likely(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> None:
    """And scale −1 gives the fine-tuned model itself, which finds them likelier."""
    batch = collate(encode(tiny_tokenizer, tiny_data.forget), pad_id=1)
    nll = {}
    for scale in (1.0, 0.0, -1.0):
        model = make_tiny_model()
        context = EditContext(model, tiny_tokenizer, tiny_data, 0, make_tiny_model)
        options = {"scale": scale, "lr": 1e-3, "steps": 4, "precision": "fp32"}
        report = edit_model(find_card("method", "task_vector"), context, options)
        assert report.details["task_vector_norm"] >= 0
        with torch.no_grad():
            nll[scale] = nll_mean(model, batch).item()
    assert nll[-1.0] + 0.05 < nll[0.0] < nll[1.0] - 0.05
