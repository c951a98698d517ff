"""From samples to items: nothing missing becomes a number, nothing is judged twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import PUBLIC_SETS, load_documents
from unlearn_bench.data.toxigen import GROUPS
from unlearn_bench.protocols.catalog import find_protocol, list_protocols
from unlearn_bench.protocols.scoring import attributes_of, score_samples
from unlearn_bench.schema import Sample


class ThreatJudge:
    """Toxicity = length / 10 and threat = half of it; toxicity of "half" is unknown."""

    attributes = ("toxicity", "threat")

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return self.score_attributes(texts)[:, 0]

    def score_attributes(self, texts: Sequence[str]) -> NDArray[np.float64]:
        rows = [(len(text) / 10, len(text) / 20) for text in texts]
        unknown = [[text == "half", False] for text in texts]
        return np.where(unknown, math.nan, np.array(rows))


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


def test_attributes_are_scored_where_the_judge_has_them() -> None:
    """Texts of 2 and 6 letters: toxicity .2 and .6, threat .1 and .3; max .3, none above .5."""
    protocol = RTP.judged_by(ThreatJudge.attributes)
    assert {name for name, metric in protocol.metrics.items() if metric.attribute} == {
        "expected_max_threat",
        "threat_probability",
    }
    items = score_samples(protocol, [sample("a", "xx", "xxxxxx")], ThreatJudge())
    values = {item.metric: item.value for item in items}
    assert values["expected_max_toxicity"] == pytest.approx(0.6)
    assert values["expected_max_threat"] == pytest.approx(0.3)
    assert (values["toxicity_probability"], values["threat_probability"]) == (1.0, 0.0)


def test_one_attribute_unknown_leaves_the_others() -> None:
    protocol = RTP.judged_by(ThreatJudge.attributes)
    items = score_samples(protocol, [sample("a", "half")], ThreatJudge())
    values = {item.metric: item.value for item in items}
    assert math.isnan(values["expected_max_toxicity"])
    assert values["expected_max_threat"] == pytest.approx(0.2)


def test_a_judge_of_toxicity_alone_makes_no_column_of_attributes() -> None:
    """Not even missing ones: nothing of this run could ever fill them."""
    items = score_samples(RTP, [sample("a", "xx")], LengthJudge())
    assert not {item.metric for item in items} & {"expected_max_threat", "threat_probability"}
    assert "expected_max_threat" not in RTP.judged_by(attributes_of(LengthJudge())).metrics


def test_at_least_the_threshold_counts_where_the_protocol_says_so() -> None:
    """A text scored exactly .5 is toxic in Model Surgery's protocol and not in Gehman et al.'s."""
    greedy = find_protocol("realtoxicityprompts_greedy_challenging")
    own = replace(sample("a", "xxxxx"), task=greedy.name)
    for protocol, samples, expected in ((greedy, [own], 1.0), (RTP, [sample("a", "xxxxx")], 0.0)):
        items = score_samples(protocol, samples, LengthJudge())
        values = {item.metric: item.value for item in items}
        assert values["toxicity_probability"] == expected


def test_repetition_and_silence_by_hand() -> None:
    """`a a a a a a`: three 4-grams, one distinct, so 2/3 repeat; `a b c d`: one, none repeats;
    the blank text has none. Mean (2/3 + 0 + 0) / 3 = 2/9; one of three texts is blank.
    """
    items = score_samples(RTP, [sample("a", "a a a a a a", "a b c d", " \n")], None)
    values = {item.metric: item.value for item in items}
    assert values["seq_rep_4"] == pytest.approx(2 / 9)
    assert values["blank_rate"] == pytest.approx(1 / 3)
    assert values["distinct_1"] == pytest.approx(4 / 10)


def test_the_targets_perplexity_of_the_texts_by_hand() -> None:
    """Mean log-probabilities −1 and −3 of the first item's texts, −4 and −4 of the second's: −2 and
    −4 for the items, and exp(3) for both. A mean over perplexities would be 31, not 20.1.
    """
    samples = [
        replace(sample("a", "x", "y"), under_target=(-1.0, -3.0)),
        replace(sample("b", "x", "y"), under_target=(-4.0, -4.0)),
    ]
    scores = aggregate(score_samples(RTP, samples, LengthJudge()), {RTP.name: RTP})
    (fluency,) = [score for score in scores if score.metric == "fluency_ppl"]
    assert fluency.value == pytest.approx(math.exp(3))
    assert (fluency.n, fluency.missing) == (2, 0)


def test_texts_that_the_target_did_not_read_have_no_perplexity() -> None:
    """Cells of an older version, say: missing, and neither 1 nor 0."""
    items = score_samples(RTP, [sample("a", "x")], None)
    (fluency,) = [item.value for item in items if item.metric == "fluency_ppl"]
    assert math.isnan(fluency)


def test_every_group_of_toxigen_has_its_own_rate() -> None:
    """Toxic are texts of six letters: one of two on women, one of one on muslims; nobody asked
    about trans people, which is no rate of 0. Mean of the groups' rates: (1/2 + 1) / 2.
    """
    toxigen = find_protocol("toxigen")
    asked = [("women", "xxxxxx"), ("women", "xx"), ("muslim", "xxxxxx")]
    samples = [
        Sample("toxigen", str(n), "none", "p", (text,), {}, {"id": str(n), "group": group})
        for n, (group, text) in enumerate(asked)
    ]
    items = score_samples(toxigen, samples, LengthJudge())
    scores = {score.metric: score for score in aggregate(items, {"toxigen": toxigen})}
    assert (scores["women_toxic_rate"].value, scores["women_toxic_rate"].n) == (0.5, 2)
    assert (scores["muslim_toxic_rate"].value, scores["muslim_toxic_rate"].n) == (1.0, 1)
    assert math.isnan(scores["trans_toxic_rate"].value)
    assert (scores["trans_toxic_rate"].n, scores["trans_toxic_rate"].missing) == (0, 0)
    assert scores["toxic_rate"].value == 0.75


def test_groups_of_toxigen_have_columns_where_the_set_has_them() -> None:
    """And no column of the mini set is one that nothing of it could ever fill."""
    for name, rows in (
        ("toxigen", [{"group": group} for group in GROUPS]),
        ("toxigen_mini", load_documents("toxigen_mini", SourceOptions()).splits["test"]),
    ):
        metrics = find_protocol(name).metrics
        named = {metric.only for metric in metrics.values() if metric.only}
        assert named == {row["group"] for row in rows}
        assert {f"{group}_toxic_rate" for group in named} < metrics.keys()


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
    with_mini = {"truthfulqa", "truthfulqa_gen", "wikitext", "gsm8k", "toxigen"}
    with_mini |= {"toxigen_classification", "jailbreak", "over_refusal"}
    minis = {f"{name}_mini" for name in with_mini}
    others = {"fur", "realtoxicityprompts", "realtoxicityprompts_greedy_challenging"}
    others |= {"jailbreak_harmbench", "membership", *PUBLIC_SETS}
    assert set(protocols) == with_mini | minis | others
    for name in minis:
        twin = protocols[name]
        assert twin.mini
        assert not set(twin.subtasks) & set(protocols[twin.base].subtasks)
    assert {"mc1", "mc2"} == set(protocols["truthfulqa"].metrics)
    assert "forget_paraphrase_extraction_strength" in protocols["fur"].metrics
    assert len(protocols["fur"].metrics) == 77
