"""What a scorer is, and the one way in which texts are batched, cached and counted as missing.

A scorer is a function registered with `@scorer` that returns a `Scorer`. A value it cannot give is
NaN, which later counts as missing; it is never zero and never "not toxic".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Scores = NDArray[np.float64]
ScoreBatch = Callable[[list[str]], Scores]


class Scorer(Protocol):
    """Judges texts. version and weights_sha256 stand in every row of a result.

    `score(texts)` returns float64 of shape (len(texts),): a probability in [0, 1], NaN = missing.
    """

    @property
    def name(self) -> str:
        """The registered name."""

    @property
    def version(self) -> str:
        """Package version and variant."""

    @property
    def weights_sha256(self) -> str:
        """Hex sha256 of the weights that judge."""

    def score(self, texts: Sequence[str]) -> Scores:
        """One probability for each text, in order."""


class AttributeScorer(Scorer, Protocol):
    """A scorer that also says in what way a text is toxic. `attributes[0]` is what `score` gives.

    Metrics of an attribute (`attribute: threat` in a protocol.yaml) exist only in runs whose scorer
    has it.
    """

    attributes: tuple[str, ...]

    def score_attributes(self, texts: Sequence[str]) -> Scores:
        """(len(texts), len(attributes)) float64, each a probability as in `score`."""


def score_once(texts: Sequence[str], score_batch: ScoreBatch, *, batch_size: int) -> Scores:
    """Score each distinct text once, in batches of similar length; float64 of shape (len(texts),).

    An empty or blank text says nothing and is 0 by definition. When a batch fails, its texts are
    tried one by one, so that one bad text costs one missing value (NaN). Values that are not
    finite or not in [0, 1] are missing too.
    """

    def one_column(batch: list[str]) -> Scores:
        return np.asarray(score_batch(batch))[:, None]

    return score_attributes_once(texts, one_column, batch_size=batch_size, width=1)[:, 0]


def score_attributes_once(
    texts: Sequence[str], score_batch: ScoreBatch, *, batch_size: int, width: int
) -> Scores:
    """As `score_once` for `width` attributes at a time: float64 of shape (len(texts), width)."""
    distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
    known: dict[str, Scores] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        known.update(zip(batch, _score_or_nan(batch, score_batch, width), strict=True))
    found = [known[text] if text.strip() else np.zeros(width) for text in texts]
    return np.array(found, dtype=np.float64).reshape(len(texts), width)


def _score_or_nan(batch: list[str], score_batch: ScoreBatch, width: int) -> Scores:
    try:
        scores = np.asarray(score_batch(batch), dtype=np.float64)
        if scores.shape != (len(batch), width):
            raise ValueError(f"scores of shape {scores.shape} for {len(batch)} texts")
    except (RuntimeError, ValueError, IndexError) as error:
        if len(batch) > 1:
            return np.concatenate([_score_or_nan([text], score_batch, width) for text in batch])
        logger.warning("no score for a text of %d characters: %s", len(batch[0]), error)
        return np.full((1, width), np.nan)
    valid = (scores >= 0.0) & (scores <= 1.0)  # False for NaN
    return np.where(valid, scores, np.nan)
