"""The fur metrics on cases whose answer is known by hand."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from lm_eval.tasks._yaml_loader import _import_fun_from_str

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.protocols.texts import is_gibberish, seq_rep

FUR = tasks_folder() / "fur"


@cache
def fur(name: str) -> Any:
    return _import_fun_from_str(f"{FUR / 'fur'}.{name}")


def option(*log_probs: float, greedy: str = "") -> Likelihood:
    """`greedy`: one character per token, `x` where the token is the arg max."""
    marks = greedy or "." * len(log_probs)
    return Likelihood(np.array(log_probs), np.array([mark == "x" for mark in marks]))


@pytest.mark.parametrize(
    ("greedy", "strength"),
    [
        ("xxxx", 1.0),  # recited from the question alone
        ("....", 0.0),  # nothing follows
        (".xxx", 0.75),  # given one token of four, the rest follows
        ("xx.x", 0.25),  # a greedy beginning does not count: the last miss is at 3
        ("xxx.", 0.0),  # the last token never follows
    ],
)
def test_extraction_strength(greedy: str, strength: float) -> None:
    marks = np.array([mark == "x" for mark in greedy])
    assert fur("extraction_strength")(marks) == pytest.approx(strength)


def document(**changes: Any) -> dict[str, Any]:
    base = {
        "part": "forget",
        "phrasing": "verbatim",
        "options": ["w1", "right", "w2", "w3"],
        "answer": "right",
        "new_answer": "",
    }
    return {**base, **changes}


def test_choice_is_by_mean_log_probability_so_length_does_not_decide() -> None:
    """right: −2 over 4 tokens, mean −0.5; w1: −0.9 over 1 token, mean −0.9. By sum w1 would win."""
    results = [option(-0.9), option(-0.5, -0.5, -0.5, -0.5, greedy="xx.x"), option(-3), option(-4)]
    metrics = fur("score_choice")(document(), results)
    ratios = {name: metrics.pop(f"forget_{name}") for name in ("truth_ratio", "wrong_share")}
    assert metrics == {
        "forget_choice_acc": 1.0,
        "forget_exact_memorization": 0.75,
        "forget_extraction_strength": 0.25,
        "forget_probability": pytest.approx(math.exp(-0.5)),
    }
    assert all(0 < ratio < 1 for ratio in ratios.values())


def likelihoods(answer: float, *others: float) -> list[Likelihood]:
    """Options w1, right, w2, w3 of two tokens each, with these probabilities per token."""
    one, *rest = others
    return [option(math.log(p), math.log(p)) for p in (one, answer, *rest)]


@pytest.mark.parametrize(
    ("answer", "others", "forget", "retain", "share"),
    [
        (1.0, (1e-9, 1e-9, 1e-9), 1e-9, 1.0, 0.0),  # perfect memory
        (0.01, (0.01, 0.01, 0.01), 1.0, 0.0, 0.5),  # none: right and wrong are the same to it
        (0.01, (0.9, 0.03, 0.03), 1 / 32, 0.0, 32 / 33),  # confidently wrong: R = 0.32/0.01
        (0.4, (0.1, 0.2, 0.3), 0.5, 0.5, 1 / 3),  # R = 0.2/0.4, the mean of the probabilities
    ],
)
def test_truth_ratio(
    answer: float, others: tuple[float, ...], forget: float, retain: float, share: float
) -> None:
    """By the geometric mean the last R would be 0.182/0.4, by the longest option another."""
    results = likelihoods(answer, *others)
    gone = fur("score_choice")(document(), results)
    kept = fur("score_choice")(document(part="retain_stranger"), results)
    assert gone["forget_truth_ratio"] == pytest.approx(forget)
    assert gone["forget_wrong_share"] == pytest.approx(share, abs=1e-8)
    assert kept["retain_stranger_truth_ratio"] == pytest.approx(retain, abs=1e-8)


def test_a_reworded_answer_is_weighed_and_not_chosen() -> None:
    """The wrong options have 0.1 per token, the answer 0.4, and in their words 0.8: R = 1/8, which
    with the answer's own words were 1/4. The choice is between 0.4 and 0.1, and 0.8 stands apart.
    """
    asked = document(options=["w1", "right", "w2", "w3", "reworded"], paraphrased_answer="reworded")
    results = [*likelihoods(0.4, 0.1, 0.1, 0.1), option(math.log(0.8), math.log(0.8))]
    gone = fur("score_choice")(asked, results)
    assert gone["forget_truth_ratio"] == pytest.approx(1 / 8)
    assert gone["forget_wrong_share"] == pytest.approx(1 / 9)
    assert gone["forget_choice_acc"] == 1.0
    assert gone["forget_probability"] == pytest.approx(0.4)
    kept = fur("score_choice")(asked | {"part": "retain"}, results)
    assert kept["retain_truth_ratio"] == pytest.approx(1 - 1 / 8)


def test_a_question_without_a_reworded_answer_takes_its_own() -> None:
    """TOFU's real authors, in documents whose others have one: R = 0.1/0.4."""
    results = likelihoods(0.4, 0.1, 0.1, 0.1)
    asked = document(part="real_authors", paraphrased_answer="")
    metrics = fur("score_choice")(asked, results)
    assert metrics["real_authors_truth_ratio"] == pytest.approx(3 / 4)


