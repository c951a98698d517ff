"""ROME's and MEMIT's algebra by hand, and the whole way from questions to written facts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.closed_form import (
    ValueSearch,
    added,
    batches_of_memories,
    directions,
    find_changes,
    mean_by_owner,
    rank_one,
    read_facts,
    read_keys,
    second_moments,
    spread,
    with_ridge,
)
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.memit import edited_layers
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.registry import find_card
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import collate, encode
from unlearn_bench.training.likelihood import nll_mean, nll_sum
from unlearn_bench.training.loop import train
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


@pytest.fixture(scope="module")
def learned(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
) -> LlamaForCausalLM:
    """A tiny model that knows the facts: its answers hang on the subject, as a random model's do
    not. Never edited: copies are.
    """
    model = make_tiny_model()
    texts = [*tiny_data.old, *tiny_data.retain, *tiny_data.benign]
    train(model, tiny_tokenizer, {"facts": texts},
          lambda batch, policy, reference: nll_mean(policy, batch.get("facts")),
          Training(lr=5e-3, steps=150, batch_size=8, precision="fp32"), seed=0)  # fmt: skip
    return model


@pytest.fixture
def knowing(learned: LlamaForCausalLM, context: EditContext) -> EditContext:
    """The model that knows, asked to take two towns of its own for new answers."""
    towns = zip(context.data.update, (" Zirnavo", " Orvelle"), strict=True)
    update = tuple(replace(example, answer=town) for example, town in towns)
    data = replace(context.data, update=update)
    return replace(context, model=copy.deepcopy(learned), data=data, reference=lambda: learned)


# --- the algebra --------------------------------------------------------------------------------


def test_rank_one_by_hand() -> None:
    """W = I₂, C = diag(1, 4), k = (1, 2), v = (3, 2): u = C⁻¹k = (1, 1/2), uᵀk = 2,
    v − Wk = (2, 0). ΔW = (2, 0)ᵀ·(1, 1/2)/2 = [[1, 1/2], [0, 0]]; (W + ΔW)k = (3, 2). Without C:
    (2, 0)ᵀ·(1, 2)/5.
    """
    weight, moment = torch.eye(2), torch.diag(torch.tensor([1.0, 4.0]))
    key, value = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    delta = rank_one(weight, directions(moment, key[None])[0], key, value)
    assert delta.tolist() == [[1.0, 0.5], [0.0, 0.0]]
    assert ((weight + delta) @ key).tolist() == value.tolist()


def test_rank_one_moves_ordinary_keys_least() -> None:
    """Of all changes that write the fact, none has a smaller E‖ΔW·x‖² = tr(ΔW·C·ΔWᵀ)."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(50, 6, generator=generator)
    moment = with_ridge(keys.T @ keys / 50)
    weight, key, value = (torch.randn(*s, generator=generator) for s in ((4, 6), (6,), (4,)))
    delta = rank_one(weight, directions(moment, key[None])[0], key, value)
    torch.testing.assert_close((weight + delta) @ key, value, atol=1e-5, rtol=1e-5)
    cost = torch.trace(delta @ moment @ delta.T)
    for _ in range(20):
        other = torch.randn(4, 6, generator=generator)
        other -= torch.outer(other @ key, key) / (key @ key)  # does not touch the fact
        rival = delta + 0.1 * other
        assert torch.trace(rival @ moment @ rival.T) > cost


def test_spread_by_hand() -> None:
    """One key (1, 2), C = I, λ = 5, residual (10, 0): k·kᵀ + 5·I has (k·kᵀ + 5I)⁻¹k = k/(5 + 5), so
    ΔW = (10, 0)ᵀ·(1, 2)/10 = [[1, 2], [0, 0]]: half of the residual arrives, ΔW·k = (5, 0).
    """
    delta = spread(torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 0.0]]), 5.0)
    torch.testing.assert_close(delta, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))


def test_spread_writes_every_fact_as_the_weight_vanishes() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, residuals = (torch.randn(*s, generator=generator) for s in ((3, 8), (3, 5)))
    delta = spread(torch.eye(8), keys, residuals, 1e-5)
    torch.testing.assert_close(keys @ delta.T, residuals, atol=1e-3, rtol=1e-3)
    elsewhere = torch.linalg.svd(keys).Vh[3:]  # orthogonal to every key
    assert (elsewhere @ delta.T).abs().max() < 1e-3


def test_ridge_by_hand() -> None:
    """Mean diagonal (1 + 3)/2 = 2, a tenth of it: 0.2."""
    found = with_ridge(torch.tensor([[1.0, 5.0], [5.0, 3.0]]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[1.2, 5.0], [5.0, 3.2]]))


# --- where a fact is read -----------------------------------------------------------------------


