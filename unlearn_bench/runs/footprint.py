"""How much memory an edit will take at its peak, from what is known of it before it runs.

    process + weights + reference + gradients + moments + HOLES · kept for the backward pass

The parts are in bytes and explained where they are computed. On a GPU there is no process, and
nothing is lost to holes. How far the figures are off: docs/training.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.models.fingerprint import stored_tensors
from unlearn_bench.schema import Pair
from unlearn_bench.training.likelihood import SHORT_TOKENS

if TYPE_CHECKING:
    from unlearn_bench.training.prepare import Recipe

PROCESS_BYTES = 0.62e9  # interpreter and libraries
ENGINE_BYTES = 2.0e9  # what vLLM, and the likelihoods' model before it, keep beside an edit
# Freed blocks that the C library cannot use again (runs/memory.py). An adapter's small results lie
# between large ones that come and go.
HOLES, HOLES_WITH_ADAPTER = 1.2, 1.75
FP32, BF16 = 4, 2
CHARACTERS_PER_TOKEN = 3.7  # of our facts; ordinary prose has more, invented names have fewer
COMMENTS, COMMENT_TOKENS = ("toxic", "clean"), 64  # cut there by methods with their own adapters
READ_TOKENS = 2048  # of one forward pass where nothing is trained


@dataclass(frozen=True)
class Shape:
    """What memory depends on in a decoder. tensors: shapes by name, tied ones once."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """Scalars that are stored."""
        return sum(math.prod(shape) for shape in self.tensors.values())


@dataclass(frozen=True)
class Texts:
    """One set as memory sees it: how many texts, and how many tokens the longest has."""

    count: int
    longest: int


@dataclass(frozen=True)
class Footprint:
    """Peak bytes of an edit by what they are for. process: of main memory, whatever is edited.

    weights: with their copy for bf16 activations; reference: θ₀; training: gradients and moments;
    working: what is read, kept for the backward pass or written.
    """

    process: float
    weights: float
    reference: float = 0.0
    training: float = 0.0
    working: float = 0.0

    @property
    def total(self) -> float:
        """All of it, in one place."""
        return self.process + self.weights + self.reference + self.training + self.working

    def on_each(self, devices: int) -> float:
        """Of so many devices that share a training by FSDP: weights, gradients and moments are
        spread, θ₀ is whole on each, and each has batches of its own (docs/training.md).
        """
        return self.reference + self.working + (self.weights + self.training) / devices


def devices_needed(need: Footprint, device_bytes: float, most: int) -> int | None:
    """The fewest devices of this size, up to `most`, that a training can be spread over; None where
    no number of them is enough.
    """
    enough = (n for n in range(1, most + 1) if need.on_each(n) <= device_bytes)
    return next(enough, None)


def read_shape(folder: Path) -> Shape:
    """The shape of a model folder, from its configuration and the headers of its weights."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        tensors={tensor.name: tensor.shape for tensor in stored_tensors(folder)},
    )


def measure_texts(sets: Mapping[str, Any]) -> dict[str, Texts]:
    """Every set that is not empty; lengths from characters, since no tokenizer is open yet.

    sets: by name, the fields of an `EditData` or those of a `Recipe`.
    """
    found = {}
    for name, texts in sets.items():
        if name == "origins" or not texts:
            continue
        longest = max(
            len(text) if isinstance(text, str)
            else len(text.prompt) + max(len(text.safe), len(text.unsafe)) if isinstance(text, Pair)
            else len(text.prompt) + len(text.answer)
            for text in texts
        )  # fmt: skip
        found[name] = Texts(len(texts), math.ceil(longest / CHARACTERS_PER_TOKEN) + 1)
    return found


def estimate_memory(
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    shape: Shape,
    texts: Mapping[str, Texts],
    *,
    cuda: bool = False,
    bf16: bool = False,
) -> Footprint:
    """Peak bytes of an edit. facts: the decorator's; options: as resolved; texts: by set.

    weights: 4 per parameter, on a CPU only of what is read or written, since a model is loaded by
    mapping its file; bf16 adds a copy of 2. reference: as much again, unless the adapter is
    switched off or the method has no use for θ₀. bf16: whether activations are.
    """
    weights = float(FP32 * shape.parameters)
    needs = facts.get("needs", ())
    process = 0.0 if cuda else PROCESS_BYTES
    if not (is_trained(options) or facts.get("gradients")):
        reads = bool(set(needs) & texts.keys())
        whole = weights if cuda or reads else float(FP32 * targeted(facts, shape))
        working = _reading(shape) if reads else _writing(facts, shape)
        return Footprint(process, whole, working=working)
    trained = trained_parameters(facts, options, shape)
    moments = 2 * FP32 * trained if is_trained(options) else 0.0
    if options.get("optimizer") == "sgd":
        moments = 0.0
    kept = kept_for_backward(facts, options, shape, texts, cuda=cuda, bf16=bf16)
    if not cuda:
        kept *= HOLES_WITH_ADAPTER if adapter_rank(options) else HOLES
    return Footprint(
        process,
        weights + (BF16 * shape.parameters if bf16 else 0.0),
        reference=weights if "reference" in needs and not options.get("lora") else 0.0,
        training=FP32 * trained + moments,
        working=kept,
    )


