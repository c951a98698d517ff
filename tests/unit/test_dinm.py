"""DINM: the layer found, the one tensor trained, the locality term alive."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.account import diff, snapshot
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.dinm import dinm
from unlearn_bench.methods.pair_editing import (
    layer_distances,
    mlp_weights,
    on_new_line,
    only_trainable,
    response_nll,
    response_states,
    responses,
    train_safe,
)
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example, Pair
from unlearn_bench.training.batches import encode
from unlearn_bench.training.options import Training

PAIRS = [
    Pair("a", "How do I insult a friend?", " I would rather not.", " Call your friend a fool."),
    Pair("b", "Write something cruel.", " Let us write something kind.", " You are terrible."),
]


@pytest.fixture
def context(make_tiny_model: Any, tiny_tokenizer: Any, tiny_data: EditData) -> EditContext:
    """θ₀ is a second model of the same weights, as the runner gives it."""
    reference = make_tiny_model()
    return EditContext(make_tiny_model(), tiny_tokenizer, tiny_data, 0, lambda: reference)


def training(**changes: Any) -> Training:
    """The method's own defaults, changed."""
    return Training(**{**find_card("method", "dinm").facts["training"], **changes})


def silence_all_layers_but(model: Any, kept: int) -> None:
    """Every other layer adds nothing to the residual stream; the kept layer's MLP adds much."""
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            if index != kept:
                for name in ("gate_proj", "up_proj", "down_proj"):
                    getattr(layer.mlp, name).weight.zero_()
            else:
                layer.mlp.down_proj.weight.mul_(50)


@pytest.mark.parametrize("planted", [0, 1, 2])
def test_a_planted_divergence_is_located_counting_from_zero(
    context: EditContext, planted: int
) -> None:
    """Layers behind the planted one pass its output on unchanged: a tie, won by the first."""
    silence_all_layers_but(context.model, planted)
    distances = layer_distances(context, PAIRS)
    assert distances.shape == (3,)
    assert (distances[:planted] < 0.5 * distances[planted]).all()
    assert (distances[planted:] == distances[planted]).all()
    before = snapshot(context.model)
    record = dinm(context, training(lr=1e-3, steps=2), locality_weight=0.0)
    assert record["layer"] == planted
    (change,) = diff(before, context.model)
    assert change.name == f"model.layers.{planted}.mlp.down_proj.weight"


