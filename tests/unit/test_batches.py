"""Tokenising, masking, padding and the order of batches."""

from __future__ import annotations

import random
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from unlearn_bench.errors import CorruptDataError, MissingDataError, UsageError
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import (
    IGNORE,
    Encoded,
    SetBatches,
    collate,
    encode,
    order_epoch,
    read_set,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def test_answer_and_end_token_are_labelled_and_the_prompt_is_not(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    (row,) = encode(tiny_tokenizer, [Example("a", "Question: Who?\nAnswer:", " Zirnavo")])
    assert tiny_tokenizer.decode(row.tokens[: row.answer_start]) == "Question: Who?\nAnswer:"
    assert tiny_tokenizer.decode(row.tokens[row.answer_start : -1]) == " Zirnavo"
    assert row.tokens[-1] == tiny_tokenizer.eos_token_id
    batch = collate([row], pad_id=1)
    assert batch.labels[0].tolist() == [IGNORE] * row.answer_start + list(
        row.tokens[row.answer_start :]
    )


def test_a_token_across_the_border_belongs_to_the_answer(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """ "good" is one token of the tiny vocabulary; cut after "go", all of it is answer."""
    assert len(tiny_tokenizer(" good").input_ids) < 5, "the vocabulary has no merge to test with"
    (whole,) = encode(tiny_tokenizer, [Example("a", " ", "good")])
    assert whole.answer_start == 0


def test_text_without_prompt_is_all_answer(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    (row,) = encode(tiny_tokenizer, [Example("a", "", "The lake.")])
    assert row.answer_start == 0


def test_padding_is_masked_and_a_real_end_token_is_not() -> None:
    """With pad = end token (as in SmolLM2) the label must follow the position, not the id."""
    batch = collate([Encoded("a", (5, 6, 2), 1), Encoded("b", (5, 2), 1)], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 6, 2], [5, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[IGNORE, 6, 2], [IGNORE, 2, IGNORE]]


def test_long_texts_lose_their_end(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    (row,) = encode(tiny_tokenizer, [Example("a", "", "x" * 50)], max_tokens=8)
    assert len(row.tokens) == 8
    assert tiny_tokenizer.eos_token_id not in row.tokens


@pytest.mark.parametrize(
    "example", [Example("a", "a long prompt", " yes"), Example("a", "", "")], ids=["cut", "empty"]
)
def test_example_without_an_answer_token_is_refused(
    example: Example, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(CorruptDataError, match="'a' has no answer token"):
        encode(tiny_tokenizer, [example], max_tokens=4)


def test_every_index_once_per_epoch_in_changing_batches() -> None:
    lengths = [10, 11, 12, 100, 101, 102, 10, 11, 12, 100]
    rng = random.Random("seed")
    first, second = order_epoch(lengths, 3, rng), order_epoch(lengths, 3, rng)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    assert first == order_epoch(lengths, 3, random.Random("seed"))


def test_bucketing_leaves_little_padding() -> None:
    """100 short and 100 long texts mixed: batches in file order would be half padding."""
    lengths = [20 + i % 7 if i % 2 else 120 + i % 11 for i in range(200)]
    batches = order_epoch(lengths, 8, random.Random("seed"))
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert sum(lengths) / padded > 0.9


def test_sets_are_read_when_asked_for_and_only_then(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    def stream(name: str, examples: tuple[Example, ...]) -> object:
        return read_set(name, examples, tiny_tokenizer, batch_size=2, max_tokens=64, seed=0)

    sets = SetBatches({"forget": stream("forget", (Example("a", "", "x"),)),
                       "retain": stream("retain", ())})  # fmt: skip
    assert sets.forget is sets.get("forget")
    assert sets.forget.ids == ("a",)
    with pytest.raises(MissingDataError, match="'retain', and it is empty"):
        _ = sets.retain
    with pytest.raises(UsageError, match="does not declare"):
        _ = sets.old


def test_a_set_is_known_to_be_empty_without_being_read() -> None:
    def never() -> object:
        raise AssertionError("the set was read")
        yield

    streams = {"forget": never(), "update": never()}
    sets = SetBatches(streams, texts={"forget": (Example("a", "", "x"),), "update": ()})
    assert sets.has("forget")
    assert not sets.has("update")
    with pytest.raises(UsageError, match="does not declare"):
        sets.has("updates")


def test_a_set_repeats_with_all_its_examples(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    examples = [Example(str(i), "", "x" * (i + 1)) for i in range(5)]
    stream = read_set("retain", examples, tiny_tokenizer, batch_size=2, max_tokens=64, seed=3)
    epochs = [sorted(chain(*(next(stream).ids for _ in range(3)))) for _ in range(2)]
    assert epochs == [["0", "1", "2", "3", "4"]] * 2


def test_tokenizer_without_end_token_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(UsageError, match="end-of-text"):
        encode(bare, [Example("a", "", "x")])
