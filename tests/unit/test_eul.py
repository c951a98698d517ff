"""EUL: the alternation, the frozen base, and the fusion's normal equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.methods import eul as module
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.eul import fuse, request_inputs, split_requests, train_layer
from unlearn_bench.methods.lora_experts import Adapter
from unlearn_bench.methods.run import edit_model
from unlearn_bench.registry import find_card
from unlearn_bench.training.batches import TokenBatch, collate, encode
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TRAINING = Training(lr=1e-2, batch_size=2, schedule="constant", precision="fp32")
WEIGHTS = (0.8, 1.0, 0.2)


@pytest.fixture
def context(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> EditContext:
    def never() -> Any:
        raise AssertionError("the adapter's own model is the teacher: no second copy")

    return EditContext(tiny_model, tiny_tokenizer, tiny_data, seed=3, reference=never)


# --- fusion -------------------------------------------------------------------------------------


def test_fusing_one_layer_is_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, inputs = torch.randn(5, 3, generator=generator), torch.randn(2, 5, generator=generator)
    assert torch.equal(fuse([inputs], [layer]), layer)


def test_fusion_by_hand() -> None:
    """One input each: x₁ = (1, 0) with W₁ = (2, 9)ᵀ, x₂ = (0, 2) with W₂ = (7, 4)ᵀ. The Gram matrix
    is diag(1, 4), Σ XᵀXW = (2, 16): W = (2, 4), each request's own answer where it was asked.
    """
    inputs = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    layers = [torch.tensor([[2.0], [9.0]]), torch.tensor([[7.0], [4.0]])]
    torch.testing.assert_close(fuse(inputs, layers), torch.tensor([[2.0], [4.0]]))


def test_fusion_weighs_shared_inputs() -> None:
    """Both requests use the first input, the second one twice as strongly: (1·a + 4·b)/5. The
    second direction nobody uses: the mean of 10 and 20.
    """
    inputs = [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
    layers = [torch.tensor([[5.0], [10.0]]), torch.tensor([[0.0], [20.0]])]
    torch.testing.assert_close(fuse(inputs, layers), torch.tensor([[1.0], [15.0]]))


@pytest.mark.parametrize("tokens", [4, 40])
def test_normal_equations_hold(tokens: int) -> None:
    """(Σ XᵢᵀXᵢ)·W = Σ XᵢᵀXᵢ·Wᵢ, with a regular Gram matrix (40 tokens of 6 inputs) and a singular
    one (three requests of 4 equal tokens).
    """
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(tokens, 6, generator=generator) for _ in range(3)]
    if tokens == 4:
        inputs = [x[:1].expand(4, 6) for x in inputs]
    layers = [torch.randn(6, 2, generator=generator) for _ in range(3)]
    fused = fuse(inputs, layers)
    gram = sum(x.T @ x for x in inputs)
    wanted = sum(x.T @ x @ layer for x, layer in zip(inputs, layers, strict=True))
    torch.testing.assert_close(gram @ fused, wanted, rtol=1e-4, atol=1e-3)


# --- training -----------------------------------------------------------------------------------


def test_split_requests() -> None:
    assert split_requests([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]  # type: ignore[list-item]
    assert split_requests([1, 2], 5) == [[1], [2]]  # type: ignore[list-item]
    assert split_requests([1, 2], 1) == [[1, 2]]  # type: ignore[list-item]


def test_retain_and_forget_epochs_alternate(
    context: EditContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four forget texts in batches of two: retain ×2, forget ×2, and once more."""
    read: list[str] = []
    inner = module.nll_mean

    def watched(model: Any, batch: TokenBatch) -> torch.Tensor:
        read.append(batch.ids[0].split("-")[0])
        return inner(model, batch)

    monkeypatch.setattr(module, "nll_mean", watched)
    train_layer(context, context.data.forget, Adapter(2, 4.0, 0.0), TRAINING, 2, WEIGHTS)
    assert read == ["retain", "retain", "forget", "forget"] * 2


def test_losses_by_hand_at_the_start(context: EditContext) -> None:
    """B = 0, so the KL is 0: the first retain loss is λ·NLL_m(retain) = 2·NLL_m, and after a retain
    epoch at rate 0 the first forget loss is −γ·NLL_m(forget) = −3·NLL_m.
    """
    still = TRAINING.model_copy(update={"lr": 0.0, "batch_size": 4})
    _, log = train_layer(context, context.data.forget, Adapter(2, 4.0, 0.0), still, 1,
                         (0.8, 2.0, 3.0))  # fmt: skip
    with torch.no_grad():
        retain, forget = (
            nll_mean(context.model, collate(encode(context.tokenizer, texts), pad_id=1)).item()
            for texts in (context.data.retain, context.data.forget)
        )
    assert log.losses == pytest.approx([2 * retain, -3 * forget], rel=1e-5)


def test_forget_epochs_raise_the_forget_loss_and_base_is_frozen(context: EditContext) -> None:
    before = {name: p.detach().clone() for name, p in context.model.named_parameters()}
    layer, _ = train_layer(context, context.data.forget, Adapter(2, 4.0, 0.0), TRAINING, 1, WEIGHTS)
    for name, parameter in context.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert len(layer) == 3
    assert all(name.endswith("mlp.down_proj") for name in layer)
    batch = collate(encode(context.tokenizer, context.data.forget), pad_id=1)
    with torch.no_grad():
        start = nll_mean(context.model, batch).item()
    options = {"lr": 1e-2, "rounds": 3, "ascent": 1.0, "batch_size": 2, "requests": 1}
    edit_model(find_card("method", "eul"), context, options)
    with torch.no_grad():
        assert nll_mean(context.model, batch).item() > start + 0.05


def test_inputs_are_read_at_answer_tokens(context: EditContext) -> None:
    """One row per answer token, its end token included, of every layer."""
    texts = context.data.forget[:2]
    tokens = sum(len(row.tokens) - row.answer_start for row in encode(context.tokenizer, texts))
    found = request_inputs(context, texts)
    assert [tuple(x.shape) for x in found] == [(tokens, 48)] * 3


def test_requests_are_fused_into_one_change(context: EditContext) -> None:
    """Two requests: their layers differ, and the change is neither's alone."""
    report = edit_model(find_card("method", "eul"), context,
                        {"lr": 1e-2, "rounds": 1, "batch_size": 2, "requests": 2})  # fmt: skip
    assert report.details["requests"] == [2, 2]
    assert len(report.details["layers"]) == 2
    assert {change.name for change in report.changes} == {
        f"model.layers.{index}.mlp.down_proj.weight" for index in range(3)
    }
