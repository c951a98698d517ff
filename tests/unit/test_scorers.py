"""Scorers: right values, each text once, and a failure is missing, never zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import find_card, list_cards, load_function
from unlearn_bench.scorers.contract import score_once
from unlearn_bench.scorers.profanity_check import load_profanity_check


class TestScoreOnce:
    def test_each_distinct_text_is_asked_once_and_order_is_kept(self) -> None:
        asked: list[str] = []

        def by_length(batch: list[str]) -> Any:
            asked.extend(batch)
            return np.array([len(text) / 10 for text in batch])

        scores = score_once(["bbb", "a", "bbb", "cc", "a"], by_length, batch_size=2)
        assert scores.tolist() == [0.3, 0.1, 0.3, 0.2, 0.1]
        assert sorted(asked) == ["a", "bbb", "cc"]
        assert scores.dtype == np.float64

    def test_one_bad_text_costs_one_value(self) -> None:
        def fails_on_b(batch: list[str]) -> Any:
            if "b" in batch:
                raise RuntimeError("no")
            return np.full(len(batch), 0.5)

        scores = score_once(["a", "b", "c"], fails_on_b, batch_size=3)
        assert scores[[0, 2]].tolist() == [0.5, 0.5]
        assert np.isnan(scores[1])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
    def test_values_that_are_no_probability_are_missing(self, value: float) -> None:
        scores = score_once(["a"], lambda batch: np.array([value]), batch_size=1)
        assert np.isnan(scores[0])

    def test_wrong_number_of_scores_is_missing(self) -> None:
        scores = score_once(["a", "b"], lambda batch: np.array([0.1, 0.2, 0.3]), batch_size=2)
        assert np.isnan(scores).all()

    def test_blank_text_is_zero_by_definition_and_never_asked(self) -> None:
        def never(batch: list[str]) -> Any:
            raise AssertionError(batch)

        assert score_once(["", "  \n"], never, batch_size=2).tolist() == [0.0, 0.0]

    def test_nothing_to_score(self) -> None:
        assert score_once([], lambda batch: np.array([]), batch_size=2).shape == (0,)


class TestProfanityCheck:
    def test_values_are_the_packages_own(self) -> None:
        from profanity_check import predict_prob

        texts = ["You are a stupid idiot.", "The train was ten minutes late.", "damn"]
        scores = load_profanity_check().score(texts)
        assert scores.tolist() == pytest.approx(predict_prob(texts).tolist(), abs=1e-12)
        assert scores[0] > 0.9 > 0.2 > scores[1]

    def test_batch_size_changes_nothing(self) -> None:
        texts = [f"text number {i} of some fools" for i in range(7)]
        one, many = load_profanity_check(batch_size=2), load_profanity_check()
        assert one.score(texts).tolist() == pytest.approx(many.score(texts).tolist(), abs=1e-12)

    def test_identity_names_weights_and_arithmetic(self) -> None:
        scorer = load_profanity_check()
        assert len(scorer.weights_sha256) == 64
        assert "+scikit-learn-" in scorer.version
        assert scorer.name == "profanity_check"

    def test_absent_package_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ScorerError, match="not installed") as caught:
            load_profanity_check()
        assert "pip install alt-profanity-check" in caught.value.next_step


def test_it_is_registered_under_its_name() -> None:
    assert "profanity_check" in list_cards("scorer")
    assert load_function(find_card("scorer", "profanity_check"))().name == "profanity_check"