def estimate_recipe(
    sets: Mapping[str, Any], recipe: Recipe, shape: Shape, *, cuda: bool = False, bf16: bool = False
) -> Footprint:
    """Peak bytes of training a target by its recipe, for methods that do it again.

    sets: those of `Recipe.sets`.
    """
    rows = recipe.batch_sizes()
    texts = {
        name: Texts(min(own.count, rows.get(name, own.count)), own.longest)
        for name, own in measure_texts(sets).items()
    }
    facts = {"kind": "loss", "needs": (*texts, "reference"), "targets": ("*.mlp.*",)}
    options = recipe.training(shape.hidden).model_dump()
    return estimate_memory(facts, options, shape, texts, cuda=cuda, bf16=bf16)


def is_trained(options: Mapping[str, Any]) -> bool:
    """Whether an edit with these options takes gradient steps on batches."""
    return "lr" in options and options.get("steps") != 0 and options.get("epochs") != 0


def adapter_rank(options: Mapping[str, Any]) -> int:
    """Rank of the low-rank factors that are trained in place of whole matrices; 0 without any."""
    return int((options.get("lora_rank") if options.get("lora") else options.get("rank")) or 0)


def trained_parameters(facts: Mapping[str, Any], options: Mapping[str, Any], shape: Shape) -> float:
    """Scalars that have a gradient: the targets', or the factors of rank r of every linear one.

    Where the method trains fewer layers than its targets name, it says so (`layers`).
    """
    share = float(facts.get("layers", shape.layers)) / shape.layers
    if not (rank := adapter_rank(options)):
        return share * targeted(facts, shape)
    linear = [s for n, s in _targets(facts, shape).items() if len(s) == 2 and "layers." in n]
    return share * rank * sum(sum(size) for size in linear)


def targeted(facts: Mapping[str, Any], shape: Shape) -> int:
    """Scalars of all tensors that the method may change."""
    return sum(math.prod(size) for size in _targets(facts, shape).values())


def _targets(facts: Mapping[str, Any], shape: Shape) -> dict[str, tuple[int, ...]]:
    patterns = facts.get("targets", ())
    return {
        name: size
        for name, size in shape.tensors.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def kept_for_backward(
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    shape: Shape,
    texts: Mapping[str, Texts],
    *,
    cuda: bool,
    bf16: bool,
) -> float:
    """Bytes that the forward passes of one loss leave for its backward pass.

    A loss makes one pass for each set that the method reads, an edit's for at most two, and for
    one where it trains adapters of its own or fills its batches by tokens; their graphs live until
    the backward pass. Per
    token a layer keeps the residual stream, its norm and the scaled norm, before attention and
    before the MLP (6d), q, k and v as the product takes them and its result (4d), gate, its
    nonlinearity, up and their product (4f); plain attention one more d and its weights
    (heads·length). Frozen weights need no norms and no v (−3d). With checkpointing a layer
    keeps d, and one at a time has the rest. The output layer adds logits for every token, and a
    gradient of the largest set's.
    """
    batches = sorted(_batches(facts, options, texts), key=math.prod, reverse=True)
    if facts.get("kind") != "loss":
        batches = batches[: 1 if "rank" in options or "batch_size" not in options else 2]
    size, checkpointing = BF16 if bf16 else FP32, bool(options.get("checkpointing"))
    total = largest = 0.0
    for rows, length in batches:
        tokens = rows * length
        layer = 10 * shape.hidden + 4 * shape.intermediate
        if not (cuda or checkpointing) and length <= SHORT_TOKENS:
            layer += shape.hidden + shape.heads * length
        if adapter_rank(options):
            layer -= 3 * shape.hidden
        layers = facts.get("layers", shape.layers)
        numbers = layers * shape.hidden + layer if checkpointing else layers * layer
        logits = tokens * shape.vocabulary * size
        total += tokens * numbers * size + logits
        largest = max(largest, logits)
    return total + largest


def _batches(
    facts: Mapping[str, Any], options: Mapping[str, Any], texts: Mapping[str, Texts]
) -> list[tuple[int, int]]:
    """Rows and length of the longest batch of every set that the method reads.

    Without a batch size they are filled up to READ_TOKENS.
    """
    found = []
    for name in facts.get("needs", ()):
        if name in texts:
            cut = COMMENT_TOKENS if name in COMMENTS else math.inf
            length = int(min(texts[name].longest, options.get("max_tokens") or cut))
            rows = options.get("batch_size") or max(1, READ_TOKENS // length)
            found.append((min(rows, texts[name].count), length))
    return found


def _reading(shape: Shape) -> float:
    """Bytes of a forward pass without gradients: those of one layer."""
    return FP32 * READ_TOKENS * (10 * shape.hidden + 4 * shape.intermediate)


def _writing(facts: Mapping[str, Any], shape: Shape) -> float:
    """Bytes of the largest target's change and of its new value."""
    sizes = [math.prod(size) for size in _targets(facts, shape).values()]
    return 2.0 * FP32 * max(sizes, default=0)
