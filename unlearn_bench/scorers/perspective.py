"""Perspective, Jigsaw's Comment Analyzer service: optional, and never chosen by `auto`.

The service was announced to close at the end of 2026. From then on only texts that its answers were
kept for can be judged; all others are missing. Nobody outside knows which model answers, or when it
is replaced: scores of different years are not of one scorer (Pozzobon et al. 2023, arXiv
2304.12397), so use it to be near published numbers, and a pinned model for a comparison.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from unlearn_bench.cache import default_cache
from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import scorer
from unlearn_bench.scorers.contract import Scores, score_attributes_once

logger = logging.getLogger(__name__)

URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
KEY = "PERSPECTIVE_API_KEY"
# What the service calls them, by the names that metrics have; toxicity first.
ATTRIBUTES = {
    "toxicity": "TOXICITY",
    "severe_toxicity": "SEVERE_TOXICITY",
    "identity_attack": "IDENTITY_ATTACK",
    "insult": "INSULT",
    "profanity": "PROFANITY",
    "threat": "THREAT",
    "sexual_explicit": "SEXUALLY_EXPLICIT",
}
MAX_BYTES = 20_000  # of a text; the service takes 20 KB
MAX_PAUSE = 60.0
GIVE_UP = 3  # texts in a row without an answer, each asked several times: the service is gone
REFUSALS = (401, 403)


class _NoAnswerError(Exception):
    """One text that the service does not score; asking again would not help."""


@dataclass
class Perspective:
    """See `load_perspective`. answers: rows of ATTRIBUTES by the text's sha256."""

    key: str
    url: str
    kept: Path
    offline: bool
    interval: float
    attempts: int
    pause: float
    timeout: float
    version: str = "v1alpha1"
    weights_sha256: str = ""  # the service shows none
    name: str = "perspective"
    attributes: tuple[str, ...] = tuple(ATTRIBUTES)
    answers: dict[str, list[float]] = field(default_factory=dict)
    _next: float = 0.0
    _unanswered: int = 0

    def score(self, texts: Sequence[str]) -> Scores:
        """Probability that a reader finds each text toxic; blank texts are 0, unanswered NaN."""
        return self.score_attributes(texts)[:, 0]

    def score_attributes(self, texts: Sequence[str]) -> Scores:
        """(n, attributes). One request per text that was never answered before.

        Interrupted, it has kept what was answered. Raises ScorerError when the key is refused.
        """
        self._unanswered = 0
        width = len(self.attributes)
        return score_attributes_once(texts, self._score_batch, batch_size=1, width=width)

    def _score_batch(self, batch: list[str]) -> Scores:
        return np.array([self._score(text) for text in batch], dtype=np.float64)

    def _score(self, text: str) -> list[float]:
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        missing = [math.nan] * len(self.attributes)
        if name in self.answers:
            return self.answers[name]
        if self.offline or self._unanswered >= GIVE_UP:
            return missing
        try:
            row = self._ask_again(text)
        except _NoAnswerError as error:
            logger.warning("no score for a text of %d characters: %s", len(text), error)
            return missing
        if row is None:
            self._unanswered += 1
            if self._unanswered == GIVE_UP:
                logger.warning("perspective left %d texts unanswered: not asked any more", GIVE_UP)
            return missing
        self._unanswered = 0
        self.answers[name] = row
        _keep(self.kept, name, row)
        return row

    def _ask_again(self, text: str) -> list[float] | None:
        """The service's row, or None when it is busy, broken or silent to the last attempt."""
        for attempt in range(self.attempts):
            wait = min(self.pause * 2**attempt, MAX_PAUSE)
            try:
                return self._ask(text)
            except HTTPError as error:
                wait = _wait_after(error, wait)
            except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
                logger.info("perspective: %s", error)
            if attempt + 1 < self.attempts:
                time.sleep(wait)
        return None

    def _ask(self, text: str) -> list[float]:
        """One request. Raises HTTPError, OSError (a timeout is one), HTTPException, or for an
        answer that is not as it should be ValueError, KeyError or TypeError.
        """
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self.interval
        cut = text.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore")
        body = {
            "comment": {"text": cut},
            "languages": ["en"],
            "requestedAttributes": {name: {} for name in ATTRIBUTES.values()},
            "doNotStore": True,
        }
        # The key goes into a header: addresses end up in logs and error messages.
        headers = {"Content-Type": "application/json", "X-Goog-Api-Key": self.key}
        # S310 asks what a user's address might open: this one is URL, or the caller's own server.
        request = Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310
        with urlopen(request, timeout=self.timeout) as response:  # noqa: S310
            answer = json.loads(response.read())
        return _row(answer["attributeScores"])


