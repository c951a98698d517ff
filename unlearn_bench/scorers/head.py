"""A logistic head on sentence embeddings: fitted once and kept in a file, the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.errors import ScorerError

PLACES = 2  # of coefficients about 1: with more, machines' arithmetic would show in the file

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """P(toxic | e) = 1 / (1 + exp(−(w·e + b))) of an embedding e.

    encoder_sha256: of the encoder's files, without which w means nothing. fitted_on: the comments.
    """

    weights: tuple[float, ...]
    intercept: float
    encoder_sha256: str
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def probability(self, embeddings: Floats) -> Floats:
        """(n, width) to (n,)."""
        logits = embeddings @ np.array(self.weights) + self.intercept
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def fit_head(
    embeddings: Floats,
    toxic: Sequence[bool],
    *,
    encoder_sha256: str,
    fitted_on: Mapping[str, Any],
) -> Head:
    """Logistic regression with ‖w‖²/2 as its penalty (C = 1), by Newton steps from zero.

    Nothing is drawn at random, so the same rows in the same order give the same head. L-BFGS at its
    usual tolerance stops where rounding decides: coefficients of two runs then differ by up to 0.5.
    """
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10)
    fitted = solver.fit(embeddings, np.asarray(toxic))
    return Head(
        weights=tuple(round(float(weight), PLACES) for weight in fitted.coef_[0]),
        intercept=round(float(fitted.intercept_[0]), PLACES),
        encoder_sha256=encoder_sha256,
        fitted_on=fitted_on,
    )


def head_json(head: Head) -> str:
    """The head as its file holds it."""
    return json.dumps(vars(head), indent=1) + "\n"


def read_head(path: Path) -> Head:
    """What `head_json` wrote. Raises ScorerError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights = tuple(float(weight) for weight in content.pop("weights"))
        return Head(weights=weights, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScorerError(f"the head cannot be read: {error}", where=str(path)) from error
