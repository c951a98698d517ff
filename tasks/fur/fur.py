"""Per-item metrics of the forget/update/retain questions, for lm-eval's `process_results`.

Notation: T answer tokens y_1..y_T after the question x; "greedy at t" means that y_t is the arg max
given x and y_<t (teacher forcing). Every metric carries the part it belongs to in its name.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

from unlearn_bench.engine.likelihood import Likelihood


def score_choice(document: dict[str, Any], results: list[Likelihood]) -> dict[str, float]:
    """Choice accuracy, memorisation, extraction strength and probability of one question.

    results: one per option, in the document's order, with their per-token parts.
    """
    by_option = dict(zip(document["options"], results, strict=True))
    metrics: dict[str, float] = {}
    for part, answer in answers(document).items():
        others = [
            option
            for option in document["options"]
            if option not in (document["answer"], document["new_answer"])
        ]
        if others:  # a public set without wrong options has nothing to choose from
            metrics[f"{part}_choice_acc"] = choice_accuracy(
                by_option[answer], [by_option[option] for option in others]
            )
        greedy = by_option[answer].token_is_greedy
        metrics[f"{part}_exact_memorization"] = float(greedy.mean())
        metrics[f"{part}_extraction_strength"] = extraction_strength(greedy)
        metrics[f"{part}_probability"] = math.exp(mean_log_prob(by_option[answer]))
    if document["new_answer"]:
        new, old = by_option[document["new_answer"]], by_option[document["answer"]]
        suffix = "" if document["phrasing"] == "verbatim" else "_paraphrase"
        metrics[f"update{suffix}_efficacy"] = float(mean_log_prob(new) > mean_log_prob(old))
    return metrics


def score_answer(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ROUGE-L recall of the answer in the greedy completion (as TOFU, arXiv 2401.06121, §2.2)."""
    return {
        f"{part}_rouge_l": _rouge().score(answer, results[0])["rougeL"].recall
        for part, answer in answers(document).items()
    }


def answers(document: dict[str, Any]) -> dict[str, str]:
    """The answers a question is scored against, by the name of the part they stand for."""
    suffix = "" if document["phrasing"] == "verbatim" else "_paraphrase"
    if not document["new_answer"]:
        return {f"{document['part']}{suffix}": document["answer"]}
    return {
        f"update_old{suffix}": document["answer"],
        f"update_new{suffix}": document["new_answer"],
    }


def choice_accuracy(answer: Likelihood, others: list[Likelihood]) -> float:
    """1 if the answer has a higher mean log-probability per token than every other option.

    Missing (NaN) when any of them is not a number: a diverged model has made no choice.
    """
    scores = [mean_log_prob(option) for option in (answer, *others)]
    if any(math.isnan(score) for score in scores):
        return math.nan
    return float(scores[0] > max(scores[1:]))


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