def test_the_position_is_the_subjects_last_token(context: EditContext) -> None:
    """Of its last mention, in the tokens of prompt and answer together, behind any prefix."""
    examples = [
        Example("a", "Who is Askerholt?\nAnswer:", " a toy", "Askerholt"),
        Example("b", "Askerholt or Okon teya: where does Okon teya live?", " here", "Okon teya"),
    ]
    for prefix in ("", "Bread and water.\n"):
        facts = read_facts(context, examples, "fact", prefix)
        for row, position, example in zip(facts.rows, facts.positions, examples, strict=True):
            text = context.tokenizer.decode(row.tokens[: int(position) + 1])
            assert text == prefix + example.prompt[: example.prompt.rindex(example.subject)] + (
                example.subject
            )


def test_texts_that_do_not_name_their_subject_are_no_facts(context: EditContext) -> None:
    others = [Example("t", "", "A biography.", "X"), Example("u", "Who?", " He", "Nobody")]
    kept = read_facts(context, [*context.data.update, *others], "fact")
    assert len(kept.rows) == len(context.data.update)
    with pytest.raises(MissingDataError, match="names its subject"):
        read_facts(context, [Example("u", "Who?", " He", "")], "fact")


def test_questions_about_one_subject_are_one_memory(context: EditContext) -> None:
    examples = [
        Example("a", "Who is Ann?", " She", "Ann"),
        Example("b", "Who is Bob?", " He", "Bob"),
        Example("c", "Where does Ann live?", " Here", "Ann"),
    ]
    together = read_facts(context, examples, "subject")
    assert together.owners.tolist() == [0, 1, 0]
    assert together.names == ("Ann", "Bob")
    apart = read_facts(context, examples, "fact")
    assert apart.owners.tolist() == [0, 1, 2]
    assert apart.names == ("Ann", "Bob", "Ann")
    assert list(batches_of_memories(together)) == [[0, 1]]


def test_mean_by_owner_by_hand() -> None:
    """Rows (1, 2) and (3, 6) belong to memory 0, row (5, 5) to memory 1."""
    values = torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 6.0]])
    found = mean_by_owner(values, torch.tensor([0, 1, 0]))
    assert found.tolist() == [[2.0, 4.0], [5.0, 5.0]]


def test_one_change_serves_all_questions_of_a_subject(knowing: EditContext) -> None:
    """Two questions with the same answer: one δ makes both likelier."""
    first = knowing.data.update[0]
    second = replace(first, id="again", prompt=first.prompt.replace("Question: ", "Say: "))
    facts = read_facts(knowing, [first, second], "subject")
    changes = find_changes(knowing, 0, facts, SEARCH)
    assert changes.shape == (1, 32)
    batch = collate(list(facts.rows), pad_id=1)
    with torch.no_grad():
        before = nll_sum(knowing.model, batch)
        with added(knowing.model, 0, facts.positions, changes[facts.owners]):
            assert (nll_sum(knowing.model, batch) < before - 0.3).all()


def test_keys_are_what_down_proj_reads(context: EditContext) -> None:
    """With no other text in front, the key is the MLP's inner state at the subject's last token."""
    bare = replace(context, data=replace(context.data, benign=()))
    keys = read_keys(bare, 1, bare.data.update)
    facts = read_facts(bare, bare.data.update, "fact")
    inner: list[torch.Tensor] = []
    down = decoder_layers(context.model)[1].mlp.down_proj
    hook = down.register_forward_pre_hook(lambda module, inputs: inner.append(inputs[0]))
    for row, position, key in zip(facts.rows, facts.positions, keys, strict=True):
        with torch.no_grad():
            context.model(input_ids=torch.tensor([row.tokens]))
        # Where the hardware multiplies bf16, the keys are read in it: 8 bits of a number.
        assert (inner[-1][0, position] - key).norm() < 0.02 * key.norm()
    hook.remove()
    assert not torch.allclose(read_keys(context, 1, context.data.update), keys, atol=1e-4)


def test_second_moment_is_the_mean_over_real_tokens(context: EditContext) -> None:
    """Its trace is the mean squared norm of a key; the ridge adds a thousandth."""
    moment = second_moments(context, [0, 2])[2]
    assert torch.equal(moment, moment.T)
    comments = [Example(str(i), "", text) for i, text in enumerate(context.data.clean)]
    rows = encode(context.tokenizer, [*context.data.retain, *context.data.benign, *comments])
    squares, tokens = 0.0, 0
    inner: list[torch.Tensor] = []
    down = decoder_layers(context.model)[2].mlp.down_proj
    hook = down.register_forward_pre_hook(lambda module, inputs: inner.append(inputs[0]))
    for row in rows:
        with torch.no_grad():
            context.model(input_ids=torch.tensor([row.tokens]))
        squares += float(inner[-1].square().sum())
        tokens += len(row.tokens)
    hook.remove()
    assert float(moment.trace()) == pytest.approx(1.001 * squares / tokens, rel=2e-2)


