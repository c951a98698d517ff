"""What rome and memit share: where a fact is read, what should be read there, and the algebra.

An MLP's down_proj W (d, d_ff) is taken for a memory: at the last token of a subject's name its
input is the key k (d_ff,) and its output the value v (d,). n facts. Source: Meng et al. 2022
(ROME), arXiv:2202.05262, and 2023 (MEMIT), arXiv:2210.07229.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import mlp_weights
from unlearn_bench.methods.sampling import draw
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import (
    Encoded,
    TokenBatch,
    batches_by_length,
    collate,
    encode,
    pad_id_of,
)
from unlearn_bench.training.likelihood import answer_log_probs, answer_rows, kl_to_reference
from unlearn_bench.training.precision import autocast

CLAMP = 4.0  # a value's change is at most so many times as long as the hidden state it is added to
ESSENCE = "{} is a"  # what the change of a subject's value must leave as it is
PREFIXES = 3  # keys are means over the bare prompt and so many texts in front of it
MOMENT_TEXTS = 400


@dataclass(frozen=True)
class ValueSearch:
    """How the wanted values are searched.

    lr, steps: Adam's. kl_weight: of the divergence on "<subject> is a". decay: of ‖δ‖²/‖h‖².
    """

    lr: float
    steps: int
    kl_weight: float
    decay: float


@dataclass(frozen=True)
class Facts:
    """Questions with new answers as tokens. positions: of each subject's last token, (n,) int64."""

    rows: tuple[Encoded, ...]
    positions: Tensor
    subjects: tuple[str, ...]


def read_facts(context: EditContext, examples: Sequence[Example], prefix: str = "") -> Facts:
    """The examples whose prompt names its subject, each behind `prefix`.

    Raises MissingDataError when there is none.
    """
    asked = [e for e in examples if e.subject and e.subject in e.prompt]
    if not asked:
        raise MissingDataError(
            "closed-form editing needs facts whose prompt names its subject, and there is none",
            next_step="give update texts as prompt and answer, with the subject's name",
        )
    texts = [Example(e.id, prefix + e.prompt, e.answer, e.subject) for e in asked]
    ends = [len(prefix) + e.prompt.rindex(e.subject) + len(e.subject) for e in asked]
    offsets = context.tokenizer(
        [text.prompt + text.answer for text in texts], return_offsets_mapping=True
    )["offset_mapping"]
    positions = [
        next(i for i, (start, stop) in enumerate(row) if start < end <= stop)
        for row, end in zip(offsets, ends, strict=True)
    ]
    return Facts(
        tuple(encode(context.tokenizer, texts)),
        torch.tensor(positions),
        tuple(e.subject for e in asked),
    )


def prefixes(context: EditContext) -> list[str]:
    """Texts to put in front of a prompt, so that a key is the subject's and not the place's."""
    answers = draw(context.data.benign, PREFIXES, context.seed)
    return ["", *(f"{example.answer.strip()}\n" for example in answers)]


@torch.no_grad()
def read_keys(context: EditContext, layer: int, examples: Sequence[Example]) -> Tensor:
    """k of every fact at `layer`, the mean over `prefixes`. (n, d_ff) float32 on the CPU."""
    found = []
    for prefix in prefixes(context):
        facts = read_facts(context, examples, prefix)
        inputs = torch.empty(
            len(facts.rows), mlp_weights(context.model, layer)["down_proj"].shape[1]
        )
        for chosen, batch in batches_of(context, facts.rows):
            with down_inputs(context.model, [layer]) as seen, autocast(context.model.device):
                context.model.base_model(input_ids=batch.input_ids, use_cache=False)
            where = facts.positions[chosen].to(batch.input_ids.device)
            rows = torch.arange(len(chosen), device=where.device)
            inputs[chosen] = seen[layer][rows, where].float().cpu()
        found.append(inputs)
    return torch.stack(found).mean(0)


