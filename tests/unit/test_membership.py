"""Membership attacks on texts whose likelihoods are known, and the area that sums them up."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.tasks._yaml_loader import _import_fun_from_str

from tests.unit.test_aggregate import reduced
from unlearn_bench.compare.columns import align
from unlearn_bench.compare.intervals import interval
from unlearn_bench.compare.paired import compare
from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.fur import load_fur
from unlearn_bench.engine.likelihood import Likelihood, vocabulary_moments
from unlearn_bench.protocols.documents import load_membership
from unlearn_bench.schema import ItemScore


def attack(name: str) -> Any:
    return _import_fun_from_str(f"{tasks_folder() / 'membership' / 'membership'}.{name}")


def test_the_four_scores_by_hand() -> None:
    """Ten tokens, so the lowest fifth is two: −8 and −6, mean −7. All others −1: mean −2.2. The
    vocabulary's mean is −2 and its deviation 2 throughout: (−8 + 2)/2 = −3, (−6 + 2)/2 = −2.
    zlib is of the text that the tokens are of, without the question before it.
    """
    logs = np.array([-1.0, -8.0, -1.0, -1.0, -1.0, -6.0, -1.0, -1.0, -1.0, -1.0])
    result = Likelihood(logs, logs > -2, np.full((10, 2), (-2.0, 2.0)))
    scores = attack("score_text")({"prompt": "Question", "text": " and answer"}, [result])
    size = len(zlib.compress(b" and answer"))
    assert scores == {
        "loss": pytest.approx(-2.2),
        "zlib": pytest.approx(-2.2 / size),
        "min_k": pytest.approx(-7.0),
        "min_k_plus_plus": pytest.approx(-2.5),
    }


def test_a_text_of_three_tokens_has_a_lowest_token() -> None:
    """A fifth of 3 is no whole token; elsewhere that gave a mean over nothing."""
    assert attack("lowest_mean")(np.array([-1.0, -5.0, -2.0])) == -5.0


def test_a_certain_model_and_a_broken_one() -> None:
    moments = np.array([[0.0, 0.0], [-1.0, 0.5]])
    assert attack("normalised")(np.array([0.0, -2.0]), moments).tolist() == [0.0, -2.0]
    assert math.isnan(attack("lowest_mean")(np.array([-1.0, math.nan])))


def test_moments_of_the_vocabulary() -> None:
    """p = ½, ¼, ¼: mean of ln p is −(½ ln 2 + ½ ln 4) = −1.5 ln 2; of its square
    (½ + 4·½) ln² 2 = 2.5 ln² 2; the variance (2.5 − 2.25) ln² 2, its root ½ ln 2.
    A uniform vocabulary has no spread.
    """
    logs = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).log()
    moments = vocabulary_moments(logs)
    assert moments[0].tolist() == pytest.approx([-1.5 * math.log(2), 0.5 * math.log(2)])
    assert moments[1].tolist() == pytest.approx([-math.log(3), 0.0], abs=1e-3)


def test_area_by_hand() -> None:
    """Members 3 and 1, others 2 and 1: 3 beats both, 1 loses to 2 and ties with 1: 2.5 of 4.
    Shares won by members: 1 and ¼ (variance 9/32); lost by others: ½ and ¾ (variance 1/32). So the
    standard error is √(9/64 + 1/64) = √10/8.
    """
    score = reduced("auc", (3.0, "member"), (1.0, "member"), (2.0, "nonmember"), (1.0, "nonmember"))
    assert score.value == 0.625
    assert score.stderr == pytest.approx(math.sqrt(10) / 8)


@pytest.mark.parametrize(("shift", "area"), [(5.0, 1.0), (-5.0, 0.0)])
def test_perfect_memory_and_perfect_avoidance(shift: float, area: float) -> None:
    values = [(value + shift, "member") for value in (0.1, 0.2)]
    others = [(value, "nonmember") for value in (0.1, 0.2, 0.3)]
    assert reduced("auc", *values, *others).value == area


def test_one_kind_alone_is_missing_and_not_a_coin() -> None:
    assert math.isnan(reduced("auc", (1.0, "member"), (2.0, "member")).value)


def rows(members: Any, others: Any) -> list[ItemScore]:
    kinds = [("member", value) for value in members] + [("nonmember", value) for value in others]
    return [
        ItemScore("membership", "loss_auc", str(index), kind, float(value), 1.0)
        for index, (kind, value) in enumerate(kinds)
    ]


def test_resampled_areas_have_the_standard_error_of_delong() -> None:
    generator = np.random.default_rng(0)
    members, others = generator.normal(0.5, 1, 60), generator.normal(0, 1, 50)
    own = rows(members, others)
    error = reduced(
        "auc", *((v, "member") for v in members), *((v, "nonmember") for v in others)
    ).stderr
    found = interval(align("auc", [own], ["one"]))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)


def test_two_models_areas_are_compared_in_pairs() -> None:
    generator = np.random.default_rng(1)
    members, others = generator.normal(1, 1, 40), generator.normal(0, 1, 40)
    known, same = rows(members, others), rows(members, others)
    gone = rows(generator.normal(0, 1, 40), others)
    assert compare(align("auc", [known, same], ["a", "b"]), 1).p == 1.0
    found = compare(align("auc", [known, gone], ["a", "b"]), 1, resamples=2000)
    assert found.difference > 0.15
    assert found.p < 0.01


def test_every_forget_and_holdout_text_is_asked_as_it_was_trained() -> None:
    documents = load_membership(limits={})["test"]
    trained = {text.id: text for text in load_fur().target_training()}
    members = [row for row in documents if row["membership"] == "member"]
    assert len(members) == 96
    for row in members:
        assert (row["prompt"], row["text"]) == (
            trained[row["id"]].prompt,
            trained[row["id"]].answer,
        )
    others = {row["id"] for row in documents if row["membership"] == "nonmember"}
    assert len(others) == 48
    assert not others & set(trained)
    some = load_membership(limits={"membership": 6})["test"]
    assert len({row["subject"] for row in some}) == 6
    assert {row["membership"] for row in some} == {"member", "nonmember"}