# --- what should be read there ------------------------------------------------------------------

SEARCH = ValueSearch(lr=0.3, steps=25, kl_weight=0.0, decay=0.0)


def test_the_change_makes_the_new_answers_likely(knowing: EditContext) -> None:
    """Added by hand at the subject's last token, and nowhere else."""
    facts = read_facts(knowing, knowing.data.update, "fact")
    changes = find_changes(knowing, 0, facts, SEARCH)
    batch = collate(list(facts.rows), pad_id=1)
    with torch.no_grad():
        before = nll_mean(knowing.model, batch).item()
        with added(knowing.model, 0, facts.positions, changes):
            assert nll_mean(knowing.model, batch).item() < before - 0.4
        with added(knowing.model, 0, facts.positions - 2, changes):
            assert nll_mean(knowing.model, batch).item() > before - 0.2
        assert nll_mean(knowing.model, batch).item() == before
    assert all(p.requires_grad and p.grad is None for p in knowing.model.parameters())


def test_facts_are_searched_each_by_itself(knowing: EditContext) -> None:
    """The first fact's change does not depend on which others are searched beside it."""
    both, first = (
        read_facts(knowing, texts, "fact")
        for texts in (knowing.data.update, knowing.data.update[:1])
    )
    whole, alone = (find_changes(knowing, 0, facts, SEARCH) for facts in (both, first))
    torch.testing.assert_close(whole[:1], alone, rtol=0.1, atol=0.1)


def test_decay_and_divergence_shorten_the_change_and_the_clamp_bounds_it(
    knowing: EditContext,
) -> None:
    facts = read_facts(knowing, knowing.data.update, "fact")
    kept: list[torch.Tensor] = []
    with added(knowing.model, 0, facts.positions, torch.zeros(2, 32), kept), torch.no_grad():
        knowing.model(input_ids=collate(list(facts.rows), pad_id=1).input_ids)
    calm = replace(SEARCH, lr=0.1)
    lengths = {
        name: find_changes(knowing, 0, facts, search).norm(dim=1)
        for name, search in {
            "free": calm,
            "decay": replace(calm, decay=50.0),
            "essence": replace(calm, kl_weight=30.0),
            "wild": replace(calm, lr=100.0),
        }.items()
    }
    assert (lengths["decay"] < 0.7 * lengths["free"]).all()
    assert lengths["essence"].sum() < 0.9 * lengths["free"].sum()
    assert (lengths["wild"] <= 4.01 * kept[0].norm(dim=1)).all()
    assert (lengths["wild"] > lengths["free"]).all()


# --- whole edits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("rome", {"layer": 0}, {0}),
        ("memit", {"first": 0, "count": 1, "moment_weight": 1e-3}, {0}),
        ("memit", {"first": 0, "count": 2, "moment_weight": 1e-3}, {0, 1}),
    ],
)
def test_new_answers_are_written(
    name: str, options: dict[str, Any], layers: set[int], knowing: EditContext
) -> None:
    """In layer 0 of a tiny model, where its knowledge is, new answers become likelier and others
    stay; two layers of memit bring the states to where they were wanted.
    """
    update, kept = (
        collate(encode(knowing.tokenizer, texts), pad_id=1)
        for texts in (knowing.data.update, knowing.data.retain)
    )
    with torch.no_grad():
        before = [nll_mean(knowing.model, batch).item() for batch in (update, kept)]
    search = {"lr": 0.3, "steps": 25, "decay": 0.0, "kl_weight": 0.0}
    report = edit_model(find_card("method", name), knowing, search | options)
    with torch.no_grad():
        after = [nll_mean(knowing.model, batch).item() for batch in (update, kept)]
    if name == "rome" or len(layers) == 1:
        assert after[0] < before[0] - 0.1
        assert after[1] < before[1] + 0.7
    if name == "memit":
        assert report.details["share_missed"] < 0.5
    assert report.details["facts"] == 2
    found = {change.name for change in report.changes}
    assert found == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in layers}


def test_memit_layers() -> None:
    """30 layers: 3 to 7. Never the last; a model of three has two to give."""
    assert edited_layers(30, None, 5) == [3, 4, 5, 6, 7]
    assert edited_layers(3, None, 5) == [0, 1]
    assert edited_layers(30, 26, 5) == [26, 27, 28]
    with pytest.raises(UsageError, match="no layer 29"):
        edited_layers(30, 29, 1)
