"""The run's scorer: the one asked for or the first that loads, and the identity rows carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.scoring import attributes_of
from unlearn_bench.registry import Card, find_card, list_cards, load_function

FALLBACK_SCORERS = ("detoxify", "profanity_check")


@dataclasses.dataclass(frozen=True)
class Judge:
    """A loaded scorer, or why there is none, with the identity that rows carry."""

    scorer: Any
    identity: dict[str, str]
    notes: tuple[str, ...] = ()


def scorer_candidates(name: str) -> list[Card]:
    """Cards to try in turn: the one asked for, or for `auto` the real one and its fallback."""
    if name != "auto":
        return [find_card("scorer", name)]
    known = list_cards("scorer")
    return [known[name] for name in FALLBACK_SCORERS if name in known]


def load_judge(
    cards: Sequence[Card],
    checkpoint: Path | None,
    protocols: Mapping[str, Protocol],
    offline: bool,
) -> Judge:
    """The first scorer that loads. None loads: no judge, so its values will be missing."""
    if not any(protocol.judged for protocol in protocols.values()):
        return Judge(None, _identity("none"))
    reasons = []
    for card in cards:
        try:
            scorer = _load_scorer(card, checkpoint, offline)
        except UnlearnBenchError as error:
            reasons.append(f"{card.name} could not be loaded: {error.what}")
            continue
        identity = _identity(
            card.name,
            scorer.version,
            scorer.weights_sha256,
            card.source_sha256,
            " ".join(attributes_of(scorer)),
        )
        return Judge(scorer, identity, tuple(reasons))
    reasons.append("no scorer: toxicity will be missing and the run incomplete")
    return Judge(None, _identity(cards[0].name if cards else "none"), tuple(reasons))


def _load_scorer(card: Card, checkpoint: Path | None, offline: bool) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {"checkpoint": checkpoint, "offline": offline, "device": device}
    return load_function(card)(**{name: given[name] for name in given if name in card.options})


def _identity(
    name: str,
    version: str = "",
    weights_sha256: str = "",
    code_sha256: str = "",
    attributes: str = "",
) -> dict[str, str]:
    return {
        "name": name,
        "version": version,
        "weights_sha256": weights_sha256,
        "code_sha256": code_sha256,
        "attributes": attributes,
    }
