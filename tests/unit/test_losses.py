"""The trained losses against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from table_model import TableModel, set_batches, token_batch

from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.grad_diff import grad_diff
from unlearn_bench.methods.llm_surgery import llm_surgery
from unlearn_bench.methods.npo import npo
from unlearn_bench.methods.run import edit_model
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches, TokenBatch, collate, encode
from unlearn_bench.training.likelihood import kl_to_reference, nll_mean

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# Three words. Under POLICY p(1|0) = 1/4; under REFERENCE p(1|0) = 1/2. Rows 1 and 2 agree.
POLICY = [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]]
REFERENCE = [[1 / 4, 1 / 2, 1 / 4], *POLICY[1:]]
FORGET = token_batch(([0, 1, 1], 1))  # NLL_s: policy ln 8, reference ln 4; NLL_m: ln 8 / 2
RETAIN = token_batch(([1, 2], 1))  # NLL: ln 4 under both


def test_npo_by_hand() -> None:
    """β = 1: NLL_s rose by ln 8 − ln 4 = ln 2, σ(ln 2) = 2/3, so −2·ln(2/3) = 0.8109; α = 1/2 adds
    ln 4 / 2 = ln 2. With the mean NLL the ratio would be σ(ln 2 / 2) = 0.5858.
    """
    batch = set_batches(forget=FORGET, retain=RETAIN)
    loss = npo(batch, TableModel(POLICY), TableModel(REFERENCE), beta=1.0, alpha=0.5)
    assert loss.item() == pytest.approx(-2 * math.log(2 / 3) + math.log(2), abs=1e-6)


def test_npo_averages_over_answers_not_tokens() -> None:
    """Answers 1 1 (raised by ln 2) and 1 (raised by ln 2, too): the mean of two equal terms, though
    one has twice the tokens. A third answer, 2 after 2, is raised by 0: −2·ln(1/2).
    """
    forget = token_batch(([0, 1, 1], 1), ([0, 1], 1), ([2, 2], 1))
    loss = npo(set_batches(forget=forget), TableModel(POLICY), TableModel(REFERENCE),
               beta=1.0, alpha=0.0)  # fmt: skip
    expected = (-4 * math.log(2 / 3) - 2 * math.log(1 / 2)) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_npo_starts_as_gradient_ascent(beta: float) -> None:
    """At θ = θ₀ the loss is (2/β)·ln 2, and d/dNLL_s = −2·σ(0) = −1 whatever β: plain ascent."""
    policy, ascent = TableModel(POLICY), TableModel(POLICY)
    loss = npo(set_batches(forget=FORGET), policy, TableModel(POLICY), beta=beta, alpha=0.0)
    assert loss.item() == pytest.approx(2 / beta * math.log(2), rel=1e-6)
    loss.backward()
    (-2 * nll_mean(ascent, FORGET)).backward()  # one answer of two tokens: NLL_s = 2·NLL_m
    torch.testing.assert_close(policy.logits.grad, ascent.logits.grad)


def test_npo_lets_go_of_what_is_already_low() -> None:
    """The gradient weight is 2·(1 − σ(β·rise)): ascent's 1 falls to 2·(1 − 2/3) = 2/3 at ln 2."""
    policy, ascent = TableModel(POLICY), TableModel(POLICY)
    npo(set_batches(forget=FORGET), policy, TableModel(REFERENCE), beta=1.0, alpha=0.0).backward()
    (-2 * nll_mean(ascent, FORGET)).backward()
    assert ascent.logits.grad is not None
    torch.testing.assert_close(policy.logits.grad, ascent.logits.grad * 2 / 3)


def test_grad_diff_by_hand() -> None:
    """−ln 8 / 2 + 3·ln 4 = 4.5·ln 2."""
    batch = set_batches(forget=FORGET, retain=RETAIN)
    loss = grad_diff(batch, TableModel(POLICY), None, alpha=3.0)
    assert loss.item() == pytest.approx(4.5 * math.log(2), abs=1e-6)