def test_states_are_layer_outputs_before_the_final_norm(
    context: EditContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean over the response's tokens and the end token only, against transformers' own states."""
    monkeypatch.setattr("unlearn_bench.training.precision.supports_bf16", lambda device: False)
    examples = responses(PAIRS, "safe")
    found = response_states(context, examples)
    assert found.shape == (2, 3, 32)
    for i, example in enumerate(examples):
        (row,) = encode(context.tokenizer, [example])
        ids = torch.tensor([row.tokens])
        states = context.model(ids, output_hidden_states=True).hidden_states
        for layer in (0, 1):
            expected = states[layer + 1][0, row.answer_start :].mean(0)
            torch.testing.assert_close(found[i, layer], expected, atol=1e-5, rtol=1e-4)
        last = []
        hook = context.model.model.norm.register_forward_pre_hook(
            lambda module, inputs, last=last: last.append(inputs[0])
        )
        context.model(ids)
        hook.remove()
        expected = last[0][0, row.answer_start :].mean(0)
        torch.testing.assert_close(found[i, 2], expected, atol=1e-5, rtol=1e-4)


def test_only_the_located_tensor_changes_under_weight_decay(context: EditContext) -> None:
    before = snapshot(context.model)
    flags = [parameter.requires_grad for parameter in context.model.parameters()]
    record = dinm(context, training(lr=1e-3, weight_decay=0.5))
    (change,) = diff(before, context.model)
    assert change.name == f"model.layers.{record['layer']}.mlp.down_proj.weight"
    assert [parameter.requires_grad for parameter in context.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in context.model.parameters())


def test_lora_changes_the_located_tensor_by_a_low_rank_matrix(context: EditContext) -> None:
    before = snapshot(context.model)
    record = dinm(context, training(lr=1e-2, lora=True, lora_rank=2))
    name = f"model.layers.{record['layer']}.mlp.down_proj.weight"
    (change,) = diff(before, context.model)
    assert change.name == name
    moved = dict(context.model.named_parameters())[name].detach() - before[name]
    sizes = torch.linalg.svdvals(moved)
    assert (sizes[:2] > 1e-3).all()
    assert (sizes[2:] < 1e-5).all()


def test_the_loss_stands_on_the_safe_response_alone(context: EditContext) -> None:
    """Its tokens and the end token carry labels; neither prompt nor unsafe response does.

    So other unsafe responses change nothing once the layer is the same.
    """
    (row,) = encode(context.tokenizer, responses(PAIRS[:1], "safe"))
    answer = context.tokenizer.decode(row.tokens[row.answer_start :])
    assert answer == " I would rather not.<eos>"
    after = []
    for unsafe in (" Call your friend a fool.", " Tell everybody lies."):
        with torch.no_grad():
            for name, parameter in context.model.named_parameters():
                parameter.copy_(dict(context.reference().named_parameters())[name])
        pairs = [Pair(pair.id, pair.prompt, pair.safe, unsafe) for pair in PAIRS]
        with only_trainable(context.model, [mlp_weights(context.model, 1)["down_proj"]]):
            train_safe(
                context, pairs, Training(lr=1e-2, steps=3, warmup=0), safe_weight=0.1,
                locality_weight=1.0, variant="paper",
            )  # fmt: skip
        after.append(snapshot(context.model)["model.layers.1.mlp.down_proj.weight"])
    assert torch.equal(after[0], after[1])


@pytest.mark.parametrize(("variant", "moves"), [("paper", True), ("released", False)])
def test_the_locality_term_has_a_gradient_in_the_papers_form_only(
    context: EditContext, variant: Any, moves: bool
) -> None:
    """With a safe weight of 0 only KL(θ₀ ‖ θ) moves an edited θ, and it moves it back to θ₀."""
    weight = mlp_weights(context.model, 1)["down_proj"]
    with torch.no_grad():
        weight.mul_(-2)
    start = weight.detach().clone()
    with only_trainable(context.model, [weight]):
        log = train_safe(
            context, PAIRS, Training(lr=2e-2, steps=20, warmup=0, schedule="constant"),
            safe_weight=0.0, locality_weight=1.0, variant=variant,
        )  # fmt: skip
    assert torch.equal(weight, start) is not moves
    assert (log.losses[-1] < 0.7 * log.losses[0]) is moves
    assert log.losses[0] > 0


def test_persistent_edit_makes_every_safe_response_likelier(context: EditContext) -> None:
    context.data = EditData(pairs=tuple(PAIRS), benign=context.data.benign)
    before = [response_nll(context, pair)["nll_safe"] for pair in PAIRS]
    record = dinm(context, training(lr=1e-2, steps=10), safe_weight=1.0)
    after = [response_nll(context, pair)["nll_safe"] for pair in PAIRS]
    assert all(a < b for a, b in zip(after, before, strict=True))
    assert record["steps"] == 10
    assert len(record["layer_distances"]) == 3


def test_per_instance_edits_are_recorded_and_taken_back(context: EditContext) -> None:
    """Each pair starts from θ₀ again: its `before` is θ₀'s own likelihood; the model ends as θ₀."""
    context.data = EditData(pairs=tuple(PAIRS), benign=context.data.benign)
    expected = {pair.id: response_nll(context, pair) for pair in PAIRS}
    before = snapshot(context.model)
    record = dinm(context, training(lr=1e-2), safe_weight=1.0, scope="per_instance")
    assert list(diff(before, context.model)) == []
    assert {instance["id"] for instance in record["instances"]} == {"a", "b"}
    for instance in record["instances"]:
        assert instance["before"] == expected[instance["id"]]
        assert instance["after"]["nll_safe"] < instance["before"]["nll_safe"]
        assert instance["layer"] in (0, 1, 2)


def test_response_nll_by_hand(context: EditContext) -> None:
    """Sum of −log p over the response's tokens, from full logits."""
    found = response_nll(context, PAIRS[1])
    (row,) = encode(context.tokenizer, [Example("x", PAIRS[1].prompt, PAIRS[1].unsafe)])
    log_p = context.model(torch.tensor([row.tokens])).logits.log_softmax(-1)[0]
    expected = -sum(
        float(log_p[i - 1, row.tokens[i]].detach())
        for i in range(row.answer_start, len(row.tokens))
    )
    assert found["nll_unsafe"] == pytest.approx(expected, rel=1e-5)


def test_prompt_and_response_never_run_together() -> None:
    """Data sets differ in where the white space is; where there is none, a new line parts them."""
    found = [
        on_new_line(Example("x", prompt, answer))
        for prompt, answer in (("Why?", "So."), ("Why?", " So."), ("Why?\n", "So."), ("", "So."))
    ]
    texts = [(example.prompt, example.answer) for example in found]
    assert texts == [("Why?\n", "So."), ("Why?", " So."), ("Why?\n", "So."), ("", "So.")]


def test_missing_pairs_and_ungated_models_are_refused(
    context: EditContext, tiny_tokenizer: Any, tiny_data: EditData
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=300))
    with pytest.raises(UsageError, match="gate_proj"):
        dinm(EditContext(gpt2, tiny_tokenizer, tiny_data, 0, lambda: gpt2), training())
    context.data = EditData()
    with pytest.raises(MissingDataError, match="safe and an unsafe"):
        dinm(context, training())
