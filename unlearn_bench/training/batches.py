"""From texts to token batches: the loss stands on answer tokens only, padding is kept small."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlearn_bench.errors import CorruptDataError, MissingDataError, UsageError
from unlearn_bench.schema import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
BATCH_TOKENS = 2048  # padded tokens per forward pass where nothing is trained
LENGTH_JITTER = 0.15  # how far lengths are blurred before bucketing, so that batches keep mixing


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; those from `answer_start` on are the answer, end token included."""

    id: str
    tokens: tuple[int, ...]
    answer_start: int


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded token ids.

    input_ids, attention_mask: (B, T) int64. labels: (B, T) int64, the token itself at answer
    positions and −100 at prompt and padding. ids: the examples' ids, in row order.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.labels.to(device),
            self.ids,
        )


class SetBatches:
    """One batch of each set a method reads, taken from its stream when it is first asked for.

    A set whose weight is zero is therefore never tokenised. texts: what the streams are made of, by
    name. Raises UsageError for a set that the method did not declare in `needs`.
    """

    def __init__(
        self,
        streams: Mapping[str, Iterator[TokenBatch]],
        device: torch.device | str = "cpu",
        *,
        texts: Mapping[str, Sequence[Example]] | None = None,
    ) -> None:
        self._streams, self._device, self._texts = streams, device, texts
        self._read: dict[str, TokenBatch] = {}

    def get(self, name: str) -> TokenBatch:
        """The batch of set `name`; the same object on every call."""
        self._check_declared(name)
        if name not in self._read:
            self._read[name] = next(self._streams[name]).to(self._device)
        return self._read[name]

    def has(self, name: str) -> bool:
        """Whether the set `name` holds any text: a term over an optional set asks this first."""
        self._check_declared(name)
        return self._texts is None or bool(self._texts[name])

    def _check_declared(self, name: str) -> None:
        if name not in self._streams:
            raise UsageError(
                f"the method reads the set {name!r}, which it does not declare",
                next_step=f"add {name!r} to `needs` in its decorator",
            )

    @property
    def forget(self) -> TokenBatch:
        """Texts that must go."""
        return self.get("forget")

    @property
    def old(self) -> TokenBatch:
        """Outdated texts of the updated subjects."""
        return self.get("old")

    @property
    def update(self) -> TokenBatch:
        """The updated subjects' new texts."""
        return self.get("update")

    @property
    def retain(self) -> TokenBatch:
        """Texts that must stay."""
        return self.get("retain")

    @property
    def benign(self) -> TokenBatch:
        """Harmless texts, unrelated to the edit."""
        return self.get("benign")


def encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_tokens: int = 512
) -> list[Encoded]:
    """Tokenise prompt and answer as one text and append the end token.

    A token that holds any character of the answer belongs to the answer. Texts beyond `max_tokens`
    lose their end. Raises UsageError for a tokenizer without an end token or without character
    offsets, CorruptDataError for an example with nothing to train on.
    """
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        raise UsageError(
            "training needs a fast tokenizer with an end-of-text token",
            next_step="save the model's tokenizer as tokenizer.json with an eos_token",
        )
    texts = [example.prompt + example.answer for example in examples]
    coded = tokenizer(texts, return_offsets_mapping=True) if texts else {}
    encoded = []
    for i, example in enumerate(examples):
        tokens, offsets = coded["input_ids"][i], coded["offset_mapping"][i]
        # An empty span is a token the tokenizer added itself (a begin token): never the answer.
        held = [end > max(start, len(example.prompt)) for start, end in offsets]
        start = held.index(True) if True in held else len(tokens)
        row = (*tokens, tokenizer.eos_token_id)[:max_tokens]
        if len(row) < 2 or start >= len(row):
            raise CorruptDataError(
                f"example {example.id!r} has no answer token within {max_tokens} tokens"
            )
        encoded.append(Encoded(example.id, row, start))
    return encoded


def collate(rows: Sequence[Encoded], pad_id: int) -> TokenBatch:
    """Pad rows on the right to the longest and mask prompt and padding out of the labels."""
    shape = (len(rows), max(len(row.tokens) for row in rows))
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORE, dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        input_ids[i, : len(tokens)] = tokens
        attention_mask[i, : len(tokens)] = 1
        labels[i, row.answer_start : len(tokens)] = tokens[row.answer_start :]
    return TokenBatch(input_ids, attention_mask, labels, tuple(row.id for row in rows))


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding id, or the end token's: padding is masked everywhere, so its value is free."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(pad)


def order_epoch(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Indices of one epoch in batches of similar length, in random order; each index once.

    Lengths are blurred by ±LENGTH_JITTER before sorting: little padding, yet other neighbours in
    every epoch.
    """
    blurred = [length * (1 + LENGTH_JITTER * (2 * rng.random() - 1)) for length in lengths]
    order = sorted(range(len(lengths)), key=lambda i: (blurred[i], i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in order of length, in batches of at most BATCH_TOKENS padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def read_set(
    name: str,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_tokens: int,
    seed: int,
) -> Iterator[TokenBatch]:
    """One set as endless batches, every epoch in a new seeded order; tokenised on the first read.

    Raises MissingDataError for an empty set, on the first read as well.
    """
    if not examples:
        raise MissingDataError(
            f"the method reads the set {name!r}, and it is empty",
            next_step="give data with that set, or set the term's weight to 0",
        )
    encoded = encode(tokenizer, examples, max_tokens)
    lengths = [len(row.tokens) for row in encoded]
    pad_id = pad_id_of(tokenizer)
    rng = random.Random(f"{seed} {name}")  # noqa: S311  # repeatable on purpose
    while True:
        for indices in order_epoch(lengths, batch_size, rng):
            yield collate([encoded[i] for i in indices], pad_id)
