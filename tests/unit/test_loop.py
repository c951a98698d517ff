"""The training loop: what a step is, when it ends, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.errors import (
    DivergedError,
    MissingDataError,
    ReferenceMovedError,
    UsageError,
)
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.likelihood import kl_to_reference, nll_mean
from unlearn_bench.training.loop import TrainLog, rate_factor, train
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = tuple(
    Example(f"text-{i}", "Question: Who?\nAnswer:", f" {name}")
    for i, name in enumerate(("Zirnavo", "Orvelle", "Pallow", "Kilmerrow", "Cwmarreth", "Ward"))
)
Run = Callable[..., TrainLog]


def text_loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
    return nll_mean(policy, batch.get("text"))


@pytest.fixture
def run(tiny_tokenizer: PreTrainedTokenizerFast) -> Run:
    """`train` on TEXTS in fp32, three batches of two per epoch."""

    def start(
        model: LlamaForCausalLM,
        loss: Any = text_loss,
        sets: Mapping[str, Sequence[Example]] | None = None,
        seed: int = 0,
        reference: Any = None,
        stop: Any = None,
        **options: Any,
    ) -> TrainLog:
        training = Training(**{"epochs": 2, "batch_size": 2, "precision": "fp32", **options})
        sets = sets or {"text": TEXTS}
        return train(model, tiny_tokenizer, sets, loss, training,
                     seed=seed, reference=reference, stop=stop)  # fmt: skip

    return start


def weights_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(model: LlamaForCausalLM, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_training_lowers_the_loss_and_says_what_it_did(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    log = run(tiny_model, lr=1e-2, epochs=8)
    assert (log.steps, log.forward_passes, log.backward_passes) == (24, 24, 24)
    assert len(log.losses) == len(log.grad_norms) == 24
    assert log.losses[-1] < 0.5 * log.losses[0]
    assert log.precision == "fp32"
    assert log.seconds > 0
    assert not tiny_model.training
    assert all(weight.grad is None for weight in tiny_model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_same_seed_same_bytes(
    precision: str, make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    models = [make_tiny_model() for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        torch.rand(1)  # the caller's random state must not matter
        run(model, lr=1e-3, seed=seed, precision=precision)
    assert same(models[1], weights_of(models[0]))
    assert not same(models[2], weights_of(models[0]))


def test_the_callers_random_state_is_left_alone(tiny_model: LlamaForCausalLM, run: Run) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tiny_model, lora=True)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("options", [{"steps": 0}, {"epochs": 0}, {"epochs": 0, "lora": True}])
def test_no_step_changes_no_bit(
    options: dict[str, Any], tiny_model: LlamaForCausalLM, run: Run
) -> None:
    before = weights_of(tiny_model)
    log = run(tiny_model, lr=1.0, **options)
    assert same(tiny_model, before)
    assert (log.steps, log.forward_passes, log.losses) == (0, 0, [])


def test_one_plain_sgd_step_is_the_gradient(
    tiny_model: LlamaForCausalLM,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    run: Run,
) -> None:
    """θ' = θ − η·∇CE with the gradient of an independent model and transformers' own loss."""
    other = make_tiny_model()
    log = run(tiny_model, sets={"text": TEXTS[:2]}, optimizer="sgd", lr=0.1, steps=1,
              clip=float("inf"))  # fmt: skip
    batch = collate(encode(tiny_tokenizer, TEXTS[:2]), pad_id=1)
    loss = other(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                 labels=batch.labels).loss  # fmt: skip
    loss.backward()
    assert log.losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
    for mine, theirs in zip(tiny_model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad, rtol=1e-5, atol=1e-7)


def test_a_loss_without_logits_trains_the_table_it_reads(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    """Its gradient is rows of the tied table only, which no fused optimiser takes as they are."""
    table, asked = tiny_model.get_input_embeddings(), []

    def hidden_loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
        asked.append(batch.get("text").input_ids)
        return policy.base_model(input_ids=asked[-1]).last_hidden_state.pow(3).mean()

    before = table.weight.detach().clone()
    run(tiny_model, hidden_loss, steps=2, accumulate=2)
    moved = (table.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert moved
    assert set(moved) <= set(torch.cat([ids.flatten() for ids in asked]).tolist())
    assert table.sparse is False


def test_gradients_are_clipped_to_the_limit(tiny_model: LlamaForCausalLM, run: Run) -> None:
    """With plain SGD ‖θ' − θ‖ = η·min(‖g‖, limit), and the log holds ‖g‖ before clipping."""
    before = weights_of(tiny_model)
    log = run(tiny_model, optimizer="sgd", lr=1.0, steps=1, clip=0.01)
    moved = sum((w - before[n]).square().sum().item() for n, w in tiny_model.named_parameters())
    assert log.grad_norms[0] > 0.1
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_make_one_step(
    make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    """Two batches of the same two texts average to the gradient of one."""
    one, two = make_tiny_model(), make_tiny_model()
    options: dict[str, Any] = {"sets": {"text": TEXTS[:2]}, "lr": 1e-2, "steps": 1}
    single = run(one, **options)
    double = run(two, **options, accumulate=2)
    assert (single.backward_passes, double.backward_passes) == (1, 2)
    assert double.losses[0] == pytest.approx(single.losses[0], rel=1e-5)
    assert double.grad_norms[0] == pytest.approx(single.grad_norms[0], rel=1e-5)
    assert run(make_tiny_model(), epochs=1, accumulate=3).steps == 1


def test_k_accumulated_batches_step_along_the_mean_of_their_gradients(
    tiny_model: LlamaForCausalLM,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    run: Run,
) -> None:
    """Batches of 2, 2 and 1 texts with other numbers of tokens: every batch counts one third.

    The mean over all 5 texts, or over all their tokens, would be another step.
    """
    texts = TEXTS[:5]
    asked: list[tuple[str, ...]] = []

    def loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
        asked.append(batch.get("text").ids)
        return nll_mean(policy, batch.get("text"))

    log = run(tiny_model, loss, sets={"text": texts}, optimizer="sgd", lr=0.1, steps=1,
              accumulate=3, clip=float("inf"))  # fmt: skip
    assert sorted(map(len, asked)) == [1, 2, 2]
    other, found = make_tiny_model(), []
    by_id = {text.id: text for text in texts}
    for ids in asked:
        batch = collate(encode(tiny_tokenizer, [by_id[id_] for id_ in ids]), pad_id=1)
        value = nll_mean(other, batch) / 3
        value.backward()  # .grad adds up
        found.append(float(value.detach()))
    assert log.losses == pytest.approx([sum(found)], rel=1e-5)
    for mine, theirs in zip(tiny_model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_checkpointing_trains_the_same_and_leaves_no_trace(
    lora: bool, attention: str, make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    """Short texts take another attention in training; computed again it must be the first one."""
    plain, saving, reference = (make_tiny_model(attn_implementation=attention) for _ in range(3))
    assert plain.config._attn_implementation == attention
    computed: list[bool] = []

    def loss(batch: Any, policy: Any, teacher: Any) -> torch.Tensor:
        text = batch.get("text")
        return kl_to_reference(teacher, policy, text) + nll_mean(policy, text)

    options: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "steps": 4, "lora": lora}
    options["reference"] = lambda: reference
    wanted = run(plain, loss, **options)
    state = flags_of(saving)
    hook = saving.model.layers[1].mlp.register_forward_pre_hook(
        lambda *_: computed.append(saving.is_gradient_checkpointing)
    )
    log = run(saving, loss, **options, checkpointing=True)
    hook.remove()
    # Two policy passes a step, each computed twice; with LoRA the teacher's pass is here as well.
    assert len(computed) == 4 * (2 * 2 + lora)
    assert all(computed)
    assert (log.forward_passes, log.backward_passes) == (wanted.forward_passes, 4) == (12, 4)
    assert log.losses == pytest.approx(wanted.losses, rel=1e-4)
    assert log.grad_norms == pytest.approx(wanted.grad_norms, rel=1e-4)
    for mine, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert flags_of(saving) == state


def flags_of(model: LlamaForCausalLM) -> list[Any]:
    """What a training may switch on a model and has to switch back."""
    modules = [
        (name, module.training, getattr(module, "gradient_checkpointing", None),
         len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]  # fmt: skip
    switches = [weight.requires_grad for weight in model.parameters()]
    return [modules, switches, model.config.to_dict(), model.config._attn_implementation,
            model.get_input_embeddings().sparse]  # fmt: skip


def test_checkpointing_runs_through_no_frozen_layer(tiny_model: LlamaForCausalLM, run: Run) -> None:
    """Below the first layer that trains nothing needs a gradient, and nothing is computed again."""
    tiny_model.requires_grad_(False)
    tiny_model.model.layers[2].mlp.requires_grad_(True)
    calls = [0, 0, 0]

    def count(index: int) -> Any:
        def hook(*_: Any) -> None:
            calls[index] += 1

        return hook

    for index, layer in enumerate(tiny_model.model.layers):
        layer.mlp.register_forward_pre_hook(count(index))
    run(tiny_model, steps=1, checkpointing=True)
    assert calls == [1, 1, 2]


def test_checkpointing_is_refused_where_the_architecture_has_none(
    tiny_model: LlamaForCausalLM, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny_model), "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match="checkpointing is not possible"):
        run(tiny_model, steps=1, checkpointing=True)


def test_rate_by_hand() -> None:
    """10 steps, warm-up 0.2: two rising steps 1/3, 2/3, then 1 falling by 1/8 a step to 1/8."""
    linear = Training(warmup=0.2)
    factors = [rate_factor(done, 10, linear) for done in range(10)]
    assert factors == pytest.approx(
        [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    constant = Training(warmup=0.2, schedule="constant")
    assert [rate_factor(done, 10, constant) for done in range(2, 10)] == [1.0] * 8
    assert rate_factor(0, 1, Training(warmup=0.1)) == 1.0


def test_loss_that_is_not_finite_stops_with_the_last_good_figures(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    count = iter(range(100))

    def loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
        factor = torch.nan if next(count) == 3 else 1.0
        return factor * nll_mean(policy, batch.get("text"))

    with pytest.raises(DivergedError, match="the loss became nan") as caught:
        run(tiny_model, loss)
    assert caught.value.step == 4
    assert list(caught.value.last_losses) == ["step 3", "step 2", "step 1"]
    assert all(torch.isfinite(weight).all() for weight in tiny_model.parameters())
    assert not tiny_model.training


def test_gradient_that_is_not_finite_is_not_applied(tiny_model: LlamaForCausalLM, run: Run) -> None:
    """√x at 0 has the finite value 0 and an infinite slope."""

    def loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
        value = nll_mean(policy, batch.get("text"))
        return (value - value.detach()).sqrt()

    before = weights_of(tiny_model)
    with pytest.raises(DivergedError, match="gradient norm"):
        run(tiny_model, loss)
    assert same(tiny_model, before)


def test_moved_reference_is_caught(
    tiny_model: LlamaForCausalLM, make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    """A change of one element behind autograd's back, as an averaged teacher would make."""
    reference = make_tiny_model()

    def loss(batch: Any, policy: Any, teacher: Any) -> torch.Tensor:
        teacher.lm_head.weight.data[3, 4] += 1e-3
        return kl_to_reference(teacher, policy, batch.get("text"))

    with pytest.raises(ReferenceMovedError, match="changed"):
        run(tiny_model, loss, reference=lambda: reference, steps=1)


def test_reference_that_is_the_model_is_caught(tiny_model: LlamaForCausalLM, run: Run) -> None:
    import copy

    shallow = copy.copy(tiny_model)
    for reference in (tiny_model, shallow):
        with pytest.raises(ReferenceMovedError, match="shares its weights"):
            run(tiny_model, reference=lambda reference=reference: reference)


def test_reference_is_frozen_and_counted(
    tiny_model: LlamaForCausalLM, make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    reference = make_tiny_model()
    before = weights_of(reference)

    def loss(batch: Any, policy: Any, teacher: Any) -> torch.Tensor:
        text = batch.get("text")
        return nll_mean(policy, text) + kl_to_reference(teacher, policy, text)

    log = run(tiny_model, loss, reference=lambda: reference, steps=3, lr=1e-2)
    assert same(reference, before)
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert (log.forward_passes, log.backward_passes) == (9, 3)


@pytest.mark.parametrize("reference_first", [True, False])
def test_lora_merges_and_serves_as_its_own_reference(
    reference_first: bool,
    tiny_model: LlamaForCausalLM,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    run: Run,
) -> None:
    """The adapter is off in the reference at every step, whichever model is asked first."""
    original = make_tiny_model()
    before = weights_of(tiny_model)
    gaps, kls = [], []

    def loss(batch: Any, policy: Any, teacher: Any) -> torch.Tensor:
        text = batch.get("text")
        if reference_first:
            kl = kl_to_reference(teacher, policy, text)
            value = nll_mean(policy, text)
        else:
            value = nll_mean(policy, text)
            kl = kl_to_reference(teacher, policy, text)
        gaps.append((nll_mean(teacher, text) - nll_mean(original, text)).abs().item())
        kls.append(float(kl.detach()))
        return value

    def never() -> Any:
        raise AssertionError("LoRA needs no second copy")

    log = run(tiny_model, loss, reference=never, lora=True, lr=1e-1, steps=6)
    assert max(gaps) < 1e-5
    assert kls[0] == pytest.approx(0, abs=1e-6)
    assert kls[-1] > 1e-3
    assert log.losses[-1] < log.losses[0]
    after = dict(tiny_model.named_parameters())
    assert list(after) == list(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert all(weight.requires_grad for weight in after.values())
    assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight


def test_lora_changes_only_what_would_have_trained(tiny_model: LlamaForCausalLM, run: Run) -> None:
    """Two of the linear layers are in training, and a norm, which no adapter can express."""
    tiny_model.requires_grad_(False)
    chosen = {"model.layers.1.mlp.down_proj.weight", "model.layers.2.self_attn.q_proj.weight"}
    weights = dict(tiny_model.named_parameters())
    for name in (*chosen, "model.norm.weight"):
        weights[name].requires_grad_(True)
    before, flags = weights_of(tiny_model), [w.requires_grad for w in tiny_model.parameters()]
    run(tiny_model, lora=True, lr=1e-1, steps=2)
    after = dict(tiny_model.named_parameters())
    assert {name for name in after if not torch.equal(after[name], before[name])} == chosen
    assert [weight.requires_grad for weight in tiny_model.parameters()] == flags
    tiny_model.requires_grad_(False)
    tiny_model.model.norm.requires_grad_(True)
    with pytest.raises(UsageError, match="LoRA changes linear layers"):
        run(tiny_model, lora=True, steps=1)


def test_stop_is_asked_after_each_epoch_but_the_last(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    asked: list[bool] = []
    log = run(tiny_model, epochs=3, stop=lambda: asked.append(True) or False)
    assert (len(asked), log.steps, log.stopped_early) == (2, 9, False)
    log = run(tiny_model, epochs=3, stop=lambda: True)
    assert (log.steps, log.stopped_early) == (3, True)


class Untouchable(Sequence[Example]):
    """A set that must not be read."""

    def __len__(self) -> int:
        raise AssertionError("the set was read")

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("the set was read")


def test_set_that_the_loss_does_not_ask_for_is_never_read(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    sets = {"text": TEXTS, "other": Untouchable()}
    assert run(tiny_model, sets=sets).steps == 6
    with pytest.raises(AssertionError, match="was read"):
        run(tiny_model, lambda b, p, r: nll_mean(p, b.get("other")), sets=sets)


def test_an_epoch_is_of_the_first_set_that_holds_texts(
    tiny_model: LlamaForCausalLM, run: Run
) -> None:
    """Six texts by two: three steps an epoch, whatever empty set stands first."""
    log = run(tiny_model, sets={"empty": (), "text": TEXTS, "more": TEXTS[:1]}, epochs=1)
    assert log.steps == 3
    with pytest.raises(MissingDataError, match="'empty', and it is empty"):
        run(tiny_model, lambda b, p, r: nll_mean(p, b.get("empty")),
            sets={"empty": (), "text": TEXTS})  # fmt: skip


def test_every_module_gets_its_own_mode_back(tiny_model: LlamaForCausalLM, run: Run) -> None:
    tiny_model.model.layers[1].train()
    before = [module.training for module in tiny_model.modules()]
    modes: list[bool] = []

    def loss(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
        modes.extend(module.training for module in policy.modules())
        return text_loss(batch, policy, reference)

    run(tiny_model, loss, steps=1)
    assert all(modes)
    assert [module.training for module in tiny_model.modules()] == before
    assert True in before
    assert False in before


def test_progress_reaches_the_end(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[tuple[str, int, int]] = []
    train(
        tiny_model,
        tiny_tokenizer,
        {"text": TEXTS},
        text_loss,
        Training(steps=2, batch_size=2),
        seed=0,
        progress=lambda *entry: seen.append(entry),
    )
    assert seen == [("training", 1, 2), ("training", 2, 2)]


def test_precisions_may_change_within_a_process(
    make_tiny_model: Callable[..., LlamaForCausalLM], run: Run
) -> None:
    """accelerate alone would refuse the second, or keep the first."""
    logs = [run(make_tiny_model(), steps=1, precision=p) for p in ("bf16", "fp32", "bf16")]
    assert [log.precision for log in logs] == ["bf16 autocast", "fp32", "bf16 autocast"]
    assert logs[0].losses == logs[2].losses != logs[1].losses
