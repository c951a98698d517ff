"""EUL: unlearning layers at each MLP, trained by a selective teacher, fused in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unlearn_bench.methods.closed_form import batches_of, read_inputs
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.lora_experts import Adapter, fresh_adapter, read_adapter
from unlearn_bench.methods.low_rank import LowRank
from unlearn_bench.models.layers import decoder_layers
from unlearn_bench.registry import method
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import IGNORE, SetBatches, encode
from unlearn_bench.training.likelihood import Model, kl_to_reference, nll_mean
from unlearn_bench.training.loop import TrainLog, train
from unlearn_bench.training.options import Training
from unlearn_bench.training.reference import AdapterOff

FUSED_TOKENS = 1024  # of each request: the normal equations are solved over so many inputs
MODULE = "down_proj"


@method(
    "eul",
    paper="arXiv:2310.20150",
    kind="edit",
    goals=("forget",),
    needs=("forget", "retain"),
    targets=("*.mlp.down_proj.weight",),
    zero={"rounds": 0},
    search={
        "lr": (1e-4, 1e-2, "log"),
        "rounds": [1, 2],
        "alpha": (0.2, 4.0, "log"),
        "ascent": (0.05, 1.0, "log"),
        "requests": [1, 2],
    },
)
def eul(
    context: EditContext,
    *,
    requests: Annotated[int, Field(ge=1)] = 1,
    rounds: Annotated[int, Field(ge=0)] = 1,
    rank: Annotated[int, Field(ge=1)] = 16,
    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3,
    batch_size: Annotated[int, Field(ge=1)] = 8,
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8,
    task_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
    ascent: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2,
) -> dict[str, Any]:
    """A low-rank layer on every down_proj, trained in alternating epochs, θ₀ frozen and teaching:

        retain epoch:  α·KL(θ₀ ‖ θ) + λ·NLL_m
        forget epoch:  −KL(θ₀ ‖ θ) − γ·NLL_m

    The forget set is cut into `requests` parts, each with a layer of its own trained from θ₀; the
    layers are then fused into W = (Σ XᵢᵀXᵢ)⁻¹·Σ XᵢᵀXᵢWᵢ per module, Xᵢ the inputs that request i's
    texts bring to it (`fuse`), and merged. task_weight is λ, ascent is γ.
    The paper puts a bottleneck W₂·σ(W₁·h) behind each feed-forward block; with its nonlinearity it
    could not be merged, nor run by vLLM. Here the layer is B·A on down_proj: linear, same place.
    Source: Chen and Yang 2023, equations 1 to 4 and 6.
    """
    parts = split_requests(context.data.forget, requests)
    training = Training(lr=lr, batch_size=batch_size, schedule="constant")
    layers, logs = [], []
    for part in parts if rounds else []:
        weights = (alpha, task_weight, ascent)
        layer, log = train_layer(
            context, part, Adapter(rank, 2.0 * rank, 0.0), training, rounds, weights
        )
        layers.append(layer)
        logs.append(log.summary())
    if layers:
        merge_fused(context, layers, parts)
    return {"requests": [len(part) for part in parts], "layers": logs}


def split_requests(examples: Sequence[Example], count: int) -> list[Sequence[Example]]:
    """The examples in at most `count` runs of nearly equal length, in order."""
    size = math.ceil(len(examples) / count) or 1
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def train_layer(
    context: EditContext,
    forget: Sequence[Example],
    adapter: Adapter,
    training: Training,
    rounds: int,
    weights: tuple[float, float, float],
) -> tuple[dict[str, LowRank], TrainLog]:
    """One request's layer by module name, from `rounds` pairs of a retain and a forget epoch.

    A retain epoch is as many batches as the forget set fills: the set itself is much longer.
    """
    alpha, task_weight, ascent = weights
    half = math.ceil(len(forget) / training.batch_size)
    calls = 0

    def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
        nonlocal calls
        retaining = (calls // half) % 2 == 0
        calls += 1
        if retaining:
            kept = kl_to_reference(teacher, policy, batch.retain)
            return alpha * kept + task_weight * nll_mean(policy, batch.retain)
        gone = kl_to_reference(teacher, policy, batch.forget)
        return -gone - ascent * nll_mean(policy, batch.forget)

    with fresh_adapter(context, adapter, [MODULE]) as peft_model:
        teacher = AdapterOff(peft_model)
        log = train(
            peft_model,
            context.tokenizer,
            {"forget": forget, "retain": context.data.retain},
            loss,
            training.model_copy(update={"steps": 2 * half * rounds}),
            seed=context.seed,
            progress=context.progress,
        )
        return read_adapter(peft_model), log


@torch.no_grad()
def merge_fused(
    context: EditContext,
    layers: Sequence[Mapping[str, LowRank]],
    parts: Sequence[Sequence[Example]],
) -> None:
    """Fuse the requests' layers module by module and add each result to its down_proj."""
    inputs = [request_inputs(context, part) for part in parts] if len(parts) > 1 else []
    for index, name in enumerate(layers[0]):
        dense = [layer[name].dense() for layer in layers]
        seen = [of_part[index] for of_part in inputs]
        fused = fuse(seen, [change.T for change in dense]).T if seen else dense[0]
        weight: Any = context.model.get_submodule(name).weight
        weight.copy_(weight.float() + fused.to(weight.device))


@torch.no_grad()
def request_inputs(context: EditContext, examples: Sequence[Example]) -> list[Tensor]:
    """X of every layer: what enters its down_proj at answer tokens. (at most FUSED_TOKENS, d_ff).

    Under θ₀, before any layer is merged.
    """
    indices = range(len(decoder_layers(context.model)))
    rows: list[list[Tensor]] = [[] for _ in indices]
    for _, batch in batches_of(context, encode(context.tokenizer, examples)):
        seen = read_inputs(context, indices, batch)
        for index in indices:
            rows[index].append(seen[index][batch.labels != IGNORE].float().cpu())
    return [torch.cat(found)[:FUSED_TOKENS] for found in rows]


def fuse(inputs: Sequence[Tensor], layers: Sequence[Tensor]) -> Tensor:
    """argmin_W Σ ‖Xᵢ·W − Xᵢ·Wᵢ‖²: the solution nearest to the layers' mean. (in, out) float32.

    inputs: Xᵢ (tokens, in); layers: Wᵢ (in, out). It satisfies the normal equations
    (Σ XᵢᵀXᵢ)·W = Σ XᵢᵀXᵢ·Wᵢ. Where their Gram matrix is singular, as it is with fewer tokens than
    inputs, W is the layers' mean in the directions that no input has. One layer comes back as it
    is.
    """
    mean = torch.stack(list(layers)).mean(0)
    gaps = torch.cat([x @ (layer - mean) for x, layer in zip(inputs, layers, strict=True)])
    stacked = torch.cat(list(inputs)).double()  # (tokens of all, in)
    # Xᵀ·(X·Xᵀ)⁺ is X's pseudo-inverse; tokens are fewer than inputs, or not many more.
    inverse = torch.linalg.pinv(stacked @ stacked.T, hermitian=True, rtol=1e-9)
    correction: Tensor = stacked.T @ (inverse @ gaps.double())
    return mean + correction.float()
