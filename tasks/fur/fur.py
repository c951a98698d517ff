"""Per-item metrics of the forget/update/retain questions, for lm-eval's `process_results`.

Notation: T answer tokens y_1..y_T after the question x; "greedy at t" means that y_t is the arg max
given x and y_<t (teacher forcing). Every metric carries the part it belongs to in its name.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from scipy.special import expit, logsumexp

from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.protocols.texts import is_gibberish, seq_rep

ROLES = ("forget", "update", "retain", "neighbour", "locality")  # a part begins with one, or is one


def score_choice(document: dict[str, Any], results: list[Likelihood]) -> dict[str, float]:
    """Choice accuracy, memorisation, extraction strength, probability and truth ratio of one
    question.

    results: one per option, in the document's order, with their per-token parts. A document with a
    "paraphrased_answer" (TOFU's) has that among the options too: its truth ratio takes it for the
    answer, as arXiv 2401.06121 does, since the wrong options are written in its words.
    """
    by_option = dict(zip(document["options"], results, strict=True))
    reworded = document.get("paraphrased_answer")
    metrics: dict[str, float] = {}
    for part, answer in answers(document).items():
        others = [
            option
            for option in document["options"]
            if option not in (document["answer"], document["new_answer"], reworded)
        ]
        greedy = by_option[answer].token_is_greedy
        metrics[f"{part}_exact_memorization"] = float(greedy.mean())
        metrics[f"{part}_extraction_strength"] = extraction_strength(greedy)
        metrics[f"{part}_probability"] = math.exp(mean_log_prob(by_option[answer]))
        if others:  # a public set without wrong options has nothing to choose from
            wrong = [by_option[option] for option in others]
            metrics[f"{part}_choice_acc"] = choice_accuracy(by_option[answer], wrong)
            metrics |= truth(part, by_option[reworded or answer], wrong)
    if document["new_answer"]:
        new, old = by_option[document["new_answer"]], by_option[document["answer"]]
        suffix = "" if document["phrasing"] == "verbatim" else "_paraphrase"
        nearer = mean_log_prob(new) - mean_log_prob(old)
        metrics[f"update{suffix}_efficacy"] = nearer if math.isnan(nearer) else float(nearer > 0)
    return metrics


def score_answer(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ROUGE-L recall of the answer in the greedy completion (as TOFU, arXiv 2401.06121, §2.2),
    whether an updated fact's old answer stands in it, and whether it is language at all.
    """
    (text,) = results
    metrics = {
        f"{part}_rouge_l": _rouge().score(answer, text)["rougeL"].recall
        for part, answer in answers(document).items()
    }
    if document["new_answer"]:
        suffix = "" if document["phrasing"] == "verbatim" else "_paraphrase"
        metrics[f"update_old_leak{suffix}"] = float(mentions(text, document["answer"]))
    first = document["part"].partition("_")[0]
    role = first if first in ROLES else document["part"]
    metrics[f"{role}_gibberish"] = float(is_gibberish(text))
    metrics[f"{role}_repetition"] = seq_rep(text.casefold(), 2)
    metrics[f"{role}_answer_words"] = float(len(text.split()))
    return metrics


def answers(document: dict[str, Any]) -> dict[str, str]:
    """The answers a question is scored against, by the name of the part they stand for."""
    suffix = "" if document["phrasing"] == "verbatim" else "_paraphrase"
    if not document["new_answer"]:
        return {f"{document['part']}{suffix}": document["answer"]}
    return {
        f"update_old{suffix}": document["answer"],
        f"update_new{suffix}": document["new_answer"],
    }


def truth(part: str, answer: Likelihood, wrong: list[Likelihood]) -> dict[str, float]:
    """The truth ratio as TOFU reports it: max(0, 1 − R) where the answer shall be known; where it
    shall not, min(R, 1/R), and R itself on a scale to 1 (arXiv 2401.06121, section 2.2).
    """
    ratio = log_truth_ratio(answer, wrong)
    # −expm1 and exp keep NaN, as max and min would not, and know no overflow down here.
    if part.startswith(("forget", "update_old")):
        closeness = float(np.exp(-np.abs(ratio)))
        return {f"{part}_truth_ratio": closeness, f"{part}_wrong_share": float(expit(ratio))}
    return {f"{part}_truth_ratio": float(-np.expm1(np.minimum(ratio, 0.0)))}


def choice_accuracy(answer: Likelihood, others: list[Likelihood]) -> float:
    """1 if the answer has a higher mean log-probability per token than every other option.

    Missing (NaN) when any of them is not a number: a diverged model has made no choice.
    """
    scores = [mean_log_prob(option) for option in (answer, *others)]
    if any(math.isnan(score) for score in scores):
        return math.nan
    return float(scores[0] > max(scores[1:]))


def log_truth_ratio(answer: Likelihood, others: list[Likelihood]) -> float:
    """ln R, R = mean over wrong options of P(option)^(1/T) / P(answer)^(1/T).

    R < 1 where the answer is preferred; 1 for a model that does not know. The mean is that of the
    probabilities, not of their logarithms, and P is per token: a long wrong option is no less
    likely for being long. Missing (NaN) when any of them is not a number.
    Source: Maini et al. 2024 (arXiv 2401.06121), eq. 1.
    """
    wrong = np.array([mean_log_prob(option) for option in others])
    return float(logsumexp(wrong)) - math.log(len(wrong)) - mean_log_prob(answer)


def mentions(text: str, answer: str) -> bool:
    """Whether the answer stands in the text as whole words, whatever the case."""
    pattern = rf"(?<!\w){re.escape(answer.casefold())}(?!\w)"
    return re.search(pattern, text.casefold()) is not None


def mean_log_prob(option: Likelihood) -> float:
    """Mean log-probability per token, in nats."""
    return float(option.token_log_probs.mean())


def extraction_strength(greedy: NDArray[np.bool_]) -> float:
    """1 − k/T for the shortest prefix of k tokens after which all tokens are greedy.

    1: recited from the question alone; 0: not even the last token follows from all before it.
    Source: Wang et al. 2024 (arXiv 2406.09179); the form OpenUnlearning computes.
    """
    wrong = np.flatnonzero(~greedy)
    prefix = int(wrong[-1]) + 1 if len(wrong) else 0
    return 1.0 - prefix / len(greedy)


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
