"""The one training loop: every trained method and both prepared models go through `train`.

accelerate supplies device placement, mixed precision and loss scaling; all else is visible here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from unlearn_bench.errors import DivergedError
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches, read_set
from unlearn_bench.training.likelihood import Model
from unlearn_bench.training.options import Training
from unlearn_bench.training.precision import supports_bf16
from unlearn_bench.training.reference import adapted, guarded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loss = Callable[[SetBatches, Model, Model | None], Tensor]
Progress = Callable[[str, int, int], None]


@dataclass
class TrainLog:
    """What one training run did.

    losses: one per optimiser step, mean over its accumulated batches, in nats. grad_norms: before
    clipping. forward_passes counts calls of policy and reference, backward_passes those of
    `backward`.
    """

    precision: str
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    stopped_early: bool = False

    def record_loss(self, value: Tensor, step: int, accumulate: int) -> None:
        """Add one batch's loss to step `step`. Raises DivergedError when it is not finite."""
        number = float(value.detach())
        if not math.isfinite(number):
            raise self._diverged(f"the loss became {number}", step)
        if len(self.losses) < step:
            self.losses.append(0.0)
        self.losses[-1] += number / accumulate
        self.backward_passes += 1

    def record_step(self, grad_norm: float, step: int) -> None:
        """Close step `step`. Raises DivergedError when the gradient is not finite."""
        if not math.isfinite(grad_norm):
            raise self._diverged(f"the gradient norm became {grad_norm}", step)
        self.grad_norms.append(grad_norm)
        self.steps = step

    def _diverged(self, what: str, step: int) -> DivergedError:
        good = self.losses[: step - 1]
        last = {f"step {step - i}": good[-i] for i in range(1, min(3, len(good)) + 1)}
        return DivergedError(what, step=step, last_losses=last)

    def summary(self) -> dict[str, Any]:
        """The log as JSON-able values, without the per-step lists."""
        ends = {"first_loss": self.losses[0], "last_loss": self.losses[-1]} if self.losses else {}
        return {
            "precision": self.precision,
            "steps": self.steps,
            "train_seconds": round(self.seconds, 3),
            "stopped_early": self.stopped_early,
            **ends,
        }


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: Mapping[str, Sequence[Example]],
    loss: Loss,
    training: Training,
    *,
    seed: int,
    reference: Callable[[], PreTrainedModel] | None = None,
    batch_sizes: Mapping[str, int] | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> TrainLog:
    """Minimise `loss` over `sets` by changing `model` in place; the same seed gives the same bytes.

    An epoch is one pass over the first set; of every other set one batch goes beside each of its
    batches. reference: builds θ₀, frozen; with LoRA the model itself with its adapter off serves
    instead. batch_sizes: of sets that are not read `training.batch_size` at a time. stop: asked
    after each epoch whether to end there. Without a step the model is bitwise unchanged. Raises
    DivergedError, and ReferenceMovedError when the reference did.
    """
    steps = count_steps(sets, training)
    accelerator = _accelerator(training, model)
    log = TrainLog("fp32" if accelerator.mixed_precision == "no" else "bf16 autocast")
    if steps == 0:
        return log
    started = time.perf_counter()
    sizes = dict.fromkeys(sets, training.batch_size) | dict(batch_sizes or {})
    batches = _read_batches(sets, tokenizer, training, sizes, seed, accelerator.device)
    with (
        _seeded(seed),
        adapted(model, training) as adapter_off,
        guarded(reference if adapter_off is None else None, model) as frozen,
        _forwards_counted(log, model, frozen),
        _training_mode(model),
        _table_rows_only(model),
    ):
        teacher = frozen or (adapter_off if reference else None)
        optimizer, schedule = _optimizer(model, training, steps)
        for step in range(1, steps + 1):
            for batch in islice(batches, training.accumulate):
                with accelerator.autocast():
                    value = loss(batch, model, teacher)
                log.record_loss(value, step, training.accumulate)
                accelerator.backward(value)  # divided by `accumulate`
                _make_dense(model)
            log.record_step(_clip(model, training.clip), step)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            progress("training", step, steps)
            if stop and step % steps_per_epoch(sets, training) == 0 and step < steps and stop():
                log.stopped_early = True
                break
    log.seconds = time.perf_counter() - started
    return log