def test_a_truth_ratio_beyond_any_float_is_a_number() -> None:
    """ln R = 2000: R is no float, R/(1 + R) is 1 and 1/R is 0."""
    metrics = fur("score_choice")(document(), [option(-1), option(-2001), option(-1), option(-1)])
    assert (metrics["forget_truth_ratio"], metrics["forget_wrong_share"]) == (0.0, 1.0)
    broken = [option(-1), option(math.nan), option(-1), option(-1)]
    assert math.isnan(fur("score_choice")(document(), broken)["forget_truth_ratio"])
    assert math.isnan(fur("score_choice")(document(part="retain"), broken)["retain_truth_ratio"])


def test_a_confidently_wrong_model_scores_zero_and_a_tie_is_not_a_choice() -> None:
    wrong = fur("score_choice")(document(), [option(-0.1), option(-5), option(-6), option(-7)])
    tie = fur("score_choice")(document(), [option(-1), option(-1), option(-6), option(-7)])
    assert wrong["forget_choice_acc"] == tie["forget_choice_acc"] == 0.0


def test_a_diverged_model_has_not_chosen() -> None:
    results = [option(math.nan), option(math.nan), option(math.nan), option(math.nan)]
    metrics = fur("score_choice")(document(), results)
    assert math.isnan(metrics["forget_choice_acc"])
    assert math.isnan(metrics["forget_probability"])


def test_updates_score_the_new_and_the_old_answer_apart() -> None:
    """Four-way choices leave the other answer out; efficacy compares the two head to head."""
    results = [option(-3), option(-1), option(-0.5), option(-4), option(-5)]
    metrics = fur("score_choice")(
        document(
            part="update",
            phrasing="paraphrase1",
            options=["w1", "old", "new", "w2", "w3"],
            answer="old",
            new_answer="new",
        ),
        results,
    )
    assert metrics["update_new_paraphrase_choice_acc"] == 1.0
    assert metrics["update_old_paraphrase_choice_acc"] == 1.0
    assert metrics["update_paraphrase_efficacy"] == 1.0
    assert "update_efficacy" not in metrics


# By case: probability per token of the right answer and of a wrong one, whether its tokens are the
# arg max, and what the model says to the question.
CASES = {
    "perfect memory": (1.0, 1e-9, "xx", " Trewithal Crane"),
    "no memory": (0.01, 0.01, "..", " I do not know"),
    "wrong but confident": (0.01, 0.9, "..", " Penhale Penhale"),
    "empty answer": (1e-9, 1e-9, "..", ""),
}
EXPECTED = {  # (perfect, none, wrong, empty)
    "extraction_strength": (1, 0, 0, 0),
    "exact_memorization": (1, 0, 0, 0),
    "probability": (1, 0.01, 0.01, 0),
    "choice_acc": (1, 0, 0, 0),  # a tie is no choice
    "truth_ratio": (0, 1, 1 / 90, 1),  # 1 is a model that cannot tell them apart
    "wrong_share": (0, 0.5, 90 / 91, 0.5),
    "rouge_l": (1, 0, 0, 0),
    "gibberish": (0, 0, 0, 1),
    "repetition": (0, 0, 0, 0),
    "answer_words": (2, 4, 2, 0),
}
KEPT = {**EXPECTED, "truth_ratio": (1, 0, 0, 0)}  # where the answer shall be known
del KEPT["wrong_share"]
UPDATED = {  # the right answer is the new one, the wrong one the old; {}: reworded or not
    "update{}_efficacy": (1, 0, 0, 0),
    "update_old_leak{}": (0, 0, 1, 0),
    "update_new{}_extraction_strength": (1, 0, 0, 0),
    "update_new{}_exact_memorization": (1, 0, 0, 0),
    "update_new{}_probability": (1, 0.01, 0.01, 0),
    "update_new{}_choice_acc": (1, 0, 0, 0),  # the old answer is none of the options
    "update_new{}_rouge_l": (1, 0, 0, 0),
    "update_old{}_extraction_strength": (0, 0, 0, 0),
    "update_old{}_exact_memorization": (0, 0, 0, 0),
    "update_old{}_probability": (0, 0.01, 0.9, 0),
    "update_old{}_choice_acc": (0, 0, 1, 0),
    "update_old{}_rouge_l": (0, 0, 1, 0),
    "update_gibberish": (0, 0, 0, 1),
    "update_repetition": (0, 0, 0, 0),
    "update_answer_words": (2, 4, 2, 0),
}


