"""Membership attacks: one score per text from its tokens' likelihoods, higher for members.

Notation: T tokens of the text with log-probabilities ℓ_t; at every place μ_t and σ_t are mean and
standard deviation of the log-probability of a token drawn from the model itself.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.engine.likelihood import Likelihood

K = 0.2  # share of tokens that the min-k attacks look at, as in both papers


def score_text(document: dict[str, Any], results: list[Likelihood]) -> dict[str, float]:
    """The four attacks' scores of one text. results: of that text alone, with moments."""
    (result,) = results
    logs, moments = result.token_log_probs, result.moments
    mean = float(logs.mean())
    return {
        "loss": mean,
        "zlib": mean / compressed_bytes(document["text"]),
        "min_k": lowest_mean(logs),
        "min_k_plus_plus": lowest_mean(normalised(logs, moments)),
    }


def compressed_bytes(text: str) -> int:
    """Length after zlib: how much there is to know in a text. Of the text that is scored alone: a
    question before it has no likelihood here, and would make short answers all alike.

    Source: Carlini et al. 2021 (arXiv 2012.07805), section 5.2, who divide by it.
    """
    return len(zlib.compress(text.encode("utf-8")))


def lowest_mean(values: NDArray[np.float64]) -> float:
    """Mean of the lowest fifth of the values, and of at least one: a short text has a lowest too.

    Source: Shi et al. 2024 (arXiv 2310.16789), eq. 1. Missing (NaN) when a value is not a number.
    """
    if np.isnan(values).any():
        return math.nan
    count = max(1, int(K * len(values)))
    return float(np.sort(values)[:count].mean())


def normalised(
    logs: NDArray[np.float64], moments: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """(ℓ_t − μ_t) / σ_t; where the model is certain (σ_t = 0) the token is the one it expects: 0.
    NaN of an engine that cannot give moments.

    Source: Zhang et al. 2024 (arXiv 2404.02936), eq. 3.
    """
    if moments is None:
        return np.full_like(logs, math.nan)
    means, deviations = moments.T
    certain = deviations == 0
    return np.where(certain, 0.0, (logs - means) / np.where(certain, 1.0, deviations))
