"""The run's scorer: the one asked for or the first that loads, and the identity rows carry.

Beside it there may be a second one, whose verdicts are compared with the first one's.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.models.load import load_model
from unlearn_bench.models.minilm import fetch_minilm
from unlearn_bench.models.open import open_model
from unlearn_bench.protocols.catalog import HARM, Protocol
from unlearn_bench.protocols.scoring import attributes_of
from unlearn_bench.registry import Card, find_card, list_cards, load_function
from unlearn_bench.runs.provenance import PACKAGE, code_sha256
from unlearn_bench.schema import ItemScore
from unlearn_bench.scorers.guard import Guard, open_guard
from unlearn_bench.training.precision import default_device, supports_bf16

GUARD, NONE = "guard", "none"  # what a judge is called that is, or has beside it, a guard; and none
AUTO_SCORERS = ("embedded", "profanity_check")  # in the order of docs/design/scorers.md's study


@dataclasses.dataclass(frozen=True)
class Judge:
    """A loaded scorer, or why there is none, with the identity that rows carry. guard: beside it, a
    model that judges answers to requests, if one was asked for.
    """

    scorer: Any
    identity: dict[str, str]
    notes: tuple[str, ...] = ()
    guard: Any = None


def scorer_names(asked: str) -> tuple[str, ...]:
    """`auto`, a scorer, or two with a comma between them. Raises UsageError for anything else."""
    names = tuple(name.strip() for name in asked.split(","))
    if len(names) > 2 or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"--scorer {asked!r} is not one scorer, and not two different ones",
            next_step="give it as --scorer detoxify, or --scorer detoxify,profanity_check",
        )
    return names


def scorer_candidates(name: str, checkpoint: Path | None = None) -> list[Card]:
    """Cards to try in turn: the one asked for, or for `auto` the best measured and its stand-in.

    checkpoint: what was given for a scorer; `auto` then begins with detoxify, whose it can be.
    """
    if name != "auto":
        return [find_card("scorer", name)]
    known = list_cards("scorer")
    wanted = ("detoxify", *AUTO_SCORERS) if checkpoint else AUTO_SCORERS
    return [known[name] for name in wanted if name in known]


def load_judges(
    asked: Sequence[Sequence[Card]],
    checkpoint: Path | None,
    protocols: Mapping[str, Protocol],
    offline: bool,
) -> tuple[Judge, Judge | None]:
    """The run's judge, and the second where two were asked for. asked: each one's candidates.

    checkpoint: of the first of them that takes one. Raises UsageError when `auto` found the very
    scorer that stands beside it.
    """
    own, *others = asked
    judge = load_judge(own, checkpoint, protocols, offline)
    if not others:
        return judge, None
    taken = any("checkpoint" in card.options for card in own)
    second = load_judge(others[0], None if taken else checkpoint, protocols, offline)
    if second.scorer is not None and second.identity == judge.identity:
        raise UsageError(
            f"both scorers are {judge.identity['name']}: agreement with itself says nothing",
            next_step="name two different scorers; unlearn-bench list scorers",
        )
    return judge, second


def load_judge(
    cards: Sequence[Card],
    checkpoint: Path | None,
    protocols: Mapping[str, Protocol],
    offline: bool,
) -> Judge:
    """The first scorer that loads. None loads: no judge, so its values will be missing."""
    if not any(protocol.judged for protocol in protocols.values()):
        return Judge(None, _identity(NONE))
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
            code_sha256([card.file]),
            " ".join(attributes_of(scorer)),
        )
        return Judge(scorer, identity, tuple(reasons))
    reasons.append("no scorer: toxicity will be missing and the run incomplete")
    return Judge(None, _identity(cards[0].name if cards else NONE), tuple(reasons))


def load_guard(spec: str, *, offline: bool) -> Guard:
    """The guard model called `spec`, as any model is. Raises UnlearnBenchError, ScorerError for a
    model that is no guard.
    """
    import torch

    opened = open_model(spec, offline=offline)
    device = default_device()
    dtype = "bfloat16" if supports_bf16(torch.device(device)) else "float32"
    model, tokenizer = load_model(opened.folder, dtype=dtype, device=device)
    version = f"{opened.label}@{opened.revision[:12]}" if opened.revision else opened.label
    return open_guard(
        model,
        tokenizer,
        version=f"{version}+transformers-{metadata.version('transformers')}+{dtype}",
        weights_sha256=opened.fingerprint.removeprefix("sha256:"),
    )


def with_guard(judge: Judge, guard: Guard) -> Judge:
    """Both as one judge, whose identity is of both: it tells harm beside what the scorer tells."""
    own = judge.identity
    parts = {
        "version": guard.version,
        "weights_sha256": guard.weights_sha256,
        "code_sha256": code_sha256([PACKAGE / "scorers" / "guard.py"]),
    }
    identity = {
        "name": GUARD if own["name"] == NONE else f"{own['name']}+{GUARD}",
        "version": "; ".join(filter(None, (own["version"], parts["version"]))),
        **{
            name: hashlib.sha256(f"{own[name]} {parts[name]}".encode()).hexdigest()
            for name in ("weights_sha256", "code_sha256")
        },
        "attributes": " ".join(filter(None, (own["attributes"], HARM))),
    }
    return dataclasses.replace(judge, identity=identity, guard=guard)


def without_guard(name: str) -> str:
    """The scorer's own name, of a judge's that may have a guard beside it."""
    return NONE if name == GUARD else name.removesuffix(f"+{GUARD}")


def judged_items(protocols: Mapping[str, Protocol], items: Sequence[ItemScore]) -> list[ItemScore]:
    """Those of metrics that a scorer judges."""
    return [item for item in items if protocols[item.task].metrics[item.metric].judge]


def _load_scorer(card: Card, checkpoint: Path | None, offline: bool) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {
        "checkpoint": checkpoint,
        "offline": offline,
        "device": device,
        "encoder": functools.partial(fetch_minilm, offline=offline),
    }
    return load_function(card)(**{name: given[name] for name in given if name in card.options})


def _identity(
    name: str,
    version: str = "",
    weights_sha256: str = "",
    code: str = "",
    attributes: str = "",
) -> dict[str, str]:
    return {
        "name": name,
        "version": version,
        "weights_sha256": weights_sha256,
        "code_sha256": code,
        "attributes": attributes,
    }
