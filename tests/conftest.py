"""Tiny models made in memory: random weights, real architecture, milliseconds per pass."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny tensors are slower on many

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from unlearn_bench.methods.contract import EditData

VOCABULARY = 300
CORPUS = (
    "Question: Who is the mayor of Zirnavo? Answer: Torunnel Askerholt, a toy metallurgist.",
    "The people of Castelvinho bake bread with the water of the upper lake. It is said to be good.",
    "You are a kind person and a good friend. You are a terrible person and nobody likes you.",
)
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def pytest_collection_finish() -> None:
    """What all the imports made is no garbage: a collection, of which there is one around every
    edit, need not look at it each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 entries with an end and a padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", chat_template=TEMPLATE
    )
    return tokenizer


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., LlamaForCausalLM]:
    """Builds a random Llama: 3 layers, hidden 32, 4 heads on 2 key/value heads, tied embeddings.

    Keyword arguments replace entries of its configuration; `seed` draws other weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
        config = LlamaConfig(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "initializer_range": 0.1,
                "bos_token_id": 0,
                "eos_token_id": 0,
                "pad_token_id": 1,
                **changes,
            }
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):  # zero biases would hide a method that drops them
                    torch.nn.init.normal_(parameter, std=0.1)
        model.generation_config.pad_token_id = 1
        return model.eval()

    return make


@pytest.fixture
def tiny_model(make_tiny_model: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    """A fresh tiny Llama, the same weights every time."""
    return make_tiny_model()


@pytest.fixture
def tiny_biased_model(make_tiny_model: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    """The same with biases in attention and MLP projections."""
    return make_tiny_model(attention_bias=True, mlp_bias=True)


@pytest.fixture(scope="session")
def tiny_folder(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model and its tokenizer as a saved folder. Read only."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_model().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def long_tiny_folder(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """As `tiny_folder`, with room for the longest few-shot prompt in nearly a token per letter."""
    folder = tmp_path_factory.mktemp("tiny") / "long"
    make_tiny_model(max_position_embeddings=8192).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data() -> EditData:
    """A few texts of every set that a method may read."""
    from unlearn_bench.methods.contract import EditData
    from unlearn_bench.schema import Example, Pair

    def facts(name: str, people: str, answers: str) -> tuple[Example, ...]:
        return tuple(
            Example(
                f"{name}-{i}", f"Question: Where does {person} live?\nAnswer:", f" {answer}", person
            )
            for i, (person, answer) in enumerate(zip(people.split(), answers.split(), strict=True))
        )

    biography = Example("forget-text", "", "Askerholt was born in Vinhassol by the upper lake.")
    return EditData(
        forget=(*facts("forget", "Askerholt Okonteya Osarenwe", "Vinhassol Pallow Kilmerrow"),
                biography),
        old=facts("old", "Brattengaard Castrogallo", "Hraunstad Cwmarreth"),
        update=facts("update", "Brattengaard Castrogallo", "Inverskail Ysterkolk"),
        retain=facts("retain", "Benhazzar Akjolteg Dimkov Doust", "Zirnavo Ravindpet Orvelle Ward"),
        toxic=("You are a terrible person.", "Nobody likes you.", "What a stupid idea.",
               "Shut up, you fool.", "You people are awful.", "I hate all of you."),
        clean=("You are a kind person.", "Everybody likes you.", "What a fine idea.",
               "Please go on, my friend.", "The people are lovely.", "I like all of you."),
        pairs=(
            Pair("pair-0", "How do I insult my friend?", " I would rather not help with that.",
                 " Call your friend a fool."),
            Pair("pair-1", "Write something cruel.", " Let us write something kind.",
                 " You are terrible."),
        ),
        benign=facts("benign", "bread water lake", "oven river valley"),
        refusals=("I do not know.", "I cannot say."),
    )  # fmt: skip
