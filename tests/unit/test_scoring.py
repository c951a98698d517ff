"""From samples to items: nothing missing becomes a number, nothing is judged twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.data.sources import PUBLIC_SETS
from unlearn_bench.protocols.catalog import find_protocol, list_protocols
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.schema import Sample


class LengthJudge:
    """Toxicity = length / 10; remembers what it was asked; has no answer for "broken"."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.asked.extend(texts)
        return np.array([math.nan if text == "broken" else len(text) / 10 for text in texts])


def sample(item: str, *outputs: str) -> Sample:
    return Sample("realtoxicityprompts", item, "none", "p", outputs, {}, {"id": item})


RTP = find_protocol("realtoxicityprompts")


def test_expected_maximum_toxicity_by_hand() -> None:
    """Items: max(.2, .6) = .6 and max(.5, .1) = .5, mean .55; one of two above .5 (strictly)."""
    judge = LengthJudge()
    samples = [sample("a", "xx", "xxxxxx"), sample("b", "xxxxx", "x")]
    scores = {
        score.metric: score
        for score in aggregate(score_samples(RTP, samples, judge), {RTP.name: RTP})
    }
    assert scores["expected_max_toxicity"].value == pytest.approx(0.55)
    assert scores["toxicity_probability"].value == pytest.approx(0.5)
    assert scores["mean_toxicity"].value == pytest.approx((0.4 + 0.3) / 2)
    assert sorted(judge.asked) == sorted({"xx", "xxxxxx", "xxxxx", "x"})


def test_one_unjudged_text_makes_its_item_missing_never_zero() -> None:
    samples = [sample("a", "broken", "x"), sample("b", "xx", "xx")]
    scores = aggregate(score_samples(RTP, samples, LengthJudge()), {RTP.name: RTP})
    worst = next(score for score in scores if score.metric == "expected_max_toxicity")
    assert (worst.n, worst.missing) == (1, 1)
    assert worst.value == pytest.approx(0.2)


def test_without_a_judge_everything_judged_is_missing() -> None:
    scores = aggregate(score_samples(RTP, [sample("a", "x", "y")], None), {RTP.name: RTP})
    worst = next(score for score in scores if score.metric == "expected_max_toxicity")
    assert math.isnan(worst.value)
    assert worst.missing == 1


def test_distinct_2_by_hand() -> None:
    """`a b a b`: ab, ba, ab; `a b`: ab. 2 distinct of 4. One-word texts have no bigram."""
    items = score_samples(RTP, [sample("a", "a b a b", "a b"), sample("b", "x", "y")], None)
    distinct = {item.item_id: item.value for item in items if item.metric == "distinct_2"}
    assert distinct["a"] == pytest.approx(0.5)
    assert math.isnan(distinct["b"])


def test_filters_keep_strict_and_flexible_apart() -> None:
    protocol = find_protocol("gsm8k")
    samples = [
        Sample("gsm8k", "a", "strict-match", "p", ("x",), {"exact_match": 0.0}, {"id": "a"}),
        Sample("gsm8k", "a", "flexible-extract", "p", ("x",), {"exact_match": 1.0}, {"id": "a"}),
    ]
    values = {item.metric: item.value for item in score_samples(protocol, samples, None)}
    assert values == {"exact_match_strict": 0.0, "exact_match_flexible": 1.0}


def test_every_task_has_the_issues_metrics_and_minis_have_names_of_their_own() -> None:
    protocols = list_protocols()
    real = {"fur", "truthfulqa", "wikitext", "gsm8k", "realtoxicityprompts", "toxigen"}
    minis = {"truthfulqa_mini", "wikitext_mini", "gsm8k_mini", "toxigen_mini"}
    assert set(protocols) == real | minis | set(PUBLIC_SETS)
    for name in minis:
        twin = protocols[name]
        assert twin.mini
        assert not set(twin.subtasks) & set(protocols[twin.base].subtasks)
    assert {"mc1", "mc2"} == set(protocols["truthfulqa"].metrics)
    assert "forget_paraphrase_extraction_strength" in protocols["fur"].metrics
    assert len(protocols["fur"].metrics) == 52
