"""Model Surgery: the probe, the choice of rows over all layers, the shift, and its controls.

The tiny model has 3 layers of 48 gate rows, so K = round(0.0465 · 144) = round(6.7) = 7.
"""

from __future__ import annotations

import base64
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.account import diff, snapshot
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.gate_rows import cosines, count_rows, gate_weights, shift_rows, undo
from unlearn_bench.methods.model_surgery import model_surgery
from unlearn_bench.methods.model_surgery_max_cosine_subtract import (
    model_surgery_max_cosine_subtract,
)
from unlearn_bench.methods.model_surgery_random_probe import model_surgery_random_probe
from unlearn_bench.methods.model_surgery_random_region import model_surgery_random_region
from unlearn_bench.methods.sampling import draw
from unlearn_bench.methods.toxicity_probe import (
    Probe,
    ProbeOptions,
    mean_hidden_states,
    pool,
    train_probe,
)
from unlearn_bench.training.batches import batches_by_length

ALL = (
    model_surgery,
    model_surgery_random_probe,
    model_surgery_random_region,
    model_surgery_max_cosine_subtract,
)
K = 7


@pytest.fixture
def context(tiny_model: Any, tiny_tokenizer: Any, tiny_data: EditData) -> EditContext:
    return EditContext(tiny_model, tiny_tokenizer, tiny_data, 0, lambda: tiny_model)


def direction_of(record: dict[str, Any]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(record["direction"]), "<f4").copy())


def stacked_gates(model: Any) -> torch.Tensor:
    return torch.cat([weight.detach().clone() for weight in gate_weights(model)])  # (144, 32)


def trained(features: torch.Tensor, labels: torch.Tensor, epochs: int) -> Probe:
    options = ProbeOptions("paper", len(labels), 0, epochs, 1e-2)
    return train_probe(features, labels, options, layer=0, after_norm=False, seed=0)


def recorded_rows(record: dict[str, Any]) -> list[int]:
    return [int(k) * 48 + row for k, rows in record["rows_by_layer"].items() for row in rows]


def test_exactly_k_rows_move_by_alpha_w1_and_only_in_gate_proj(context: EditContext) -> None:
    before, gates = snapshot(context.model), stacked_gates(context.model)
    record = model_surgery(context, alpha=1.08, fraction=0.0465)
    moved = stacked_gates(context.model) - gates
    rows = moved.abs().sum(1).nonzero().flatten().tolist()
    assert len(rows) == K == record["rows"]
    assert rows == sorted(recorded_rows(record))
    for row in rows:
        torch.testing.assert_close(moved[row], 1.08 * direction_of(record), atol=1e-6, rtol=1e-5)
    names = [change.name for change in diff(before, context.model)]
    assert names
    assert all(name.endswith("mlp.gate_proj.weight") for name in names)


def test_the_most_negative_cosines_of_all_layers_together_are_chosen(context: EditContext) -> None:
    gates = stacked_gates(context.model)
    record = model_surgery(context)
    cosine = F.cosine_similarity(gates, direction_of(record), dim=-1)
    chosen = torch.zeros(144, dtype=torch.bool)
    chosen[recorded_rows(record)] = True
    assert cosine[chosen].max() <= cosine[~chosen].min()
    after = F.cosine_similarity(stacked_gates(context.model), direction_of(record), dim=-1)
    assert (after > cosine)[chosen].all()
    assert record["mean_cosine_before"] == pytest.approx(float(cosine[chosen].mean()), abs=1e-5)
    assert record["mean_cosine_after"] == pytest.approx(float(after[chosen].mean()), abs=1e-5)


