"""What rome and memit share: where a fact is read, what should be read there, and the algebra.

An MLP's down_proj W (d, d_ff) is taken for a memory: at the last token of a subject's name its
input is the key k (d_ff,) and its output the value v (d,). n facts. Source: Meng et al. 2022
(ROME), arXiv:2202.05262, and 2023 (MEMIT), arXiv:2210.07229.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.pair_editing import mlp_weights
from unlearn_bench.methods.sampling import draw
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import (
    BATCH_TOKENS,
    Encoded,
    TokenBatch,
    batches_by_length,
    collate,
    encode,
    pad_id_of,
)
from unlearn_bench.training.hidden import cut_after
from unlearn_bench.training.likelihood import answer_log_probs, answer_logits, answer_rows
from unlearn_bench.training.precision import autocast
from unlearn_bench.training.vocabulary import token_divergences

CLAMP = 4.0  # a value's change is at most so many times as long as the hidden state it is added to
ESSENCE = "{} is a"  # what the change of a subject's value must leave as it is
Per = Literal["subject", "fact"]
LIKELY = 0.05  # nats per token: a search ends where every new answer is this near to certain
PREFIXES = 2  # keys are means over the bare prompt and so many texts in front of it
MOMENT_TEXTS = 200


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
    """Questions with new answers as tokens; n of them about m memories.

    positions: of each subject's last token, (n,) int64. owners: which memory each question asks,
    (n,) int64, ascending from 0 by first appearance. names: the subjects of the memories.
    """

    rows: tuple[Encoded, ...]
    positions: Tensor
    owners: Tensor
    names: tuple[str, ...]


def read_facts(
    context: EditContext, examples: Sequence[Example], per: Per, prefix: str = ""
) -> Facts:
    """The examples whose prompt names its subject, each behind `prefix`.

    per "subject": all questions about one subject are one memory; "fact": each is its own. Raises
    MissingDataError when there is none.
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
    keys = [(e.subject if per == "subject" else str(i), e.subject) for i, e in enumerate(asked)]
    memories = list(dict.fromkeys(keys))
    return Facts(
        tuple(encode(context.tokenizer, texts)),
        torch.tensor(positions),
        torch.tensor([memories.index(key) for key in keys]),
        tuple(name for _, name in memories),
    )


def mean_by_owner(values: Tensor, owners: Tensor) -> Tensor:
    """The mean over each memory's questions. (n, …) → (m, …)."""
    count = int(owners.max()) + 1
    sums = values.new_zeros(count, *values.shape[1:]).index_add(0, owners, values)
    sizes = torch.bincount(owners, minlength=count).to(values.dtype)
    return sums / sizes.view(-1, *[1] * (values.ndim - 1))


def prefixes(context: EditContext) -> list[str]:
    """Texts to put in front of a prompt, so that a key is the subject's and not the place's."""
    answers = draw(context.data.benign, PREFIXES, context.seed)
    return ["", *(f"{example.answer.strip()}\n" for example in answers)]


@torch.no_grad()
def read_keys(context: EditContext, layer: int, examples: Sequence[Example]) -> Tensor:
    """k of every question at `layer`, the mean over `prefixes`. (n, d_ff) float32 on the CPU."""
    found = []
    width = mlp_weights(context.model, layer)["down_proj"].shape[1]
    for prefix in prefixes(context):
        facts = read_facts(context, examples, "fact", prefix)
        inputs = torch.empty(len(facts.rows), width)
        for chosen, batch in batches_of(context, facts.rows):
            seen = read_inputs(context, [layer], batch)
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
        seen = read_inputs(context, layers, batch)
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


