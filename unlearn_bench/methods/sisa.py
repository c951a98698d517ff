"""SISA: train in shards and slices, so that a deletion retrains only what came after it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearn_bench.methods.contract import EditContext
from unlearn_bench.registry import method
from unlearn_bench.schema import Example

Placement = Literal["last", "random"]
Slices = list[list[Example]]


@method(
    "sisa",
    paper="arXiv:1912.03817",
    kind="edit",
    goals=("forget", "update"),
    needs=("base",),
    targets=("*",),
    search={"shards": [1, 2], "slices": [1, 2], "combine": ["mean", "sum"]},
)
def sisa(
    context: EditContext,
    *,
    shards: Annotated[int, Field(ge=1)] = 2,
    slices: Annotated[int, Field(ge=1)] = 2,
    placement: Placement = "last",
    combine: Literal["mean", "sum"] = "sum",
) -> dict[str, Any]:
    """Replace θ₀ by what sharded training gives without the forget set, the updates in place.

    The subjects are divided into `shards`, each cut into `slices`. A shard's model is trained from
    the base in stages, stage r on its slices 1 to r for 2/(slices + 1) of the recipe's passes: as
    many examples in all as without slices. On a request only the stages from the first touched
    slice on are run again; untouched shards stay as they are.
    placement "last": subjects that the request names come last, in as few slices as they fill, as a
    provider would place data likely to be withdrawn; "random": anywhere, which touches every slice
    when many are named. combine: SISA averages the shards' predictions; one model's weights have to
    stand in, base + mean or sum of the shards' changes. A mean leaves a fact that one shard of two
    has learned with half of its change; the sum leaves all of it.
    The account holds the training of all stages; "retrain_seconds" is what the request itself cost.
    Source: Bourtoule et al. 2021, sections IV (shards, slices), V-B (epochs) and VIII (placement).
    """
    assert context.base is not None, "edit_model has checked it"
    old = dict(context.base.load()[0].named_parameters())
    texts = context.base.before, context.base.after
    before, after = divide(*texts, shards, slices, placement, context.seed)
    total: dict[str, Tensor] = {}
    stages = []
    for shard, (kept, wanted) in enumerate(zip(before, after, strict=True)):
        put(context.model, old)
        stages += train_shard(context, shard, wanted, first_touched(kept, wanted))
        add_change(total, context.model, old)
    put(context.model, old, total, 1 / shards if combine == "mean" else 1.0)
    seconds = sum(stage["seconds"] for stage in stages if stage["retrained"])
    return {"retrain_seconds": round(seconds, 3), "stages": stages}


def train_shard(
    context: EditContext, shard: int, slices: Slices, first: int
) -> list[dict[str, Any]]:
    """Train the model in place in stages; returns what each stage did.

    first: the first stage that a request makes the provider run again.
    """
    assert context.base is not None
    done = []
    for stage in range(len(slices)):
        texts = [text for part in slices[: stage + 1] for text in part]
        log = context.base.train(
            context.model,
            context.tokenizer,
            texts,
            seed=context.seed + shard,
            share=2 / (len(slices) + 1),
            progress=context.progress,
        )
        facts = {"shard": shard, "texts": len(texts), "steps": log.steps}
        done.append({**facts, "seconds": round(log.seconds, 3), "retrained": stage >= first})
    return done


def divide(
    before: Sequence[Example],
    after: Sequence[Example],
    shards: int,
    slices: int,
    placement: Placement,
    seed: int,
) -> tuple[list[Slices], list[Slices]]:
    """Both sets of texts by shard and slice; a subject's texts stay together, at the same place.

    Slices hold nearly equal numbers of subjects. Texts without a subject are their own.
    """
    old, new = by_subject(before), by_subject(after)
    order = sorted(old)
    random.Random(seed).shuffle(order)  # noqa: S311  # repeatable on purpose
    if placement == "last":
        order.sort(key=lambda name: old[name] != new.get(name))  # stable: named ones to the end
    parts = shards * slices
    cuts = [round(len(order) * part / parts) for part in range(parts + 1)]
    groups = [order[start:stop] for start, stop in pairwise(cuts)]

    def laid_out(texts: Mapping[str, list[Example]]) -> list[Slices]:
        filled = [[text for name in group for text in texts.get(name, ())] for group in groups]
        return [filled[shard * slices : (shard + 1) * slices] for shard in range(shards)]

    return laid_out(old), laid_out(new)


def by_subject(texts: Sequence[Example]) -> dict[str, list[Example]]:
    """The texts of every subject, in their order."""
    found: dict[str, list[Example]] = {}
    for text in texts:
        found.setdefault(text.subject or text.id, []).append(text)
    return found


def first_touched(before: Slices, after: Slices) -> int:
    """Index of the first slice whose texts differ; the number of slices when none does."""
    pairs = zip(before, after, strict=True)
    return next((index for index, (old, new) in enumerate(pairs) if old != new), len(before))


@torch.no_grad()
def add_change(total: dict[str, Tensor], model: nn.Module, old: Mapping[str, Tensor]) -> None:
    """Add the model's distance from `old` to `total`, in float32."""
    for name, weight in model.named_parameters():
        change = weight.float() - old[name].to(weight.device).float()
        total[name] = total[name] + change if name in total else change


@torch.no_grad()
def put(
    model: nn.Module,
    old: Mapping[str, Tensor],
    change: Mapping[str, Tensor] | None = None,
    share: float = 1.0,
) -> None:
    """Set the model's weights to old + share·change in place; without a change, to the old bits."""
    for name, weight in model.named_parameters():
        moved = old[name].to(weight.device)
        weight.copy_(moved if change is None else moved.float() + share * change[name])