@torch.no_grad()
def second_moments(context: EditContext, layers: Sequence[int]) -> dict[int, Tensor]:
    """C = E[k·kᵀ] over the tokens of ordinary text, by layer. (d_ff, d_ff) float32 on the CPU.

    Ordinary text: the retain set, harmless answers and clean comments, where the papers read
    100,000 samples of Wikipedia. A thousandth of its mean diagonal is added to C's, so that it can
    be inverted however few tokens there are.
    """
    comments = [Example(str(i), "", text) for i, text in enumerate(context.data.clean) if text]
    known = [*context.data.retain, *context.data.benign, *comments]
    rows = encode(context.tokenizer, draw(known, MOMENT_TEXTS, context.seed), 128)
    sums: dict[int, Tensor] = {}
    tokens = 0
    for _, batch in batches_of(context, rows):
        with down_inputs(context.model, layers) as seen, autocast(context.model.device):
            context.model.base_model(input_ids=batch.input_ids, use_cache=False)
        real = batch.attention_mask.bool()
        for layer in layers:
            keys = seen[layer][real].float()
            sums[layer] = sums.get(layer, 0) + (keys.T @ keys).cpu()
        tokens += int(real.sum())
        context.progress("reading ordinary text", tokens, 0)
    return {layer: with_ridge(total / tokens) for layer, total in sums.items()}


def with_ridge(moment: Tensor, share: float = 1e-3) -> Tensor:
    """The matrix with `share` of its mean diagonal added to its diagonal."""
    return moment + share * moment.diagonal().mean() * torch.eye(len(moment))


