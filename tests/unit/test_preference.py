"""idk_dpo, altpo and pdu through the real loop: which answers meet, and what is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.altpo import write_alternatives
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.preference import answers_by_id, questions
from unlearn_bench.methods.run import edit_model
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import IGNORE, collate, encode
from unlearn_bench.training.likelihood import nll_sum
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture
def context(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> EditContext:
    return EditContext(tiny_model, tiny_tokenizer, tiny_data, seed=3, reference=make_tiny_model)


def run(name: str, context: EditContext, **options: Any) -> Any:
    return edit_model(find_card("method", name), context, {"precision": "fp32", **options})


def answer_text(context: EditContext, tokens: torch.Tensor, labels: torch.Tensor) -> str:
    return context.tokenizer.decode(tokens[labels != IGNORE], skip_special_tokens=True)


def test_every_row_meets_an_answer_to_its_own_question(context: EditContext) -> None:
    """Rows come in any order; each gets its own answers in turn, behind its own prompt."""
    asked = questions(context.data.forget, "idk_dpo")
    answers = {
        e.id: [Example("x", e.prompt, f" first {e.id}"), Example("y", e.prompt, f" second {e.id}")]
        for e in asked
    }
    choose = answers_by_id(context, Training(), answers)
    for turn in ("first", "second", "first"):
        batch = collate(encode(context.tokenizer, list(reversed(asked))), pad_id=1)
        chosen = choose(batch)
        for row, example in enumerate(reversed(asked)):
            found = answer_text(context, chosen.input_ids[row], chosen.labels[row])
            assert found.strip() == f"{turn} {example.id}"
            prompt = chosen.input_ids[row][chosen.labels[row] == IGNORE]
            text = context.tokenizer.decode(prompt, skip_special_tokens=True)
            assert text.startswith(example.prompt)


def test_texts_without_a_prompt_are_left_out(context: EditContext) -> None:
    assert len(questions(context.data.forget, "altpo")) == len(context.data.forget) - 1
    with pytest.raises(MissingDataError, match=r"idk_dpo.*prompt"):
        questions([Example("a", "", "A biography.")], "idk_dpo")


def log_odds(context: EditContext, refusal: str) -> float:
    """log p(refusal) − log p(forget answer), mean over the forget questions."""
    asked = questions(context.data.forget, "")
    refusals = [Example(e.id, e.prompt, f" {refusal}") for e in asked]
    with torch.no_grad():
        forget, refused = (
            nll_sum(context.model, collate(encode(context.tokenizer, texts), pad_id=1))
            for texts in (asked, refusals)
        )
    return float((forget - refused).mean())


def test_idk_dpo_comes_to_prefer_refusals(context: EditContext) -> None:
    before = log_odds(context, context.data.refusals[0])
    run("idk_dpo", context, steps=6, lr=2e-3, batch_size=4)
    assert log_odds(context, context.data.refusals[0]) > before + 1


def test_altpo_writes_other_answers_and_prefers_them(context: EditContext) -> None:
    asked = questions(context.data.forget, "altpo")
    written = write_alternatives(context, asked, 2)
    assert written.keys() == {example.id for example in asked}
    for example in asked:
        own = encode(context.tokenizer, [example])[0]
        assert len(written[example.id]) == 2
        for alternative in written[example.id]:
            assert alternative.prompt == example.prompt
            found = encode(context.tokenizer, [alternative])[0]
            assert alternative.answer.strip()
            assert found.tokens[: own.answer_start] == own.tokens[: own.answer_start]
    details = run("altpo", context, steps=2, lr=1e-3).details
    assert details["alternatives"] == 2
    assert details["first_alternatives"].keys() == {example.id for example in asked[:4]}


def test_altpo_never_begins_with_the_remembered_token(
    context: EditContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that puts all its mass on the remembered first token writes something else."""
    asked = questions(context.data.forget, "altpo")[:1]
    row = encode(context.tokenizer, asked)[0]
    remembered = row.tokens[row.answer_start]
    seen: list[int] = []
    generate = type(context.model).generate

    def watched(model: Any, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        found = generate(model, ids, **kwargs)
        seen.extend(found[:, ids.shape[1]].tolist())
        return found

    head = context.model.get_output_embeddings()
    hook = head.register_forward_hook(
        lambda module, inputs, output: output.index_fill(-1, torch.tensor([remembered]), 50.0)
    )
    monkeypatch.setattr(type(context.model), "generate", watched)
    write_alternatives(context, asked, 3)
    hook.remove()
    assert len(seen) == 3
    assert remembered not in seen


def test_altpo_is_seeded_and_leaves_the_random_state_alone(context: EditContext) -> None:
    asked = questions(context.data.forget, "altpo")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = write_alternatives(context, asked, 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert write_alternatives(context, asked, 1) == first
    assert write_alternatives(replace(context, seed=4), asked, 1) != first


@pytest.mark.parametrize("name", ["idk_dpo", "altpo"])
def test_alpha_zero_reads_no_retain_set(name: str, context: EditContext) -> None:
    """Another retain set gives the same weights to the bit."""
    other = replace(context, model=context.reference(), data=replace(
        context.data, retain=(Example("z", "Something else?", " Entirely."),)))  # fmt: skip
    run(name, context, steps=2, alpha=0.0, lr=1e-3)
    run(name, other, steps=2, alpha=0.0, lr=1e-3)
    for mine, theirs in zip(context.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# --- pdu ----------------------------------------------------------------------------------------


def test_pdu_price_rises_while_the_constraint_is_broken(context: EditContext) -> None:
    """A random model's NLL is near ln 300 = 5.7 nats, ε = 0.3: after three steps of dual_step 2
    the price is 1 + 2·Σ(NLL − 0.3), between 1 + 6·4 and 1 + 6·7.
    """
    details = run("pdu", context, steps=3, lr=1e-5, alpha=1.0, dual_step=2.0).details
    assert 25 < details["last_price"] < 43
    assert details["highest_price"] == details["last_price"]


def test_pdu_price_falls_to_zero_and_no_further(context: EditContext) -> None:
    """With ε = 100 the constraint always holds: 1 − 2·94 < 0 after one step."""
    details = run("pdu", context, steps=3, lr=1e-5, epsilon=100.0, alpha=1.0, dual_step=2.0).details
    assert details["last_price"] == 0
    assert details["highest_price"] == 1


def test_pdu_updates_once_per_step_however_it_accumulates(context: EditContext) -> None:
    """Two halves of a step move the price as the whole step does: by dual_step·mean excess."""
    once = run("pdu", context, steps=2, lr=0.0, alpha=1.0, dual_step=1.0, batch_size=1).details[
        "last_price"
    ]
    other = replace(context, model=context.reference())
    twice = run("pdu", other, steps=2, lr=0.0, alpha=1.0, dual_step=1.0, batch_size=1, accumulate=2)
    assert abs(twice.details["last_price"] - once) < 4  # four texts instead of two, of like loss
    assert 8 < once < 15


def test_pdu_flattens_the_forget_logits(context: EditContext) -> None:
    log = run("pdu", context, steps=8, lr=3e-3, alpha=0.0, dual_step=0.0).details
    assert log["last_loss"] < log["first_loss"]
    assert log["last_price"] == 0