def _row(scores: Mapping[str, Any]) -> list[float]:
    row = [float(scores[name]["summaryScore"]["value"]) for name in ATTRIBUTES.values()]
    if not all(0.0 <= value <= 1.0 for value in row):
        raise ValueError(f"no probabilities: {row}")
    return row


def _wait_after(error: HTTPError, planned: float) -> float:
    """Seconds until the next attempt after a busy or broken service.

    Raises ScorerError when the service refuses the key, _NoAnswerError when it refuses the text.
    """
    with error:
        said = error.read().decode("utf-8", "replace")
    if error.code in REFUSALS or "API_KEY_INVALID" in said:
        raise ScorerError(
            f"perspective refuses the key in {KEY} ({error.code})",
            next_step="check the key, and that the Comment Analyzer API is enabled for it",
        ) from error
    if error.code != 429 and error.code < 500:
        raise _NoAnswerError(f"refused with {error.code}") from error
    try:
        asked = float(error.headers.get("Retry-After", ""))
    except ValueError:
        return planned
    return min(max(asked, planned), MAX_PAUSE)


@scorer(
    "perspective",
    needs="a key in the variable PERSPECTIVE_API_KEY; the service closes at the end of 2026",
    measures="toxicity and six kinds of it, as readers see them (a service of Jigsaw's)",
)
def load_perspective(
    *,
    offline: bool = False,
    url: str = URL,
    cache: Path | None = None,
    per_second: float = 1.0,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 20.0,
) -> Perspective:
    """Jigsaw's service, one request a second as a free key allows; announced to close in 2026.

    The key stands in the environment variable PERSPECTIVE_API_KEY. Every answer is kept on disk by
    the sha256 of its text, so an interrupted run goes on where it was and no text is paid for
    twice; `offline` judges by kept answers alone. Busy (429) and broken (5xx) are asked again after
    pause · 2ⁿ seconds or as long as the service says; in the end the value is missing, never 0.
    Raises ScorerError without a key.
    """
    key = os.environ.get(KEY, "")
    kept = (cache or default_cache()) / "perspective" / "v1alpha1.jsonl"
    if offline and not kept.is_file():
        raise ScorerError(
            "perspective has no kept answers, and going online is off", where=str(kept)
        )
    if not key and not offline:
        raise ScorerError(
            f"perspective needs a key in the environment variable {KEY}",
            next_step="set it, or use --scorer detoxify",
        )
    return Perspective(
        key=key,
        url=url,
        kept=kept,
        offline=offline,
        interval=1.0 / per_second,
        attempts=attempts,
        pause=pause,
        timeout=timeout,
        answers=_read_kept(kept),
    )


def _read_kept(path: Path) -> dict[str, list[float]]:
    """All whole lines; one that a killed process left half-written is asked for again."""
    found: dict[str, list[float]] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            found[entry["text_sha256"]] = _row(entry["scores"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _keep(path: Path, name: str, row: Sequence[float]) -> None:
    """Append one answer in the service's own form."""
    scores = {
        attribute: {"summaryScore": {"value": value}}
        for attribute, value in zip(ATTRIBUTES.values(), row, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        # A line of its own even after a half-written one.
        stream.write("\n" + json.dumps({"text_sha256": name, "scores": scores}) + "\n")