def test_grad_diff_without_retain_weight_reads_no_retain_set() -> None:
    loss = grad_diff(set_batches(forget=FORGET), TableModel(POLICY), None, alpha=0.0)
    assert loss.item() == pytest.approx(-1.5 * math.log(2), abs=1e-6)


OLD = token_batch(([2, 0], 1))  # NLL: ln 8
UPDATE = token_batch(([2, 2, 1], 2))  # NLL: ln 8
KEEP = token_batch(([0, 2], 1))  # read under row 0, where policy and reference differ


def surgery_sets() -> Any:
    return set_batches(forget=FORGET, old=OLD, update=UPDATE, retain=KEEP)


WEIGHTS = {"forget_weight": 0.1, "old_weight": 0.1, "update_weight": 2.0, "retain_weight": 0.5}


def test_llm_surgery_by_hand() -> None:
    """−0.1·(ln 8)/2 − 0.1·ln 8 + 2·ln 8 + 0.5·KL, with KL(θ₀‖θ) in row 0:
    1/4·ln(1/2) + 1/2·ln 2 + 1/4·ln 1 = ln 2 / 4. In units of ln 2:
    −0.15 − 0.3 + 6 + 0.125 = 5.675.
    """
    loss = llm_surgery(surgery_sets(), TableModel(POLICY), TableModel(REFERENCE), **WEIGHTS)
    assert loss.item() == pytest.approx(5.675 * math.log(2), abs=1e-5)


def test_llm_surgery_without_an_update_or_anything_to_forget_is_the_other_terms() -> None:
    """The terms of `test_llm_surgery_by_hand`, −0.15 − 0.3 + 6 + 0.125 in units of ln 2, without
    those of the empty sets.
    """
    cases = {("old", "update"): -0.15 + 0.125, ("forget",): -0.3 + 6 + 0.125}
    for empty, expected in cases.items():
        named = {"forget": FORGET, "old": OLD, "update": UPDATE, "retain": KEEP}
        streams = {name: iter(() if name in empty else [batch]) for name, batch in named.items()}
        texts = {name: () if name in empty else (Example("x", "", "y"),) for name in named}
        batch = SetBatches(streams, texts=texts)
        loss = llm_surgery(batch, TableModel(POLICY), TableModel(REFERENCE), **WEIGHTS)
        assert loss.item() == pytest.approx(expected * math.log(2), abs=1e-6)


@pytest.mark.parametrize("empty", [("old", "update"), ("forget",)])
def test_an_empty_optional_set_edits_as_its_weight_zero_does(
    empty: tuple[str, ...],
    tiny_tokenizer: PreTrainedTokenizerFast,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_data: EditData,
) -> None:
    """Through the real loop, counted in epochs: of the first set that holds texts."""

    def edited(data: EditData, **weights: float) -> LlamaForCausalLM:
        model = make_tiny_model()
        context = EditContext(model, tiny_tokenizer, data, seed=0, reference=make_tiny_model)
        options = {"steps": None, "epochs": 1, "batch_size": 2, "lr": 1e-3, "precision": "fp32"}
        edit_model(find_card("method", "llm_surgery"), context, options | weights)
        return model

    without = edited(replace(tiny_data, **dict.fromkeys(empty, ())))
    unweighted = edited(
        replace(tiny_data, forget=tiny_data.old) if "forget" in empty else tiny_data,
        **{f"{name}_weight": 0.0 for name in empty},
    )
    start = dict(make_tiny_model().named_parameters())
    for name, weight in without.named_parameters():
        assert torch.equal(weight, unweighted.get_parameter(name)), name
        assert not torch.equal(weight, start[name]), name


