"""Applying a method: dispatch, needs, targets and the account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.errors import (
    DivergedError,
    MissingDataError,
    UnlearnBenchError,
    UsageError,
)
from unlearn_bench.methods.contract import NEEDS, EditContext, EditData
from unlearn_bench.methods.needs import SETS, SUPPLY
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.load import load_model
from unlearn_bench.registry import Card, find_card

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HEAD = """
import torch
from unlearn_bench.registry import method
from unlearn_bench.training.likelihood import nll_mean
"""
EDIT = '''
@method("mine", kind="edit", needs={needs}, targets=("*.mlp.down_proj.weight",), zero={{}})
def mine(context):
    """Mine."""
    with torch.no_grad():
        {body}
    return {{"said": 1}}
'''
LOSS = '''
@method("mine", kind="loss", needs=("toxic", "clean", "reference"), targets=("*",), zero={"steps": 0})
def mine(batch, policy, reference, *, weight: float = 1.0):
    """Mine."""
    assert reference is not policy
    toxic = batch.get("toxic")
    assert toxic.ids[0].startswith("toxic-")
    assert (toxic.labels[:, 0] >= 0).all()  # no prompt: everything is trained on
    with torch.no_grad():
        nll_mean(reference, toxic)
    return weight * nll_mean(policy, batch.get("clean")) - nll_mean(policy, toxic)
'''  # noqa: E501


@pytest.fixture
def context(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    make_tiny_model: Callable[..., LlamaForCausalLM],
) -> EditContext:
    return EditContext(tiny_model, tiny_tokenizer, tiny_data, seed=0, reference=make_tiny_model)


def card_of(folder: Path, text: str) -> Card:
    file = folder / "mine.py"
    file.write_text(HEAD + text)
    return find_card("method", "mine", (file,))


def edit_of(folder: Path, body: str, needs: tuple[str, ...] = ()) -> Card:
    return card_of(folder, EDIT.format(body=body, needs=needs))


def test_loss_is_trained_with_its_sets_and_a_counted_reference(
    tmp_path: Path, context: EditContext
) -> None:
    report = edit_model(card_of(tmp_path, LOSS), context, {"steps": 3, "batch_size": 2})
    assert report.method == "mine"
    assert (report.forward_passes, report.backward_passes) == (9, 6)
    assert report.details["steps"] == 3
    assert report.options["weight"] == 1.0
    assert report.options["steps"] == 3
    assert report.parameters_touched > 0
    assert report.seconds > 0


def test_edit_reports_what_it_says_and_what_it_did(tmp_path: Path, context: EditContext) -> None:
    body = "context.model.model.layers[1].mlp.down_proj.weight[0, :3] += 2.0"
    report = edit_model(edit_of(tmp_path, body), context)
    (change,) = report.changes
    assert (change.name, change.changed) == ("model.layers.1.mlp.down_proj.weight", 3)
    assert change.norm == pytest.approx(12**0.5, rel=1e-6)
    assert report.details == {"said": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("context.model.model.norm.weight += 1", "model.norm.weight, which is not among"),
        ("context.model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan", "not finite"),
    ],
)
def test_stray_or_broken_weights_are_refused(
    tmp_path: Path, context: EditContext, body: str, words: str
) -> None:
    with pytest.raises(UnlearnBenchError, match=words):
        edit_model(edit_of(tmp_path, body), context)


@pytest.mark.parametrize(
    ("options", "what", "step"),
    [
        ({"lr": 1e15, "epochs": 3}, "became nan", 2),  # seen in the second step's loss or gradient
        ({"lr": 1e38, "steps": 1, "warmup": 0.0}, "are not finite", 1),  # seen in the weights alone
    ],
)
def test_divergence_ends_an_edit_with_its_step_and_the_last_good_loss(
    context: EditContext, options: dict[str, Any], what: str, step: int
) -> None:
    fixed = {"batch_size": 2, "precision": "fp32", "warmup": 0.0}
    with pytest.raises(DivergedError, match=what) as caught:
        edit_model(find_card("method", "grad_diff"), context, fixed | options)
    assert caught.value.step == step
    (good,) = caught.value.last_losses.values()
    assert 0 < abs(good) < 10
    assert f"step {step}; last good losses {good:.4g} (step 1)" in str(caught.value)


def test_needs_are_checked_before_anything_runs(tmp_path: Path, context: EditContext) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        edit_model(edit_of(tmp_path, "raise AssertionError", ("froget",)), context)
    with pytest.raises(UsageError, match="without the forget set"):
        edit_model(edit_of(tmp_path, "raise AssertionError", ("exact",)), context)


def expensive(*args: Any) -> Any:
    raise AssertionError("expensive work was started")


@pytest.mark.parametrize(
    ("name", "absent", "said"),
    [
        ("grad_diff", ("retain",), ("the set 'retain' (texts that must stay)", "tasks/fur")),
        ("npo", ("forget",), ("the set 'forget' (texts that must go)", "EditData(forget=...)")),
        ("dinm", ("pairs",), ("a safe and an unsafe response", "ext_sub/toxic_test.json")),
        ("dinm", ("benign",), ("the set 'benign'", "mini/benign.jsonl")),
        (
            "model_surgery",
            ("toxic", "clean"),
            (
                "the set 'toxic' (toxic comments) and the set 'clean' (clean comments), and they",
                "toxic_comments/jigsaw_davidson_balanced_20k.csv.gz",
            ),
        ),
    ],
)
def test_an_empty_set_is_named_before_anything_is_built(
    context: EditContext, name: str, absent: tuple[str, ...], said: tuple[str, ...]
) -> None:
    context.data = replace(context.data, **dict.fromkeys(absent, ()))
    context.reference, context.model.forward = expensive, expensive
    with pytest.raises(MissingDataError) as caught:
        edit_model(find_card("method", name), context)
    assert str(caught.value).startswith(f"{name} needs the set '{absent[0]}'")
    for words in (*said, "empty", "next:"):
        assert words in str(caught.value)
    assert str(caught.value).count("toxic_comments/") <= 1  # one advice for both kinds


def test_every_set_has_its_advice() -> None:
    assert set(SUPPLY) == set(SETS)
    assert set(SETS) <= set(NEEDS)


def test_a_set_whose_term_is_off_may_be_empty(context: EditContext) -> None:
    """Without its retain term grad_diff is gradient ascent, and never reads a retain set; with it
    again, the set is missing. A term that another option switches off is left to the loop, which
    refuses an empty set at its first read.
    """
    full, card = context.data, find_card("method", "grad_diff")
    context.data = replace(full, retain=())
    assert edit_model(card, context, {"steps": 1, "alpha": 0}).backward_passes == 1
    with pytest.raises(MissingDataError, match="grad_diff needs the set 'retain'"):
        edit_model(card, context, {"steps": 1})
    context.data = replace(full, forget=())
    with pytest.raises(MissingDataError, match="the set 'forget', and it is empty"):
        edit_model(card, context, {"steps": 1, "alpha": 0})


def test_an_optional_set_may_be_empty_and_must_be_needed(
    tmp_path: Path, context: EditContext
) -> None:
    context.data = replace(context.data, old=())
    needy = EDIT.replace("{needs}", "('old',), optional=('old',)").format(body="pass")
    assert edit_model(card_of(tmp_path, needy), context).details["said"] == 1
    (tmp_path / "stray").mkdir()
    stray = EDIT.replace("{needs}", "('old',), optional=('update',)").format(body="pass")
    with pytest.raises(UsageError, match="calls 'update' optional"):
        edit_model(card_of(tmp_path / "stray", stray), context)


def test_reference_is_built_once(tmp_path: Path, context: EditContext) -> None:
    built: list[Any] = []
    make = context.reference

    def build() -> Any:
        built.append(make())
        return built[-1]

    context.reference = build
    edit_model(edit_of(tmp_path, "assert context.reference() is context.reference()"), context)
    assert len(built) == 1


def test_exact_unlearning_takes_over_every_tensor(
    context: EditContext, make_tiny_model: Callable[..., LlamaForCausalLM], tmp_path: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    other = make_tiny_model(seed=9)
    other.save_pretrained(tmp_path / "exact")
    tiny_tokenizer.save_pretrained(tmp_path / "exact")
    card = find_card("method", "exact_unlearning")
    with pytest.raises(UsageError, match="without the forget set"):
        edit_model(card, context)
    context.exact = lambda: tmp_path / "exact"
    edit_model(card, context)
    loaded, _ = load_model(tmp_path / "exact")
    for name, weight in context.model.named_parameters():
        assert torch.equal(weight, loaded.get_parameter(name)), name
    assert context.model.lm_head.weight is context.model.model.embed_tokens.weight


def test_fine_tuning_reads_retain_and_update_and_nothing_else(context: EditContext) -> None:
    """Every text once per epoch: 6 texts in batches of 4 are 2 steps. An empty update set is fine,
    an empty retain set is not.
    """
    card = find_card("method", "fine_tuning")
    full = context.data
    context.data = EditData(retain=full.retain, update=full.update)
    options = {"epochs": 1, "batch_size": 4}
    assert edit_model(card, context, options).details["steps"] == 2
    context.data = EditData(retain=full.retain)
    assert edit_model(card, context, options).details["steps"] == 1
    context.data = EditData()
    with pytest.raises(MissingDataError, match="needs the set 'retain'"):
        edit_model(card, context, options)
