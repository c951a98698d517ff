"""How much of a text a model holds: memorisation accuracy and extraction likelihood.

Source: Jang et al. 2022, arXiv:2210.01504, equations 1 to 3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlearn_bench.schema import Example
from unlearn_bench.training.batches import (
    Encoded,
    batches_by_length,
    collate,
    encode,
    pad_id_of,
)
from unlearn_bench.training.likelihood import answer_logits, answer_rows, answer_targets
from unlearn_bench.training.precision import autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEW_TOKENS = 8  # length of a continuation


@dataclass(frozen=True)
class Memorization:
    """Means over texts, both in [0, 1]; NaN without a text long enough to tell."""

    extraction_likelihood: float
    accuracy: float

    def within(self, unseen: Memorization) -> bool:
        """Whether both are at or below those of unseen text; never where one is NaN."""
        return (
            self.extraction_likelihood <= unseen.extraction_likelihood
            and self.accuracy <= unseen.accuracy
        )


@torch.no_grad()
def measure_memorization(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    count: int,
    ngram: int,
    seed: int,
) -> Memorization:
    """Measure on at most `count` of the examples, the same ones for the same seed.

    Prefixes always hold the prompt; only answer tokens, the end token among them, are to be
    recalled. The model is left in the mode it was in.
    """
    rng = random.Random(f"{seed} memorization")  # noqa: S311  # repeatable on purpose
    chosen = rng.sample(list(examples), min(count, len(examples)))
    rows = encode(tokenizer, chosen)
    pad_id, was_training = pad_id_of(tokenizer), model.training
    model.eval()
    try:
        with autocast(model.device):
            accuracy = _accuracy(model, rows, pad_id)
            extraction = _extraction(model, rows, ngram, pad_id)
    finally:
        model.train(was_training)
    return Memorization(extraction, accuracy)


def _accuracy(model: PreTrainedModel, rows: Sequence[Encoded], pad_id: int) -> float:
    """Share of each answer's tokens that are the model's first choice, mean over texts."""
    shares: list[Tensor] = []
    for indices in batches_by_length([len(row.tokens) for row in rows]):
        batch = collate([rows[i] for i in indices], pad_id).to(model.device)
        right = (answer_logits(model, batch).argmax(-1) == answer_targets(batch)).float()
        of_row = answer_rows(batch)
        hits = right.new_zeros(len(indices)).index_add(0, of_row, right)
        shares.append(hits / torch.bincount(of_row, minlength=len(indices)))
    return float(torch.cat(shares).mean()) if shares else math.nan


def _extraction(model: PreTrainedModel, rows: Sequence[Encoded], ngram: int, pad_id: int) -> float:
    """Mean n-gram overlap of greedy continuations with the true ones, over prefixes and texts."""
    prefixes: list[tuple[int, ...]] = []
    suffixes: list[tuple[int, ...]] = []
    weights: list[float] = []
    for row in rows:
        cuts = choose_cuts(max(row.answer_start, 1), len(row.tokens) - ngram)
        prefixes += [row.tokens[:cut] for cut in cuts]
        suffixes += [row.tokens[cut:] for cut in cuts]
        weights += [1 / len(cuts)] * len(cuts)
    if not prefixes:
        return math.nan
    found: dict[int, list[int]] = {}
    for indices in batches_by_length([len(prefix) + NEW_TOKENS for prefix in prefixes]):
        texts = _continue_greedily(model, [prefixes[i] for i in indices], pad_id)
        found.update(zip(indices, texts, strict=True))
    overlaps = [
        weights[i] * ngram_overlap(new[: len(suffixes[i])], suffixes[i], ngram)
        for i, new in sorted(found.items())
    ]
    return sum(overlaps) / sum(weights)


def choose_cuts(first: int, last: int) -> list[int]:
    """The first and the last position, where the paper tries every one; none when last < first."""
    return sorted({first, last}) if last >= first else []


def ngram_overlap(found: Sequence[int], true: Sequence[int], n: int) -> float:
    """Share of the n-grams of `found` that occur in `true`; 0 when `found` has none."""
    wanted = {tuple(true[i : i + n]) for i in range(len(true) - n + 1)}
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return sum(gram in wanted for gram in grams) / len(grams) if grams else 0.0


def _continue_greedily(
    model: PreTrainedModel, prefixes: Sequence[tuple[int, ...]], pad_id: int
) -> list[list[int]]:
    """NEW_TOKENS greedy tokens after each prefix, the end token treated like any other."""
    width = max(map(len, prefixes))
    ids = torch.full((len(prefixes), width), pad_id, device=model.device)
    mask = torch.zeros_like(ids)
    for i, prefix in enumerate(prefixes):
        ids[i, width - len(prefix) :] = torch.tensor(prefix)
        mask[i, width - len(prefix) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, new = None, []
    for _ in range(NEW_TOKENS):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
        new.append(ids)
    tokens: Tensor = torch.cat(new, dim=1)
    return [list(map(int, row)) for row in tokens.tolist()]