def test_llm_surgery_released_adds_the_references_entropy() -> None:
    """Tokens 0 2, every position counted: position 0 has KL + H(1/4, 1/2, 1/4) = ln 2/4 + 1.5·ln 2,
    position 1 (row 2, equal in both) only H(1/8, 1/8, 3/4) = 3/4·ln 2·... = ln 8/4 + 3/4·ln(4/3).
    """
    weights = {"forget_weight": 0.0, "old_weight": 0.0, "update_weight": 0.0, "retain_weight": 1.0}
    loss = llm_surgery(surgery_sets(), TableModel(POLICY), TableModel(REFERENCE),
                       variant="released", **weights)  # fmt: skip
    first = 1.75 * math.log(2)
    second = math.log(8) / 4 + 0.75 * math.log(4 / 3)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_both_retain_terms_have_no_gradient_at_the_reference(variant: Any) -> None:
    policy = TableModel(POLICY)
    loss = llm_surgery(surgery_sets(), policy, TableModel(POLICY), variant=variant,
                       forget_weight=0.0, old_weight=0.0, update_weight=0.0)  # fmt: skip
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7) if variant == "paper" else loss.item() > 0.1
    assert policy.logits.grad is not None
    assert policy.logits.grad.abs().max() < 1e-7


TERMS = ("forget", "old", "update", "retain")


@pytest.mark.parametrize("term", TERMS)
def test_weight_zero_leaves_its_set_unread(term: str) -> None:
    sets = {"forget": FORGET, "old": OLD, "update": UPDATE, "retain": KEEP}
    del sets[term]
    llm_surgery(set_batches(**sets), TableModel(POLICY), TableModel(REFERENCE),
                **{f"{term}_weight": 0.0})  # fmt: skip


def test_invariant_to_padding() -> None:
    def pad(batch: TokenBatch) -> TokenBatch:
        rows = [(row[row != -100].tolist(), row) for row in batch.labels]
        assert len(rows) == 1
        start = int((batch.labels[0] != -100).nonzero()[0])
        return token_batch((batch.input_ids[0].tolist(), start), width=9)

    padded = set_batches(forget=pad(FORGET), old=pad(OLD), update=pad(UPDATE), retain=pad(KEEP))
    pair = TableModel(POLICY), TableModel(REFERENCE)
    assert llm_surgery(padded, *pair).item() == pytest.approx(
        llm_surgery(surgery_sets(), *pair).item()
    )


@pytest.mark.parametrize(("term", "direction"), [("forget", 1), ("old", 1), ("update", -1)])
def test_each_term_alone_moves_its_own_loss_the_right_way(
    term: str,
    direction: int,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_data: EditData,
) -> None:
    """On a real architecture through the real loop; every other set raises when it is read."""
    examples = getattr(tiny_data, term)
    batch = collate(encode(tiny_tokenizer, examples), pad_id=1)
    before = nll_mean(tiny_model, batch).item()
    context = surgery_context(tiny_model, tiny_tokenizer, make_tiny_model, **{term: examples})
    options = {f"{name}_weight": 0.0 for name in TERMS if name != term}
    edit_model(find_card("method", "llm_surgery"), context,
               options | {"steps": 6, "lr": 1e-3, "precision": "fp32"})  # fmt: skip
    assert direction * (nll_mean(tiny_model, batch).item() - before) > 0.02


def test_retain_term_alone_pulls_back_to_the_reference(
    tiny_tokenizer: PreTrainedTokenizerFast,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_data: EditData,
) -> None:
    """A model that starts elsewhere comes nearer to the reference on the retain set."""
    model, reference = make_tiny_model(seed=1), make_tiny_model(seed=0)
    batch = collate(encode(tiny_tokenizer, tiny_data.retain), pad_id=1)
    before = kl_to_reference(reference, model, batch).item()
    context = surgery_context(model, tiny_tokenizer, make_tiny_model, retain=tiny_data.retain)
    options = {f"{name}_weight": 0.0 for name in TERMS if name != "retain"}
    edit_model(find_card("method", "llm_surgery"), context,
               options | {"steps": 10, "lr": 3e-3, "precision": "fp32"})  # fmt: skip
    assert kl_to_reference(reference, model, batch).item() < 0.9 * before


class Untouchable(tuple[Example, ...]):
    """A set that must not be read."""

    def __iter__(self) -> Any:
        raise AssertionError("the set was read")

    __len__ = __getitem__ = __bool__ = __iter__


def surgery_context(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    **sets: Any,
) -> EditContext:
    data = EditData(**dict.fromkeys(TERMS, Untouchable()))
    data = replace(data, **sets)
    return EditContext(model, tokenizer, data, seed=0, reference=make_tiny_model)
