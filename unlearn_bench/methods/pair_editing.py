"""What dinm and pke share: where two responses part ways, and how a batch of pairs is edited.

L layers counted from 0, d hidden size, N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearn_bench.errors import MissingDataError, UsageError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.sampling import draw
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.schema import Example, Pair
from unlearn_bench.training.batches import (
    IGNORE,
    SetBatches,
    TokenBatch,
    collate,
    encode,
    pad_id_of,
)
from unlearn_bench.training.likelihood import Model, kl_to_reference, nll_mean, nll_sum
from unlearn_bench.training.loop import TrainLog, train
from unlearn_bench.training.options import Training
from unlearn_bench.training.precision import autocast

Side = Literal["safe", "unsafe"]
Scope = Literal["persistent", "per_instance"]
Variant = Literal["paper", "released"]
READ_BATCH = 16


def responses(pairs: Sequence[Pair], side: Side) -> list[Example]:
    """One side of every pair as a training text: the loss stands on the response only."""
    return [on_new_line(Example(pair.id, pair.prompt, getattr(pair, side))) for pair in pairs]


def on_new_line(example: Example) -> Example:
    """The example with its answer on a new line, unless white space already parts the two."""
    if not example.prompt or example.prompt[-1].isspace() or example.answer[:1].isspace():
        return example
    return Example(example.id, example.prompt + "\n", example.answer)


def read_batches(context: EditContext, examples: Sequence[Example]) -> Iterator[TokenBatch]:
    """The examples in their order, in batches on the model's device."""
    rows = encode(context.tokenizer, examples)
    for start in range(0, len(rows), READ_BATCH):
        batch = collate(rows[start : start + READ_BATCH], pad_id_of(context.tokenizer))
        yield batch.to(context.model.device)


@torch.no_grad()
def response_states(context: EditContext, examples: Sequence[Example]) -> Tensor:
    """Every layer's hidden state, mean over the response's tokens. (N, L, d) float32.

    The states are the layers' own outputs: the last entry of `hidden_states` would have passed the
    final norm, and its length could not be compared with the others'.
    """
    means: list[Tensor] = []
    pooled: list[Tensor] = []

    def pool(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        hidden = (output[0] if isinstance(output, tuple) else output).float()  # (B, T, d)
        pooled.append((hidden * weights).sum(1))

    hooks = [layer.register_forward_hook(pool) for layer in decoder_layers(context.model)]
    device = context.model.device
    try:
        with autocast(device):
            for batch in read_batches(context, examples):
                answer = (batch.labels != IGNORE).float()
                weights = (answer / answer.sum(1, keepdim=True))[..., None]  # (B, T, 1)
                context.model.base_model(input_ids=batch.input_ids, use_cache=False)
                means.append(torch.stack(pooled, dim=1).cpu())
                pooled.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(means)


def layer_distances(context: EditContext, pairs: Sequence[Pair]) -> Tensor:
    """‖h_ℓ(safe) − h_ℓ(unsafe)‖₂ of every layer, mean over the pairs. (L,) float32."""
    safe = response_states(context, responses(pairs, "safe"))
    unsafe = response_states(context, responses(pairs, "unsafe"))
    distances: Tensor = torch.linalg.vector_norm(safe - unsafe, dim=-1)  # (N, L)
    return distances.mean(0)


def draw_pairs(context: EditContext, count: int) -> list[Pair]:
    """At most `count` of the pairs, seeded. Raises MissingDataError without any."""
    known = context.data.pairs
    if not known:
        raise MissingDataError("the method needs prompts with a safe and an unsafe response")
    return draw(known, count, context.seed)


def mlp_weights(model: nn.Module, layer: int) -> dict[str, nn.Parameter]:
    """One layer's gate_proj, up_proj and down_proj weights. Raises UsageError if it lacks one."""
    mlp = getattr(decoder_layers(model)[layer], "mlp", None)
    found = {
        name: getattr(getattr(mlp, name, None), "weight", None)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    if not all(isinstance(weight, nn.Parameter) for weight in found.values()):
        raise UsageError(
            f"layer {layer} of {type(model).__name__} has no gate_proj, up_proj and down_proj",
            next_step="choose a gated decoder such as Llama, Qwen, Mistral or Gemma",
        )
    return found  # type: ignore[return-value]


@contextmanager
def only_trainable(model: nn.Module, chosen: Sequence[nn.Parameter]) -> Iterator[None]:
    """Gradients for the chosen parameters alone, inside the block."""
    parameters = list(model.parameters())
    before = [parameter.requires_grad for parameter in parameters]
    model.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in zip(parameters, before, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None


def train_safe(
    context: EditContext,
    pairs: Sequence[Pair],
    training: Training,
    *,
    safe_weight: float,
    locality_weight: float,
    variant: Variant,
) -> TrainLog:
    """Train what is trainable: w_s·NLL_m(safe | prompt) + w_l·KL(θ₀ ‖ θ) on benign answers.

    variant "released": the KL is added without its gradient, as DINM's code does. Raises
    MissingDataError when the locality term has no text.
    """
    sets = {"safe": responses(pairs, "safe")}
    if locality_weight:
        sets["benign"] = [on_new_line(example) for example in context.data.benign]

    def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
        value = safe_weight * nll_mean(policy, batch.get("safe"))
        if locality_weight:
            drift = kl_to_reference(reference, policy, batch.benign)
            value = value + locality_weight * (drift.detach() if variant == "released" else drift)
        return value

    return train(
        context.model,
        context.tokenizer,
        sets,
        loss,
        training,
        seed=context.seed,
        reference=context.reference if locality_weight else None,
        progress=context.progress,
    )


def edit_pairs(
    context: EditContext,
    pairs: Sequence[Pair],
    scope: Scope,
    edit: Callable[[Sequence[Pair]], dict[str, Any]],
) -> dict[str, Any]:
    """Run `edit` on all pairs at once and keep it, or on each pair alone and restore θ₀ after it.

    per_instance: returns every pair's summed NLL (nats) of both responses before and after its own
    edit, and leaves the model bitwise as it was: the papers' one-request-at-a-time evaluation.
    """
    if scope == "persistent":
        return edit(pairs)
    reference = dict(context.reference().named_parameters())
    instances = []
    for pair in pairs:
        before = response_nll(context, pair)
        record = edit([pair])
        after = response_nll(context, pair)
        with torch.no_grad():
            for name, parameter in context.model.named_parameters():
                parameter.copy_(reference[name])
        instances.append({"id": pair.id, "before": before, "after": after, **record})
    return {"instances": instances}


@torch.no_grad()
def response_nll(context: EditContext, pair: Pair) -> dict[str, float]:
    """Summed NLL in nats of the pair's safe and unsafe response."""
    both = [*responses([pair], "safe"), *responses([pair], "unsafe")]
    (batch,) = read_batches(context, both)
    safe, unsafe = nll_sum(context.model, batch).tolist()
    return {"nll_safe": safe, "nll_unsafe": unsafe}
