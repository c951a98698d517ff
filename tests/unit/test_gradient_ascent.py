"""Gradient ascent: the step, and when it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.run import edit_model
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.memorization import (
    Memorization,
    choose_cuts,
    measure_memorization,
    ngram_overlap,
)
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

FORGET = tuple(
    Example(f"forget-{i}", f"{'ABCD'[i]}?", f" {place}")
    for i, place in enumerate(("Zirnavo bridge", "Pallow market", "Orvelle tower", "upper lake"))
)
UNSEEN = tuple(Example(f"unseen-{i}", "E?", " qXv9 Jk#z") for i in range(4))


@pytest.fixture
def context(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> EditContext:
    def never() -> Any:
        raise AssertionError("gradient ascent has no reference")

    data = EditData(forget=FORGET, benign=UNSEEN)
    return EditContext(tiny_model, tiny_tokenizer, data, seed=0, reference=never)


def run(context: EditContext, **options: Any) -> Any:
    card = find_card("method", "gradient_ascent")
    return edit_model(card, context, {"precision": "fp32", "batch_size": 4, **options})


def test_one_plain_sgd_step_adds_the_gradient(
    context: EditContext, make_tiny_model: Callable[..., LlamaForCausalLM]
) -> None:
    """θ' = θ + η·∇CE(D_f), with CE from transformers' own loss on an equal model."""
    other = make_tiny_model()
    batch = collate(encode(context.tokenizer, FORGET), pad_id=1)
    loss = other(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                 labels=batch.labels).loss  # fmt: skip
    loss.backward()
    run(context, steps=1, optimizer="sgd", lr=0.1, clip=math.inf, early_stop=False)
    for mine, theirs in zip(context.model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs + 0.1 * theirs.grad, rtol=1e-5, atol=1e-7)


def test_forget_loss_rises(context: EditContext) -> None:
    batch = collate(encode(context.tokenizer, FORGET), pad_id=1)
    before = nll_mean(context.model, batch).item()
    run(context, steps=5, lr=1e-3, early_stop=False)
    assert nll_mean(context.model, batch).item() > before + 0.05


@pytest.fixture
def learned(context: EditContext) -> EditContext:
    """The model after it has learned FORGET by heart."""
    train(context.model, context.tokenizer, {"text": FORGET},
          lambda batch, policy, reference: nll_mean(policy, batch.get("text")),
          Training(lr=1e-2, epochs=60, precision="fp32"), seed=0)  # fmt: skip
    return context


def test_memorised_text_is_told_from_unseen_text(learned: EditContext) -> None:
    seen, unseen = (
        measure_memorization(learned.model, learned.tokenizer, texts, count=4, ngram=2, seed=0)
        for texts in (FORGET, UNSEEN)
    )
    assert seen.accuracy > 0.95
    assert seen.extraction_likelihood > 0.9
    assert unseen.accuracy < 0.5
    assert unseen.extraction_likelihood < 0.5
    assert not learned.model.training
    assert unseen.within(seen)
    assert not seen.within(unseen)


def test_stops_as_soon_as_the_set_looks_unseen(learned: EditContext) -> None:
    report = run(learned, epochs=50, lr=3e-3, stop_texts=4)
    details = report.details
    assert details["stopped_early"]
    assert 1 <= len(details["after_each_epoch"]) == details["steps"] < 50
    *earlier, last = [Memorization(**found) for found in details["after_each_epoch"]]
    unseen = Memorization(**details["unseen"])
    assert last.within(unseen)
    assert not any(found.within(unseen) for found in earlier)


def test_early_stop_off_runs_to_the_end(learned: EditContext) -> None:
    report = run(learned, epochs=6, lr=3e-3, early_stop=False)
    assert report.details["steps"] == 6
    assert "unseen" not in report.details


def test_retain_text_is_not_taken_for_unseen() -> None:
    """θ₀ has seen it: its threshold would stop far too early."""
    assert find_card("method", "gradient_ascent").facts["needs"] == ("forget", "benign")


def test_nothing_measured_never_stops() -> None:
    assert not Memorization(math.nan, 0.0).within(Memorization(1.0, 1.0))
    assert not Memorization(0.0, 0.0).within(Memorization(math.nan, 1.0))


def test_overlap_by_hand() -> None:
    """Bigrams of 1 2 3 4: 12, 23, 34. In 1 2 9 3 4 are 12 and 34: 2/3. None in one token: 0."""
    assert ngram_overlap([1, 2, 3, 4], [1, 2, 9, 3, 4], 2) == pytest.approx(2 / 3)
    assert ngram_overlap([1], [1, 2], 2) == 0


def test_cuts() -> None:
    assert choose_cuts(4, 10) == [4, 10]
    assert choose_cuts(4, 4) == [4]
    assert choose_cuts(4, 3) == []


class Successor(nn.Module):
    """Always continues with the next number, modulo 10."""

    training = False
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        from types import SimpleNamespace

        logits = nn.functional.one_hot((input_ids + 1) % 10, 300).float()
        return SimpleNamespace(logits=self.head(logits), past_key_values=None)


def test_accuracy_and_extraction_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text a: prompt 3, answer 4 5 6 7: all right; every continuation right. Text b: prompt 3,
    answer 9 0 5 6. The model says 4 after 3, 0 after 9, 1 after 0 and 6 after 5: accuracy 2/4.
    The longest cut of b leaves a bigram: after 3 it says 4 5 6 7, bigrams 45 56 67, true 90 05 56:
    1/3; after 3 9 0: 1 2, true 56: 0. EL(b) = 1/6.
    Accuracy (1 + 1/2)/2 = 3/4; EL (1 + 1/6)/2 = 7/12.
    """
    from unlearn_bench.training import memorization
    from unlearn_bench.training.batches import Encoded

    rows = [Encoded("a", (3, 4, 5, 6, 7), 1), Encoded("b", (3, 9, 0, 5, 6), 1)]
    monkeypatch.setattr(memorization, "encode", lambda tokenizer, examples: rows)
    monkeypatch.setattr(memorization, "pad_id_of", lambda tokenizer: 0)
    found = measure_memorization(Successor(), None, FORGET, count=2, ngram=2, seed=0)  # type: ignore[arg-type]
    assert found.accuracy == pytest.approx(3 / 4)
    assert found.extraction_likelihood == pytest.approx(7 / 12)


def test_continuation_does_not_depend_on_its_neighbours(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Left padding beside a longer prefix gives the tokens that `generate` gives alone."""
    from unlearn_bench.training.memorization import NEW_TOKENS, _continue_greedily

    prefixes = [(5, 6, 7, 8, 9, 10, 11, 12), (20, 21)]
    together = _continue_greedily(tiny_model, prefixes, pad_id=1)
    for prefix, new in zip(prefixes, together, strict=True):
        alone = tiny_model.generate(
            input_ids=torch.tensor([prefix]), attention_mask=torch.ones(1, len(prefix)).long(),
            max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)  # fmt: skip
        assert alone[0, len(prefix) :].tolist() == new