def expected(rows: dict[str, tuple[float, ...]], case: str, *named: str) -> dict[str, Any]:
    """One case's column of a table; named: what stands for {} in the metrics' names."""
    place = list(CASES).index(case)
    return {
        name.format(*named): pytest.approx(values[place], abs=1e-6) for name, values in rows.items()
    }


def repeated(probability: float, greedy: str) -> Likelihood:
    return option(*[math.log(probability)] * 2, greedy=greedy)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("part", "rows"), [("forget", EXPECTED), ("retain", KEPT)])
def test_every_metric_of_a_fact_in_every_case(
    part: str, rows: dict[str, tuple[float, ...]], case: str
) -> None:
    right, wrong, greedy, text = CASES[case]
    asked = document(part=part, answer="Trewithal Crane", options=["w1", "Trewithal Crane", "w2"])
    results = [repeated(wrong, ".."), repeated(right, greedy), repeated(wrong, "..")]
    found = fur("score_choice")(asked, results) | fur("score_answer")(asked, [text])
    assert found == expected({f"{part}_{name}": values for name, values in rows.items()}, case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("phrasing", ["verbatim", "paraphrase1"])
def test_every_metric_of_an_update_in_every_case(phrasing: str, case: str) -> None:
    """The metrics of reworded questions are those of generalisation."""
    new, old, greedy, text = CASES[case]
    facts = {"part": "update", "answer": "Penhale Penhale", "new_answer": "Trewithal Crane"}
    options = ["w1", facts["answer"], facts["new_answer"], "w2"]
    asked = document(**facts, options=options, phrasing=phrasing)
    other = repeated(min(new, old), "..")
    results = [other, repeated(old, ".."), repeated(new, greedy), other]
    found = fur("score_choice")(asked, results) | fur("score_answer")(asked, [text])
    wanted = expected(UPDATED, case, "" if phrasing == "verbatim" else "_paraphrase")
    assert {name: found[name] for name in wanted} == wanted
    assert not {name for name in found if "ratio" not in name and "wrong" not in name} - {*wanted}


@pytest.mark.parametrize(
    ("text", "recall"),
    [(" Trewithal & Crane", 1.0), (" Trewithal", 0.5), ("", 0.0), (" I do not know", 0.0)],
)
def test_rouge_l_is_the_recall_of_the_answer(text: str, recall: float) -> None:
    metrics = fur("score_answer")(document(answer="Trewithal & Crane"), [text])
    assert metrics["forget_rouge_l"] == pytest.approx(recall)


@pytest.mark.parametrize(
    ("text", "leak"),
    [
        (" The town of Old Ford.", 1.0),
        (" OLD FORD", 1.0),
        (" Old Fordham", 0.0),  # another word
        (" New Ford", 0.0),
        ("", 0.0),
    ],
)
def test_an_old_answer_leaks_as_whole_words(text: str, leak: float) -> None:
    changed = document(part="update", answer="Old Ford", new_answer="New Ford")
    assert fur("score_answer")(changed, [text])["update_old_leak"] == leak
    reworded = document(part="update", answer="Old Ford", new_answer="x", phrasing="paraphrase1")
    assert fur("score_answer")(reworded, [text])["update_old_leak_paraphrase"] == leak
    assert "update_old_leak" not in fur("score_answer")(document(), [text])


def test_language_is_measured_by_role() -> None:
    """'a b a b': bigrams ab, ba, ab: 1 − 2/3."""
    metrics = fur("score_answer")(document(part="retain_neighbour"), [" a b a b"])
    assert metrics["retain_repetition"] == pytest.approx(1 / 3)
    assert (metrics["retain_answer_words"], metrics["retain_gibberish"]) == (4.0, 0.0)


@pytest.mark.parametrize(
    "text",
    ["", "   ", "....", "12 34", "?!?! a ,,,;;", "the the the", "Vin�hassol", "aaaaaaargh",
     "in a town in a town in a town", "no, no. No!", "12 34 12 34", "1 2", "1111111", "00000",
     "1,2,3,4", "8374837483748374", "19-19-19-19", "1.2.3.4.5", "%", "19 / 89"],
)  # fmt: skip
def test_gibberish(text: str) -> None:
    assert is_gibberish(text)


@pytest.mark.parametrize(
    "text",
    ["Vinhassol", "Trewithal & Crane", "She was born in Vinhassol, and so was he.", "no, no",
     "1984, a novel", "Mississippi", "I do not know.", "1989", " 19\n", "1989.", "1,000,000",
     "1000000", "3.14", "-40", "$5", "50%", "1989-05-12", "12/5/1989", "1.9.1939", "10:30",
     "1914–1918"],
)  # fmt: skip
def test_language(text: str) -> None:
    assert not is_gibberish(text)


def test_repetition_by_hand() -> None:
    """Three words in a loop of twelve: 3 different bigrams of 11."""
    assert seq_rep("in a town " * 4, 2) == pytest.approx(1 - 3 / 11)
    assert seq_rep("a town", 2) == seq_rep("town", 2) == seq_rep("", 2) == 0.0
