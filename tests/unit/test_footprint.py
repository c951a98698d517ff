"""The memory estimate, part by part, against sums worked out by hand.

The small shape: 2 layers, hidden 4, intermediate 8, 2 heads, 10 words. Its tensors have
10·4 + 2·(4·8) = 104 scalars, so the weights are 416 bytes. One set of 3 texts, the longest of 5
tokens; a batch of 2 of them is 10 tokens.
"""

from __future__ import annotations

from typing import Any

import pytest

from unlearn_bench.methods.contract import EditData
from unlearn_bench.runs.footprint import (
    COMMENT_TOKENS,
    HOLES,
    HOLES_WITH_ADAPTER,
    PROCESS_BYTES,
    READ_TOKENS,
    Footprint,
    Shape,
    Texts,
    devices_needed,
    estimate_memory,
    estimate_recipe,
    kept_for_backward,
    measure_texts,
    trained_parameters,
)
from unlearn_bench.schema import Example, Pair
from unlearn_bench.training.likelihood import SHORT_TOKENS
from unlearn_bench.training.prepare import Recipe

SHAPE = Shape(
    layers=2,
    hidden=4,
    intermediate=8,
    heads=2,
    vocabulary=10,
    tensors={
        "model.embed_tokens.weight": (10, 4),
        "model.layers.0.mlp.down_proj.weight": (4, 8),
        "model.layers.1.mlp.down_proj.weight": (4, 8),
    },
)
WEIGHTS = 416
TEXTS = {"forget": Texts(3, 5)}
LOSS = {"kind": "loss", "needs": ("forget",), "targets": ("*",)}
DOWN = {**LOSS, "targets": ("*.down_proj.weight",)}
OPTIONS = {"lr": 0.1, "batch_size": 2, "epochs": 1, "max_tokens": 256}


def kept(facts: Any = LOSS, texts: Any = TEXTS, *, cuda: bool = False, **options: Any) -> float:
    return kept_for_backward(facts, {**OPTIONS, **options}, SHAPE, texts, cuda=cuda, bf16=False)


def estimate(facts: Any = LOSS, *, cuda: bool = False, bf16: bool = False, **options: Any) -> float:
    given = {**OPTIONS, **options}
    return estimate_memory(facts, given, SHAPE, TEXTS, cuda=cuda, bf16=bf16).total


def test_what_the_backward_pass_needs() -> None:
    """Per token and layer 10·4 + 4·8 = 72 numbers; plain attention adds 4 + 2·5 = 14. Two layers of
    10 tokens: 1720. Logits 10·10, and as many again for their gradient: 1920 numbers of 4 bytes.
    """
    assert kept() == 4 * (1720 + 200)


def test_long_texts_and_gpus_never_hold_attention_weights() -> None:
    """Without the 14: 1440 numbers and the logits."""
    assert kept(cuda=True) == 4 * (1440 + 200)
    long = {"forget": Texts(1, SHORT_TOKENS + 1)}
    tokens = SHORT_TOKENS + 1
    assert kept(texts=long, max_tokens=tokens) == 4 * tokens * (2 * 72 + 2 * 10)


def test_checkpointing_keeps_what_enters_a_layer_and_one_layer() -> None:
    """2·4 + 72 numbers per token."""
    assert kept(checkpointing=True) == 4 * (10 * 80 + 200)


def test_frozen_weights_keep_less() -> None:
    """3·4 fewer numbers per token and layer."""
    assert kept(lora=True, lora_rank=8) == 4 * (1720 - 240 + 200)


def test_every_set_of_a_loss_keeps_its_graph_and_the_largest_has_a_gradient_of_logits() -> None:
    """A second set with batches of 2·3 tokens: 82 numbers per token and layer (72 + 4 + 2·3): 984.
    And 60 of logits.
    """
    both = {**TEXTS, "retain": Texts(9, 3)}
    facts = {**LOSS, "needs": ("forget", "retain", "absent")}
    assert kept(facts, both) == 4 * (1720 + 200 + 984 + 60)
    assert kept({**facts, "kind": "edit"}, both, rank=4) == kept(rank=4)


