"""Tree scoring must give what reading every request on its own gives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unlearn_bench.engine.likelihood import LikelihoodScorer, batch_rows
from unlearn_bench.engine.token_tree import Request, Row, plan_groups


def questions(seed: int = 0) -> list[Request]:
    """A few-shot task in small: one long prompt, questions, options that share beginnings."""
    draw = random.Random(seed)
    prompt = tuple(draw.randrange(2, 300) for _ in range(60))
    requests = []
    for _ in range(20):
        question = (*prompt, *(draw.randrange(2, 300) for _ in range(draw.randrange(1, 12))))
        first = draw.randrange(2, 300)
        for _ in range(4):
            option = [first, *(draw.randrange(2, 300) for _ in range(draw.randrange(0, 6)))]
            requests.append(Request(question, tuple(option)))
    return requests


@pytest.mark.parametrize("biased", [False, True])
def test_tree_equals_plain_and_both_equal_the_models_logits(
    make_tiny_model: Callable[..., Any], biased: bool
) -> None:
    model = make_tiny_model(attention_bias=biased, mlp_bias=biased)
    requests = questions()
    tree = LikelihoodScorer(model, tree=True).score(requests)
    plain = LikelihoodScorer(model, tree=False).score(requests)
    for request, a, b in zip(requests, tree, plain, strict=True):
        ids = torch.tensor([request.context + request.continuation])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(request.context) - 1 : -1].double()
        targets = torch.tensor(request.continuation)
        expected = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1).numpy()
        assert np.abs(a.token_log_probs - expected).max() < 1e-4
        assert np.abs(b.token_log_probs - expected).max() < 1e-4
        assert a.token_is_greedy.tolist() == (logits.argmax(-1) == targets).tolist()
        assert a[0] == pytest.approx(expected.sum(), abs=1e-4)


def test_the_shared_prompt_really_is_a_trunk() -> None:
    groups = plan_groups(questions())
    assert max(len(group.trunk) for group in groups) >= 50


def test_a_mask_that_lets_branches_see_each_other_is_noticed(
    make_tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-check guards against models that ignore the mask: here the mask itself is broken."""
    model = make_tiny_model()
    assert LikelihoodScorer(model).tree
    monkeypatch.setattr(
        Row, "ancestors", lambda row: np.tril(np.ones((len(row.tokens),) * 2, dtype=bool))
    )
    assert not LikelihoodScorer(model).tree


def test_equal_requests_are_scored_once(make_tiny_model: Callable[..., Any]) -> None:
    model = make_tiny_model()
    seen: list[int] = []
    request = Request((3, 4, 5), (6, 7))
    scores = LikelihoodScorer(model, tree=True).score(
        [request] * 5, lambda done, total: seen.append(total)
    )
    assert len({score[0] for score in scores}) == 1
    assert seen[-1] == len(request.fed)


def test_a_continuation_of_one_token_and_a_context_of_one(
    make_tiny_model: Callable[..., Any],
) -> None:
    model = make_tiny_model()
    (score,) = LikelihoodScorer(model, tree=True).score([Request((5,), (9,))])
    with torch.inference_mode():
        expected = model(torch.tensor([[5]])).logits[0, -1].log_softmax(-1)[9]
    assert score[0] == pytest.approx(float(expected), abs=1e-5)
    assert len(score.token_log_probs) == 1


def test_a_diverged_model_gives_nan_not_a_number(make_tiny_model: Callable[..., Any]) -> None:
    model = make_tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    (score,) = LikelihoodScorer(model, tree=True).score([Request((5, 6), (9,))])
    assert np.isnan(score[0])
    assert not score[1]


def test_batches_stay_within_the_budget_of_padded_nodes() -> None:
    rows = [Row(tokens=[0] * n) for n in (5, 60, 7, 33, 6, 60, 1)]
    batches = list(batch_rows(rows, budget=64))
    assert sorted(len(r.tokens) for b in batches for r in b) == [1, 5, 6, 7, 33, 60, 60]
    assert all(max(len(r.tokens) for r in b) * len(b) <= 64 for b in batches)