def find_changes(context: EditContext, layer: int, facts: Facts, search: ValueSearch) -> Tensor:
    """δ of every memory: what added to `layer`'s output at its subject's last token makes the new
    answers likely. (m, d) float32 on the CPU.

    Minimises NLL_m(new answers | prompts) + kl_weight·KL(θ₀ ‖ θ + δ on "<subject> is a")
    + decay·‖δ‖²/‖h‖², each memory by itself, with Adam; δ is kept within CLAMP·‖h‖, h the state it
    is added to. A batch of memories is done early when all its answers are likely.
    """
    width = context.model.config.get_text_config().hidden_size
    changes = torch.zeros(len(facts.names), width)
    flags = [parameter.requires_grad for parameter in context.model.parameters()]
    context.model.requires_grad_(False)
    try:
        for memories in batches_of_memories(facts):
            changes[memories] = _search(context, layer, facts, memories, search)
            context.progress("searching values", memories[-1] + 1, len(facts.names))
    finally:
        for parameter, flag in zip(context.model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    return changes


def batches_of_memories(facts: Facts) -> Iterator[list[int]]:
    """Memories, in their order, whose questions are at most BATCH_TOKENS padded tokens together."""
    sizes = torch.bincount(facts.owners).tolist()
    lengths = [len(row.tokens) for row in facts.rows]
    longest = [0] * len(sizes)
    for length, owner in zip(lengths, facts.owners.tolist(), strict=True):
        longest[owner] = max(longest[owner], length)
    batch: list[int] = []
    for memory in range(len(sizes)):
        trial = [*batch, memory]
        tokens = sum(sizes[i] for i in trial) * max(longest[i] for i in trial)
        if batch and tokens > BATCH_TOKENS:
            yield batch
            trial = [memory]
        batch = trial
    yield batch


def _search(
    context: EditContext, layer: int, facts: Facts, memories: Sequence[int], search: ValueSearch
) -> Tensor:
    """δ of these memories. (len(memories), d)."""
    model, device = context.model, context.model.device
    chosen = [i for i, owner in enumerate(facts.owners.tolist()) if owner in set(memories)]
    owners = facts.owners[chosen] - memories[0]
    fact = collate([facts.rows[i] for i in chosen], pad_id_of(context.tokenizer)).to(device)
    essence, ends = _essences(context, [facts.names[i] for i in memories])
    change = torch.zeros(
        len(memories), model.config.get_text_config().hidden_size, device=device
    ).requires_grad_(True)
    optimizer = torch.optim.Adam([change], lr=search.lr)
    states: list[Tensor] = []
    with torch.no_grad(), autocast(device):
        expected = answer_logits(model, essence)
    for _ in range(search.steps):
        with autocast(device):
            with added(model, layer, facts.positions[chosen], change[owners], states):
                log_probs = answer_log_probs(model, fact)
            missed = mean_by_owner(-log_probs, answer_rows(fact))
            loss = mean_by_owner(missed, owners.to(device)).sum()
            if search.kl_weight:
                with added(model, layer, ends, change):
                    drift = token_divergences(expected, answer_logits(model, essence))
                loss = loss + search.kl_weight * drift.sum()  # one token of each essence
        if missed.max() < LIKELY:
            break
        size = mean_by_owner(states[0].norm(dim=1), owners.to(device))  # ‖h‖ of each memory
        loss = loss + search.decay * (change.norm(dim=1) / size).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            longest = CLAMP * size / change.norm(dim=1).clamp(min=1e-12)
            change.mul_(longest.clamp(max=1.0)[:, None])
    return change.detach().cpu()


def _essences(context: EditContext, names: Sequence[str]) -> tuple[TokenBatch, Tensor]:
    """The text "<subject> is a" of every name, and where each name ends. It predicts one token."""
    asked = [Example(str(i), ESSENCE.format(name), "", name) for i, name in enumerate(names)]
    facts = read_facts(context, asked, "fact")
    batch = collate(facts.rows, pad_id_of(context.tokenizer)).to(context.model.device)
    return batch, facts.positions


@contextmanager
def added(
    model: nn.Module,
    layer: int,
    positions: Tensor,
    change: Tensor,
    states: list[Tensor] | None = None,
) -> Iterator[None]:
    """`change` (B, d) is added to the layer's output, row i at positions[i], inside the block.

    states: gets the hidden states (B, d) there as they were, the first time.
    """
    rows = torch.arange(len(positions))

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        if states is not None and not states:
            states.append(hidden.detach()[rows, positions].float())
        raised = hidden.index_put(
            (rows.to(hidden.device), positions.to(hidden.device)),
            change.to(hidden.dtype),
            accumulate=True,
        )
        return (raised, *output[1:]) if isinstance(output, tuple) else raised

    with decoder_layers(model)[layer].register_forward_hook(add):
        yield


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


@torch.no_grad()
def read_inputs(
    context: EditContext, layers: Sequence[int], batch: TokenBatch
) -> dict[int, Tensor]:
    """What enters down_proj in these layers. (B, T, d_ff) each; no layer above is computed."""
    model = context.model
    with down_inputs(model, layers) as seen, autocast(model.device), cut_after(model, max(layers)):
        model.base_model(input_ids=batch.input_ids, use_cache=False)
    return seen


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


def directions(moment: Tensor, keys: Tensor) -> Tensor:
    """u = C⁻¹·k of every key. keys (n, d_ff) → (n, d_ff) float32, solved in float64."""
    solved: Tensor = torch.linalg.solve(moment.double(), keys.double().T)
    return solved.T.float()


def rank_one(weight: Tensor, direction: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """ΔW = (v − W·k)·uᵀ / (uᵀ·k), u the key's direction: ROME's equation 2. (d, d_ff) float32.

    Among all changes with (W + ΔW)·k = v the one that moves the outputs of ordinary keys least.
    """
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