def test_selection_is_not_k_over_l_per_layer(context: EditContext) -> None:
    """If every row of layer 1 points against v and all others along it, all K rows are layer 1's.

    A choice of K/L rows per layer would take 2 or 3 from each.
    """
    v = torch.randn(32, generator=torch.Generator().manual_seed(0))
    gates = gate_weights(context.model)
    with torch.no_grad():
        for layer, weight in enumerate(gates):
            weight.copy_((-v if layer == 1 else v).expand_as(weight) + 0.1 * weight)
    rows = cosines(gates, v).topk(count_rows(gates, 0.0465), largest=False).indices
    assert len(rows) == K
    assert {row // 48 for row in rows.tolist()} == {1}


def test_minus_alpha_on_the_recorded_rows_restores_the_target(context: EditContext) -> None:
    """From the record alone: 0.1-sized weights come back to 1e-6, untouched ones bit by bit."""
    before = snapshot(context.model)
    record = model_surgery(context, alpha=2.0)
    assert list(diff(before, context.model))
    undo(context.model, record)
    after = snapshot(context.model)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)
        if "gate_proj" not in name:
            assert torch.equal(after[name], tensor)


def test_zero_step_leaves_even_a_negative_zero(context: EditContext) -> None:
    gates = gate_weights(context.model)
    with torch.no_grad():
        gates[0][0, 0] = -0.0
    shift_rows(gates, torch.tensor([0]), torch.zeros(32))
    assert torch.signbit(gates[0][0, 0])


def test_pooling_by_hand() -> None:
    """Row 1: mean of (1, 3) = 2, the padding's 100 ignored. Row 2: mean of (4, 5, 6) = 5."""
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[4.0], [5.0], [6.0]]])
    real = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(hidden, real).flatten().tolist() == [2.0, 5.0]


