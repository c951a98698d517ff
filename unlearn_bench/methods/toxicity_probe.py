"""A linear toxicity probe on mean hidden states: Model Surgery's first step.

Source: Wang et al. 2024, arXiv:2407.08770. N texts, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.sampling import draw
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.training.batches import batches_by_length, pad_id_of
from unlearn_bench.training.precision import autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Variant = Literal["paper", "released"]
MAX_TOKENS = 100
HELD_OUT = 0.1
BATCH = 16


@dataclass(frozen=True)
class ProbeOptions:
    """How the probe is trained.

    variant: "paper" is equation 1, softmax(W·x̄) on a layer's own output. "released" is what the
    authors' code does instead: softmax(W·x̄ + b), and the last layer is read behind the model's
    final norm, where transformers' `hidden_states` ends. comments: at most so many of each kind.
    layer: counted from 0, or from the end if negative; None is the middle one, L // 2, and in the
    released form the last.
    """

    variant: Variant
    comments: int
    layer: int | None
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Probe:
    """A classifier over (clean, toxic). weight: (2, d) float32; row 1 means toxic.

    bias: (2,), None in the paper's form. layer: whose output it read, from 0. after_norm: behind
    the final norm. accuracy: on the held-out tenth; NaN when nothing could be held out.
    """

    variant: Variant
    weight: Tensor
    bias: Tensor | None
    accuracy: float
    trained_on: int
    held_out: int
    layer: int
    after_norm: bool

    @property
    def toxic(self) -> Tensor:
        """W[1], the toxic direction, not normalised. (d,)."""
        return self.weight[1]


def fit_probe(context: EditContext, options: ProbeOptions) -> Probe:
    """Read both kinds of comments with the model and train the probe on the mean hidden states.

    Raises MissingDataError without comments of both kinds.
    """
    clean, toxic = (
        draw([text for text in kind if text.strip()], options.comments, context.seed)
        for kind in (context.data.clean, context.data.toxic)
    )
    if not clean or not toxic:
        raise MissingDataError(
            "the probe needs toxic and clean comments, and there are none of one kind",
            next_step="name a folder that has toxic_comments/ with --data",
        )
    count = len(decoder_layers(context.model))
    layer = choose_layer(options, count)
    after_norm = options.variant == "released" and layer == count - 1
    features = mean_hidden_states(context, [*clean, *toxic], layer, after_norm=after_norm)
    labels = torch.tensor([0] * len(clean) + [1] * len(toxic))
    return train_probe(
        features, labels, options, layer=layer, after_norm=after_norm, seed=context.seed
    )


def choose_layer(options: ProbeOptions, count: int) -> int:
    """The layer to read, from 0, of `count`. Raises UsageError for one the model does not have."""
    if options.layer is None:
        return count - 1 if options.variant == "released" else count // 2
    if not -count <= options.layer < count:
        raise UsageError(f"layer {options.layer} of a model with {count} layers")
    return options.layer % count


@torch.no_grad()
def mean_hidden_states(
    context: EditContext, texts: Sequence[str], layer: int, *, after_norm: bool
) -> Tensor:
    """x̄ of every text: a layer's hidden state, mean over its real tokens. (N, d) float32, CPU.

    layer: from 0. after_norm: the state behind the final norm, which only the last layer has. Texts
    are cut at MAX_TOKENS and read in batches of similar length. No attention mask is passed: under
    causal attention no real token sees the padding on its right.
    """
    model, layers = context.model, decoder_layers(context.model)
    encoded = context.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    means = torch.empty(len(texts), model.config.get_text_config().hidden_size)
    pad, done = pad_id_of(context.tokenizer), 0
    device = model.device
    with autocast(device):
        for rows in batches_by_length([len(tokens) for tokens in encoded]):
            ids, real = pad_right([encoded[row] for row in rows], pad)
            if after_norm:
                hidden = model.base_model(
                    input_ids=ids.to(device), use_cache=False
                ).last_hidden_state
            else:
                hidden = _read_layer(model, layers[layer], ids.to(device))
            means[rows] = pool(hidden.float().cpu(), real)
            context.progress("reading comments", done := done + len(rows), len(texts))
    return means


class _Reached(Exception):  # noqa: N818  # no error: the layer to be read has been
    """Ends a forward pass; carries the hidden states."""


def _read_layer(model: PreTrainedModel, layer: nn.Module, ids: Tensor) -> Tensor:
    """The layer's output for ids (B, T). Returns (B, T, d). No layer above it is computed."""

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    with layer.register_forward_hook(leave):
        try:
            model.base_model(input_ids=ids, use_cache=False)
        except _Reached as reached:
            hidden: Tensor = reached.args[0]
            return hidden
    raise UsageError("the model's forward pass does not call its own layers")


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) int64 and which of them are real (B, T) bool."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    return ids, torch.arange(width) < lengths[:, None]


def pool(hidden: Tensor, real: Tensor) -> Tensor:
    """Mean of hidden (B, T, d) over the real tokens (B, T). Returns (B, d)."""
    weights = real[..., None].to(hidden.dtype)
    return hidden.mul(weights).sum(1) / weights.sum(1)


def train_probe(
    features: Tensor,
    labels: Tensor,
    options: ProbeOptions,
    *,
    layer: int,
    after_norm: bool,
    seed: int,
) -> Probe:
    """Minimise the probe's cross-entropy with Adam, batches of 16, on nine tenths of the texts.

    features: (N, d), read as `layer` and `after_norm` say. labels: (N,) int64, 1 = toxic. W and b
    start at zero: the problem is convex, and W[1] is then all learned direction; nn.Linear's random
    start has norm 0.58 at any d, as much as 600 comments teach, and never leaves the part common to
    both rows.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    held_out, train = order.tensor_split([int(HELD_OUT * len(labels))])
    weight = torch.zeros(2, features.shape[1], requires_grad=True)
    bias = torch.zeros(2, requires_grad=True) if options.variant == "released" else None
    learned = [weight] if bias is None else [weight, bias]
    optimizer = torch.optim.Adam(learned, lr=options.learning_rate)
    for _ in range(options.epochs):
        shuffled = train[torch.randperm(len(train), generator=generator)]
        for rows in torch.split(shuffled, BATCH):
            loss = cross_entropy(linear(features[rows], weight, bias), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        found = linear(features[held_out], weight, bias).argmax(-1)
        accuracy = float((found == labels[held_out]).float().mean())
    return Probe(
        options.variant,
        weight.detach(),
        None if bias is None else bias.detach(),
        accuracy,
        len(train),
        len(held_out),
        layer,
        after_norm,
    )