def test_a_cap_on_tokens_and_a_small_set_bound_the_batch() -> None:
    assert kept(max_tokens=2) == 4 * 4 * (2 * (72 + 4 + 2 * 2) + 2 * 10)
    assert kept(batch_size=99) == pytest.approx(1.5 * kept())


def test_full_training_holds_weights_gradients_and_two_moments() -> None:
    assert estimate() == PROCESS_BYTES + 4 * WEIGHTS + HOLES * kept()
    assert estimate(optimizer="sgd") == PROCESS_BYTES + 2 * WEIGHTS + HOLES * kept()


def test_a_reference_is_a_second_model_unless_the_adapter_can_be_switched_off() -> None:
    facts = {**LOSS, "needs": ("forget", "reference")}
    assert estimate(facts) - estimate() == WEIGHTS
    assert estimate(facts, lora=True, lora_rank=2) == estimate(lora=True, lora_rank=2)


def test_an_adapter_trains_its_factors_only() -> None:
    """Rank 2 on two matrices of 4 × 8: 2·2·12 = 48 scalars; the table has none."""
    assert trained_parameters(LOSS, {"lora": True, "lora_rank": 2}, SHAPE) == 48
    expected = PROCESS_BYTES + WEIGHTS + 3 * 4 * 48
    assert estimate(lora=True, lora_rank=2) == pytest.approx(
        expected + HOLES_WITH_ADAPTER * kept(lora=True, lora_rank=2)
    )


def test_only_targets_have_gradients_and_moments() -> None:
    """64 of the 104 scalars; where the method trains one of the two layers, 32."""
    assert trained_parameters(DOWN, {}, SHAPE) == 64
    assert trained_parameters({**DOWN, "layers": 1}, {}, SHAPE) == 32


def test_a_gpu_has_no_process_and_no_holes_and_bf16_has_a_copy() -> None:
    assert estimate(cuda=True) == 4 * WEIGHTS + kept(cuda=True)
    copies = estimate(cuda=True, bf16=True)
    assert copies == 4 * WEIGHTS + WEIGHTS / 2 + kept(cuda=True) / 2


def test_an_edit_without_steps_reads_with_all_weights_or_writes_its_targets() -> None:
    reads = {"kind": "edit", "needs": ("forget",), "targets": ("*.down_proj.weight",)}
    reading = 4 * READ_TOKENS * (10 * 4 + 4 * 8)
    assert estimate_memory(reads, {}, SHAPE, TEXTS).total == PROCESS_BYTES + WEIGHTS + reading
    writes = {**reads, "needs": ()}
    # Two tensors of 32 scalars stay; one's change and new value come on top.
    assert estimate_memory(writes, {}, SHAPE, TEXTS).total == PROCESS_BYTES + 4 * 64 + 2 * 4 * 32
    assert estimate_memory(reads, {**OPTIONS, "epochs": 0}, SHAPE, TEXTS) == estimate_memory(
        reads, {}, SHAPE, TEXTS
    )


def test_texts_are_measured_with_prompt_and_longest_answer() -> None:
    """37 characters are 10 tokens, and one begins the text."""
    data = EditData(
        forget=(Example("a", "p" * 17, "x" * 20), Example("b", "p", "x")),
        toxic=("t" * 37,),
        pairs=(Pair("c", "q" * 17, safe="s", unsafe="u" * 20),),
    )
    assert measure_texts(vars(data)) == {
        "forget": Texts(2, 11),
        "toxic": Texts(1, 11),
        "pairs": Texts(1, 11),
    }