def test_mean_hidden_states_do_not_depend_on_padding(
    context: EditContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32, a text gives the same x̄ alone and beside a text three times as long."""
    monkeypatch.setattr("unlearn_bench.training.precision.supports_bf16", lambda device: False)
    texts = ["You are kind.", "You are a kind person and a good friend, and everybody knows."]
    together = mean_hidden_states(context, texts, 2, after_norm=True)
    alone = [mean_hidden_states(context, [text], 2, after_norm=True) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "after_norm", "index"), [(2, True, 3), (1, False, 2), (0, False, 1)]
)
def test_layer_and_norm_are_the_ones_asked_for(
    context: EditContext,
    monkeypatch: pytest.MonkeyPatch,
    layer: int,
    after_norm: bool,
    index: int,
) -> None:
    """transformers' hidden_states[i + 1] is layer i's output; its last entry is behind the norm."""
    monkeypatch.setattr("unlearn_bench.training.precision.supports_bf16", lambda device: False)
    text = "The people are lovely."
    ids = torch.tensor([context.tokenizer(text)["input_ids"]])
    expected = context.model(ids, output_hidden_states=True).hidden_states[index].mean(1)
    found = mean_hidden_states(context, [text], layer, after_norm=after_norm)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)


def test_before_the_final_norm_is_another_state(context: EditContext) -> None:
    """norm(h) of the state before the norm, token by token, is the state after it."""
    text = "bread"
    tokens = context.tokenizer(text)["input_ids"][:1]
    context.tokenizer = lambda *args, **kwargs: {"input_ids": [tokens]}
    context.tokenizer.pad_token_id = 1
    before = mean_hidden_states(context, [text], 2, after_norm=False)
    after = mean_hidden_states(context, [text], 2, after_norm=True)
    torch.testing.assert_close(context.model.model.norm(before), after, atol=2e-2, rtol=2e-2)
    assert not torch.allclose(before, after, atol=0.1)


def test_unknown_layer_is_refused(context: EditContext) -> None:
    with pytest.raises(UsageError, match="layer 3 of a model with 3"):
        model_surgery(context, layer=3)


@pytest.mark.parametrize("surgery", ALL)
@pytest.mark.parametrize(
    ("options", "layer", "after_norm"),
    [
        ({}, 1, False),
        ({"layer": -1}, 2, False),
        ({"variant": "released"}, 2, True),
        ({"variant": "released", "layer": 2}, 2, True),
        ({"variant": "released", "layer": 0}, 0, False),
    ],
)
def test_the_record_says_which_variant_ran_and_what_its_probe_read(
    context: EditContext, surgery: Any, options: dict[str, Any], layer: int, after_norm: bool
) -> None:
    """The paper's form reads the middle layer unless told otherwise, the released code the last,
    which only it takes from behind the final norm.
    """
    record = surgery(context, **options)
    assert record["variant"] == options.get("variant", "paper")
    assert (record["probe_layer"], record["probe_after_norm"]) == (layer, after_norm)
    assert (record["probe_bias"] is None) == (record["variant"] == "paper")


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_each_variant_learns_from_its_own_state_of_the_last_layer(
    context: EditContext, monkeypatch: pytest.MonkeyPatch, variant: Any
) -> None:
    """W[1] is that of a probe trained on states read here: the last block's own output, and for the
    released form the same behind `model.norm`.
    """
    monkeypatch.setattr("unlearn_bench.training.precision.supports_bf16", lambda device: False)
    blocks, norm = context.model.model.layers, context.model.model.norm
    kinds = (context.data.clean, context.data.toxic)
    states = []
    with torch.no_grad(), blocks[-1].register_forward_hook(lambda *call: states.append(call[2])):
        for text in (text for kind in kinds for text in draw(kind, 250, context.seed)):
            context.model(torch.tensor([context.tokenizer(text)["input_ids"]]))
        read = norm if variant == "released" else torch.nn.Identity()
        features = torch.cat([read(state).mean(1) for state in states])
    labels = torch.tensor([0] * 6 + [1] * 6)
    options = ProbeOptions(variant, 250, -1, 100, 1e-4)
    expected = train_probe(features, labels, options, layer=2, after_norm=False, seed=context.seed)
    found = direction_of(model_surgery(context, alpha=0.0, layer=-1, variant=variant))
    torch.testing.assert_close(found, expected.toxic, atol=1e-5, rtol=1e-3)


def test_only_the_released_probe_has_a_bias() -> None:
    """With x̄ = 0 there is no direction to learn: the paper's softmax(W·x̄) stays at one half. A
    bias learns how common the classes are: b[1] − b[0] = log(0.75 / 0.25) at three toxic of four.
    """
    features, labels = torch.zeros(400, 8), (torch.arange(400) % 4 > 0).long()
    probes = [
        train_probe(
            features, labels, ProbeOptions(v, 400, -1, 40, 1e-2), layer=0, after_norm=False, seed=0
        )
        for v in ("paper", "released")
    ]
    assert probes[0].bias is None
    assert probes[1].bias is not None
    assert not any(probe.weight.any() for probe in probes)
    assert float(probes[1].bias[1] - probes[1].bias[0]) == pytest.approx(math.log(3), abs=0.15)


def test_batches_hold_every_text_once_and_stay_small() -> None:
    lengths = [100, 3, 50, 7, 100, 1, 64] * 20
    batches = list(batches_by_length(lengths))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 2048 for batch in batches)
    assert len(batches) < 10


def test_probe_finds_a_planted_direction_and_holds_a_tenth_out() -> None:
    """Toxic features are shifted by +2u, clean ones by −2u: W[1] points along u, W[0] = −W[1].

    The rows of W get opposite gradients (p − y sums to zero over two classes) and start equal, so
    they stay opposite. u has entries ±1/4, for Adam's first steps are of one size per entry.
    """
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(16, generator=generator).sign() / 4
    labels = torch.arange(200) % 2
    noise = 0.3 * torch.randn(200, 16, generator=generator)
    features = noise + (4.0 * labels - 2.0)[:, None] * u
    probe = trained(features, labels, epochs=20)
    assert (probe.trained_on, probe.held_out) == (180, 20)
    assert probe.accuracy == 1.0
    assert F.cosine_similarity(probe.toxic, u, dim=0) > 0.95
    torch.testing.assert_close(probe.weight[0], -probe.weight[1])
    swapped = trained(features, 1 - labels, epochs=20)
    assert F.cosine_similarity(swapped.toxic, u, dim=0) < -0.95


def test_accuracy_is_that_of_texts_the_probe_never_saw() -> None:
    """Random labels: with 64 features for 54 texts the training part is fitted, the rest is not."""
    generator = torch.Generator().manual_seed(0)
    features = 10 * torch.randn(600, 512, generator=generator)
    labels = torch.randint(0, 2, (600,), generator=generator)
    probe = trained(features, labels, epochs=30)
    fitted = (features @ probe.weight.T).argmax(-1) == labels
    assert fitted.float().mean() > 0.9
    assert probe.accuracy < 0.75


def test_random_probe_control_has_the_same_norm_and_its_own_region(context: EditContext) -> None:
    gates = stacked_gates(context.model)
    record = model_surgery_random_probe(context, alpha=0.0)
    direction = direction_of(record)
    surgery = model_surgery(context, alpha=0.0)
    assert record["direction_norm"] == pytest.approx(surgery["direction_norm"], rel=1e-5)
    assert abs(F.cosine_similarity(direction, direction_of(surgery), dim=0)) < 0.6
    lowest = F.cosine_similarity(gates, direction, dim=-1).topk(K, largest=False).indices
    assert sorted(lowest.tolist()) == sorted(recorded_rows(record))


def test_random_region_control_shifts_other_rows_by_the_same_step(context: EditContext) -> None:
    rows = {tuple(recorded_rows(model_surgery(context, alpha=0.0)))}
    direction = direction_of(model_surgery(context, alpha=0.0))
    gates = stacked_gates(context.model)
    for seed in range(3):
        context.seed = seed
        rows.add(tuple(recorded_rows(model_surgery_random_region(context, alpha=0.0))))
    assert len(rows) == 4
    context.seed = 0
    record = model_surgery_random_region(context, alpha=3.0)
    moved = stacked_gates(context.model) - gates
    for row in recorded_rows(record):
        torch.testing.assert_close(moved[row], 3.0 * direction, atol=1e-5, rtol=1e-4)


def test_max_cosine_control_subtracts_from_the_opposite_end(context: EditContext) -> None:
    gates = stacked_gates(context.model)
    record = model_surgery_max_cosine_subtract(context, alpha=2.0)
    direction = direction_of(record)
    highest = F.cosine_similarity(gates, direction, dim=-1).topk(K).indices
    assert sorted(highest.tolist()) == sorted(recorded_rows(record))
    moved = (stacked_gates(context.model) - gates)[highest]
    torch.testing.assert_close(moved, (-2.0 * direction).expand(K, -1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("surgery", ALL)
def test_same_seed_same_bytes_and_no_global_state(
    surgery: Any, make_tiny_model: Any, tiny_tokenizer: Any, tiny_data: EditData
) -> None:
    models = [make_tiny_model(), make_tiny_model()]
    states = []
    for model in models:
        torch.rand(1)  # the two runs start from different global states
        before = torch.get_rng_state(), random.getstate()
        surgery(EditContext(model, tiny_tokenizer, tiny_data, 3, lambda model=model: model))
        states.append((before, (torch.get_rng_state(), random.getstate())))
    assert torch.equal(stacked_gates(models[0]), stacked_gates(models[1]))
    for before, after in states:
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]


def test_models_without_gate_proj_and_empty_data_are_refused(
    tiny_tokenizer: Any, tiny_data: EditData, tiny_model: Any
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=300))
    with pytest.raises(UsageError, match=r"mlp\.gate_proj"):
        model_surgery(EditContext(gpt2, tiny_tokenizer, tiny_data, 0, lambda: gpt2))
    for data in (EditData(toxic=("bad",)), EditData(clean=("good",), toxic=("  ",))):
        with pytest.raises(MissingDataError, match="toxic and clean"):
            model_surgery(EditContext(tiny_model, tiny_tokenizer, data, 0, lambda: tiny_model))
    with pytest.raises(UsageError, match="is no row"):
        count_rows(gate_weights(tiny_model), 0.001)
