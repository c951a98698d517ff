"""Train one LoRA adapter on texts and hand it over as numbers, leaving the model as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from unlearn_bench.errors import MissingDataError
from unlearn_bench.methods.contract import EditContext
from unlearn_bench.methods.low_rank import LowRank, merge, row_products
from unlearn_bench.methods.sampling import draw
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, nll_mean
from unlearn_bench.training.loop import TrainLog, train
from unlearn_bench.training.options import Training

MODULES = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Adapter:
    """The LoRA shape of one expert. Its ΔW is (lora_alpha / rank)·B·A."""

    rank: int
    lora_alpha: float
    dropout: float


def combine_experts(
    context: EditContext,
    combine: Callable[[LowRank, LowRank], LowRank],
    adapter: Adapter,
    training: Training,
    *,
    comments: int,
) -> dict[str, Any]:
    """Train an expert P on clean and an anti-expert N on toxic comments; merge combine(P, N).

    Returns both training logs, the Frobenius norms and the mean cosine of P's and N's rows.
    """
    expert, good = train_expert(context, context.data.clean, adapter, training, comments=comments)
    anti, bad = train_expert(context, context.data.toxic, adapter, training, comments=comments)
    merge(context.model, {name: combine(expert[name], anti[name]) for name in expert})
    return {
        "expert": good.summary(),
        "anti_expert": bad.summary(),
        "expert_norm": norm(expert),
        "anti_expert_norm": norm(anti),
        "mean_row_cosine": mean_row_cosine(expert, anti),
    }


def train_expert(
    context: EditContext,
    texts: Sequence[str],
    adapter: Adapter,
    training: Training,
    *,
    comments: int,
) -> tuple[dict[str, LowRank], TrainLog]:
    """Train an adapter on q_proj and v_proj to write like `texts`; the loss stands on every token.

    comments: draw at most so many texts. Every expert of one seed starts from the same A (B = 0),
    so that experts are comparable row by row. The model is bitwise unchanged afterwards. Returns
    the adapter by module name. Raises MissingDataError without texts.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise MissingDataError("there is no text to train an adapter on")
    drawn = draw(texts, comments, context.seed)
    examples = [Example(str(i), "", text) for i, text in enumerate(drawn)]
    with fresh_adapter(context, adapter, MODULES) as peft_model:
        log = train(
            peft_model,
            context.tokenizer,
            {"texts": examples},
            text_loss,
            training,
            seed=context.seed,
            progress=context.progress,
        )
        return read_adapter(peft_model), log


@contextmanager
def fresh_adapter(context: EditContext, adapter: Adapter, modules: Sequence[str]) -> Iterator[Any]:
    """The model with a new adapter on these modules, alone trainable; taken off again at the end.

    The adapter's start depends on the seed only. The model's own weights are bitwise unchanged.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(modules),
        task_type="CAUSAL_LM",
    )
    trainable = [parameter.requires_grad for parameter in context.model.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        peft_model: Any = get_peft_model(context.model, config)
    try:
        yield peft_model
    finally:
        peft_model.unload()
        if hasattr(context.model, "peft_config"):  # left behind by some versions of peft
            del context.model.peft_config
        for parameter, before in zip(context.model.parameters(), trainable, strict=True):
            parameter.requires_grad_(before)


def text_loss(batch: SetBatches, policy: Model, reference: Model | None) -> torch.Tensor:
    """NLL_m of the texts."""
    return nll_mean(policy, batch.get("texts"))


def read_adapter(peft_model: Any) -> dict[str, LowRank]:
    """Every adapted module's ΔW by the module's name in the base model, scaling folded into B."""
    changes = {}
    for name, module in peft_model.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        scaled = b.detach().float() * module.scaling["default"]
        changes[name] = LowRank(scaled.cpu(), a.detach().float().cpu().clone())
    return changes


def norm(changes: Mapping[str, LowRank]) -> float:
    """‖ΔW‖₂ over all modules."""
    squares = [float(row_products(change, change).sum()) for change in changes.values()]
    return math.sqrt(sum(squares))


def mean_row_cosine(one: Mapping[str, LowRank], other: Mapping[str, LowRank]) -> float:
    """Mean cosine of the two changes' rows, over the rows where neither is zero; NaN if none is."""
    cosines = []
    for name, change in one.items():
        lengths = change.row_norms() * other[name].row_norms()
        cosines.append((row_products(change, other[name]) / lengths)[lengths > 0])
    return float(torch.cat(cosines).mean())