def test_gradients_without_a_learning_rate_have_no_moments_and_batches_are_filled() -> None:
    """All 3 texts fit into READ_TOKENS: 15 tokens of 2·86 numbers, 150 logits twice. 64 targets."""
    facts = {**DOWN, "kind": "edit", "gradients": True}
    expected = PROCESS_BYTES + WEIGHTS + 4 * 64 + HOLES * 4 * (2580 + 300)
    assert estimate_memory(facts, {}, SHAPE, TEXTS).total == pytest.approx(expected)
    closed = estimate_memory({**DOWN, "kind": "edit"}, {}, SHAPE, TEXTS)
    assert closed.total != pytest.approx(expected)
    long = {"forget": Texts(10_000, 8)}
    kept_full = kept_for_backward(facts, {}, SHAPE, long, cuda=False, bf16=False)
    assert kept_full == 4 * READ_TOKENS * (2 * (72 + 4 + 2 * 8) + 2 * 10)


def test_comments_are_cut_by_methods_with_adapters_of_their_own_and_other_texts_are_not() -> None:
    def own(name: str, length: int, **options: Any) -> float:
        facts, texts = {**LOSS, "needs": (name,)}, {name: Texts(1, length)}
        given = {"lr": 0.1, "batch_size": 1, "rank": 2, **options}
        return kept_for_backward(facts, given, SHAPE, texts, cuda=False, bf16=False)

    assert own("toxic", 100) == own("toxic", COMMENT_TOKENS) < own("forget", 100)
    assert own("toxic", 100, max_tokens=100) == own("forget", 100)


def test_the_recipe_reads_questions_biographies_and_anchors_beside_a_reference() -> None:
    """16 questions and 3 anchors of 11 tokens, 4 biographies of 21: 176, 33 and 84 tokens of
    2·(76 + 2·length) numbers and 10 logits, the questions' twice. The MLPs have 64 scalars.
    """
    sets = {
        "questions": [Example(str(i), "p" * 30, "x" * 7) for i in range(20)],
        "biographies": [Example(str(i), "", "b" * 74) for i in range(9)],
        "anchors": [Example(str(i), "", "c" * 37) for i in range(5)],
    }
    numbers = 176 * 2 * 98 + 33 * 2 * 98 + 84 * 2 * 118 + 10 * (176 + 33 + 84 + 176)
    expected = PROCESS_BYTES + 2 * WEIGHTS + 3 * 4 * 64 + HOLES * 4 * numbers
    assert estimate_recipe(sets, Recipe(), SHAPE).total == pytest.approx(expected)


def test_shards_share_weights_and_moments_and_each_device_has_its_own_reference_and_batch() -> None:
    """48 + 96 of weights and training, 32 of θ₀, 8 of a batch: 184, 112, 88, 76 on 1, 2, 3, 4."""
    need = Footprint(0.0, weights=48.0, reference=32.0, training=96.0, working=8.0)
    assert [need.on_each(devices) for devices in (1, 2, 3, 4)] == [184, 112, 88, 76]
    assert need.total == need.on_each(1)
    assert [devices_needed(need, size, 8) for size in (184, 183, 88, 76)] == [1, 2, 3, 4]
    assert devices_needed(need, 57, 8) is None  # with eight devices each has 58
    assert devices_needed(need, 58, 8) == 8


def test_a_full_training_of_8b_fits_no_card_and_with_a_reference_takes_more_cards() -> None:
    """As docs/gpu_and_cluster.md has it: 18 bytes a parameter, 22 with θ₀, 6 with an adapter."""
    eight = Shape(32, 4096, 14336, 32, 128_256, {"model.layers.0.mlp.weight": (1000, 8_030_000)})

    def need(*sets: str, **options: Any) -> Footprint:
        facts = {"kind": "loss", "needs": ("forget", *sets), "targets": ("*",)}
        given = {**OPTIONS, **options}
        return estimate_memory(facts, given, eight, TEXTS, cuda=True, bf16=True)

    own, beside = need(), need("reference")
    assert own.total - own.working == pytest.approx(18 * 8.03e9)
    assert beside.total - beside.working == pytest.approx(22 * 8.03e9)
    assert devices_needed(own, 72e9, 8) == 3  # 145 of weights and training
    assert devices_needed(beside, 72e9, 8) == 4  # of which 32 GB less on each are for them
    assert need("reference", lora=True, lora_rank=16).total < 72e9