def steps_per_epoch(sets: Mapping[str, Sequence[Example]], training: Training) -> int:
    """Optimiser steps in which the first set is read once."""
    first = next(iter(sets.values()))
    return math.ceil(len(first) / (training.batch_size * training.accumulate))


def count_steps(sets: Mapping[str, Sequence[Example]], training: Training) -> int:
    """Optimiser steps of the whole run; no set is looked at when `training.steps` says it."""
    if training.steps is not None:
        return training.steps
    return training.epochs * steps_per_epoch(sets, training)


def _accelerator(training: Training, model: PreTrainedModel) -> Accelerator:
    """An Accelerator of this run's own precision.

    accelerate keeps the first precision of a process for good; a run must not inherit another's.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    wanted = training.precision
    if wanted == "auto":
        wanted = "bf16" if supports_bf16(model.device) else "fp32"
    return Accelerator(
        mixed_precision="bf16" if wanted == "bf16" else "no",
        gradient_accumulation_steps=training.accumulate,
        cpu=model.device.type == "cpu",
    )


def _read_batches(
    sets: Mapping[str, Sequence[Example]],
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
    sizes: Mapping[str, int],
    seed: int,
    device: torch.device,
) -> Iterator[SetBatches]:
    """Endlessly one batch of every set; each set is shuffled by a random sequence of its own."""
    streams = {
        name: read_set(
            name,
            examples,
            tokenizer,
            batch_size=sizes[name],
            max_tokens=training.max_tokens,
            seed=seed,
        )
        for name, examples in sets.items()
    }
    while True:
        yield SetBatches(streams, device)


def _optimizer(
    model: PreTrainedModel, training: Training, steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(weights, training.lr, weight_decay=training.weight_decay)
    else:
        optimizer = torch.optim.AdamW(
            weights,
            training.lr,
            betas=(training.beta1, training.beta2),
            weight_decay=training.weight_decay,
            fused=True,
        )
    return optimizer, LambdaLR(optimizer, lambda done: rate_factor(done, steps, training))


def rate_factor(done: int, steps: int, training: Training) -> float:
    """The share of `lr` used by the step after `done` steps of `steps`.

    Rises linearly to 1 over the first `warmup`·`steps` steps; then stays, or falls linearly
    towards 0, which would be reached one step after the last.
    """
    warmup = math.floor(training.warmup * steps)
    if done < warmup:
        return (done + 1) / (warmup + 1)
    if training.schedule == "constant":
        return 1.0
    return (steps - done) / (steps - warmup)


def _clip(model: PreTrainedModel, limit: float) -> float:
    weights = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.clip_grad_norm_(weights, limit))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed dropout and adapter initialisation without disturbing the caller's random state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _training_mode(model: PreTrainedModel) -> Iterator[None]:
    """Training mode for the block; every module has its own mode back afterwards.

    A wrapper (peft's) may have been in another mode than the model inside it.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _table_rows_only(model: PreTrainedModel) -> Iterator[None]:
    """On CPU, a tied embedding table's gradient from the inputs as the rows that were read.

    autograd adds them to the output layer's gradient of the whole table. As a second whole table,
    nearly all zeros, they cost a tenth of a step of several short batches.
    """
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and table.weight is output.weight
    if not (tied and table.weight.device.type == "cpu"):
        yield
        return
    before, table.sparse = table.sparse, True
    try:
        yield
    finally:
        table.sparse = before


def _make_dense(model: PreTrainedModel) -> None:
    """A loss that reads no logits leaves only rows; the optimiser wants whole tables."""
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()


@contextmanager
def _forwards_counted(log: TrainLog, *models: PreTrainedModel | None) -> Iterator[None]:
    def count(*_: Any) -> None:
        log.forward_passes += 1

    hooks = [model.register_forward_hook(count) for model in models if model is not None]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