def find_changes(
    context: EditContext, layer: int, examples: Sequence[Example], search: ValueSearch
) -> Tensor:
    """δ of every fact: what added to `layer`'s output at the subject's last token makes the new
    answer likely. (n, d) float32 on the CPU.

    Minimises NLL_m(new answer | prompt) + kl_weight·KL(θ₀ ‖ θ + δ on "<subject> is a")
    + decay·‖δ‖²/‖h‖², each fact by itself, with Adam; δ is kept within CLAMP·‖h‖.
    """
    facts = read_facts(context, examples)
    asked = [
        Example(str(i), ESSENCE.format(name), "", name) for i, name in enumerate(facts.subjects)
    ]
    essences = read_facts(context, asked)
    width = context.model.config.get_text_config().hidden_size
    changes = torch.zeros(len(facts.rows), width)
    flags = [parameter.requires_grad for parameter in context.model.parameters()]
    context.model.requires_grad_(False)
    try:
        for done, (chosen, batch) in enumerate(batches_of(context, facts.rows), start=1):
            essence = collate([essences.rows[i] for i in chosen], pad_id_of(context.tokenizer))
            places = facts.positions[chosen], essences.positions[chosen]
            changes[chosen] = _search(
                context, layer, (batch, essence.to(batch.input_ids.device)), places, search
            )
            context.progress("searching values", done, 0)
    finally:
        for parameter, flag in zip(context.model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    return changes


def _search(
    context: EditContext,
    layer: int,
    batches: tuple[TokenBatch, TokenBatch],
    places: tuple[Tensor, Tensor],
    search: ValueSearch,
) -> Tensor:
    """δ for the rows of one pair of batches: the facts and the subjects' essences. (B, d)."""
    (fact, essence), model = batches, context.model
    width = model.config.get_text_config().hidden_size
    change = torch.zeros(len(fact.ids), width, device=model.device, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=search.lr)
    norms: list[Tensor] = []
    for _ in range(search.steps):
        with autocast(model.device):
            with added(model, layer, places[0], change, norms):
                log_probs = answer_log_probs(model, fact)
            loss = _mean_by_row(-log_probs, answer_rows(fact), len(fact.ids)).sum()
            if search.kl_weight:
                with added(model, layer, places[1], change) as switch:
                    drift = kl_to_reference(switch.off(model), model, essence)
                loss = loss + search.kl_weight * drift * len(fact.ids)
        loss = loss + search.decay * (change.norm(dim=1) / norms[0]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            longest = CLAMP * norms[0] / change.norm(dim=1).clamp(min=1e-12)
            change.mul_(longest.clamp(max=1.0)[:, None])
    return change.detach().cpu()


def _mean_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    sums = values.new_zeros(count).index_add(0, rows, values)
    return sums / torch.bincount(rows, minlength=count)


class Switch:
    """Turns an addition on and off while its hook is in place."""

    def __init__(self) -> None:
        self.on = True

    def off(self, model: Any) -> Any:
        """The model without the addition, callable like the model."""
        return _Without(model, self)


class _Without:
    def __init__(self, model: Any, switch: Switch) -> None:
        self._model, self._switch = model, switch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._switch.on = False
        try:
            return self._model(*args, **kwargs)
        finally:
            self._switch.on = True

    def get_output_embeddings(self) -> Any:
        return self._model.get_output_embeddings()


@contextmanager
def added(
    model: nn.Module,
    layer: int,
    positions: Tensor,
    change: Tensor,
    norms: list[Tensor] | None = None,
) -> Iterator[Switch]:
    """`change` (B, d) is added to the layer's output, row i at positions[i], inside the block.

    norms: gets the norms (B,) of the hidden states there as they were, the first time.
    """
    switch = Switch()
    rows = torch.arange(len(positions))

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if not switch.on:
            return output
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        if norms is not None and not norms:
            norms.append(hidden.detach()[rows, positions].float().norm(dim=1))
        raised = hidden.index_put(
            (rows.to(hidden.device), positions.to(hidden.device)),
            change.to(hidden.dtype),
            accumulate=True,
        )
        return (raised, *output[1:]) if isinstance(output, tuple) else raised

    with decoder_layers(model)[layer].register_forward_hook(add):
        yield switch


@contextmanager
def down_inputs(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """What enters down_proj in these layers in the latest forward pass. (B, T, d_ff) each."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[layer] = inputs[0].detach()

        return hook

    stack = decoder_layers(model)
    with ExitStack() as hooks:
        for layer in layers:
            down: Any = stack[layer].mlp.down_proj  # type: ignore[union-attr]
            hooks.enter_context(down.register_forward_pre_hook(keep(layer)))
        yield seen


def batches_of(
    context: EditContext, rows: Sequence[Encoded]
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Indices and their rows, in batches of similar length, on the model's device."""
    pad = pad_id_of(context.tokenizer)
    for chosen in batches_by_length([len(row.tokens) for row in rows]):
        yield chosen, collate([rows[i] for i in chosen], pad).to(context.model.device)


def share(part: Tensor, whole: Tensor) -> float | None:
    """‖part‖ / ‖whole‖ over all facts; None where nothing was to be changed."""
    length = float(whole.norm())
    return float(part.norm()) / length if length else None


def rank_one(weight: Tensor, moment: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """ΔW = (v − W·k)·uᵀ / (uᵀ·k) with u = C⁻¹·k: ROME's equation 2. (d, d_ff) float32.

    Among all changes with (W + ΔW)·k = v the one that moves the outputs of ordinary keys least.
    """
    direction = torch.linalg.solve(moment.double(), key.double()).float()
    return torch.outer((value - weight @ key) / (direction @ key), direction)


def spread(moment: Tensor, keys: Tensor, residuals: Tensor, weight: float) -> Tensor:
    """ΔW = R·Kᵀ·(λ·C + K·Kᵀ)⁻¹: MEMIT's equation 14. (d, d_ff) float32.

    keys: (n, d_ff), K's columns; residuals: (n, d), what each key's output lacks; weight: λ. Solved
    in float64: a small λ leaves the system nearly singular.
    """
    wide = keys.double()
    system = weight * moment.double() + wide.T @ wide  # (d_ff, d_ff), symmetric
    solved: Tensor = torch.linalg.solve(system, wide.T @ residuals.double())
    return solved.T.float()
