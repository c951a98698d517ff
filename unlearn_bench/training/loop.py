"""The one training loop: every trained method and both prepared models go through `train`.

accelerate supplies device placement, mixed precision, loss scaling and shards; all else is visible
here and in `parallel`.
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
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from unlearn_bench.errors import DivergedError, UsageError
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches, read_set
from unlearn_bench.training.likelihood import Model
from unlearn_bench.training.options import Training
from unlearn_bench.training.parallel import (
    agree,
    average,
    average_gradients,
    is_sharded,
    open_accelerator,
    shard,
    share,
    sharing_fate,
    write_back,
)
from unlearn_bench.training.reference import AdapterOff, adapted, guarded

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loss = Callable[[SetBatches, Model, Model | None], Tensor]
Progress = Callable[[str, int, int], None]


@dataclass
class TrainLog:
    """What one training run did.

    losses: one per optimiser step, mean over its accumulated batches, in nats. grad_norms: before
    clipping. forward_passes counts calls of policy and reference, backward_passes those of
    `backward`, both in this process; what checkpointing computes again is no pass of its own.
    """

    precision: str
    processes: int = 1
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    stopped_early: bool = False

    def record_loss(self, number: float, step: int, accumulate: int) -> None:
        """Add one batch's loss to step `step`. Raises DivergedError when it is not finite."""
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
            "processes": self.processes,
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

    An epoch is one pass over the first set that is not empty; of every other set one batch goes
    beside each of its batches. reference: builds θ₀, frozen; with LoRA the model itself with its
    adapter off serves instead. batch_sizes: of sets that are not read `training.batch_size` at a
    time. stop: asked after each epoch whether to end there. Without a step the model is bitwise
    unchanged. In several processes all call this alike, and `model` has the same weights in each
    when it is asked to `stop` and at the end (see `parallel`). Raises DivergedError, and
    ReferenceMovedError when the reference did.
    """
    accelerator = open_accelerator(training, model)
    precision = "fp32" if accelerator.mixed_precision == "no" else "bf16 autocast"
    log = TrainLog(precision, accelerator.num_processes)
    steps = count_steps(sets, training, log.processes)
    if steps == 0:
        return log
    started = time.perf_counter()
    epoch = steps_per_epoch(sets, training, log.processes) if stop else 0
    sizes = dict.fromkeys(sets, training.batch_size) | dict(batch_sizes or {})
    batches = _read_batches(sets, tokenizer, training, sizes, seed, accelerator)
    with (
        _seeded(seed, accelerator.device),
        adapted(model, training),
        guarded(None if training.lora else reference, model) as frozen,
        _forwards_counted(log, model, frozen),
        _training_mode(model),
        _checkpointed(model, training),
        _table_rows_only(model, accelerator),
    ):
        optimizer, schedule = _optimizer(model, training, steps)
        policy = shard(model, optimizer, accelerator) if is_sharded(accelerator) else model
        teacher = _teacher(policy, frozen, reference, accelerator)
        for step in range(1, steps + 1):
            for batch in islice(batches, training.accumulate):
                with sharing_fate(accelerator):
                    with accelerator.autocast():
                        value = loss(batch, policy, teacher)
                    accelerator.backward(value)  # divided by `accumulate`
                    _make_dense(policy)
                log.record_loss(average(value, accelerator), step, training.accumulate)
            average_gradients(policy, accelerator)
            log.record_step(_clip(policy, training.clip), step)
            with sharing_fate(accelerator):
                optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            progress("training", step, steps)
            if stop and step % epoch == 0 and step < steps:
                write_back(policy, model)
                if agree(stop(), accelerator):
                    log.stopped_early = True
                    break
        write_back(policy, model)
    log.seconds = time.perf_counter() - started
    return log


def steps_per_epoch(
    sets: Mapping[str, Sequence[Example]], training: Training, processes: int = 1
) -> int:
    """Optimiser steps in which the first set that is not empty is read once."""
    first = next((examples for examples in sets.values() if examples), ())
    return math.ceil(len(first) / (training.batch_size * training.accumulate * processes))


def count_steps(
    sets: Mapping[str, Sequence[Example]], training: Training, processes: int = 1
) -> int:
    """Optimiser steps of the whole run; no set is looked at when `training.steps` says it."""
    if training.steps is not None:
        return training.steps
    return training.epochs * steps_per_epoch(sets, training, processes)


def _teacher(
    policy: Model,
    frozen: PreTrainedModel | None,
    reference: Callable[[], PreTrainedModel] | None,
    accelerator: Accelerator,
) -> Model | None:
    """θ₀ as the loss gets it: whole in every process, or the policy with its adapter off."""
    if frozen is not None:
        return frozen.to(accelerator.device)
    return AdapterOff(policy) if reference else None


def _read_batches(
    sets: Mapping[str, Sequence[Example]],
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
    sizes: Mapping[str, int],
    seed: int,
    accelerator: Accelerator,
) -> Iterator[SetBatches]:
    """Endlessly one batch of every set; each set is shuffled by a random sequence of its own."""
    streams = {
        name: share(
            read_set(
                name,
                examples,
                tokenizer,
                batch_size=sizes[name],
                max_tokens=training.max_tokens,
                seed=seed,
            ),
            accelerator,
        )
        for name, examples in sets.items()
    }
    while True:
        yield SetBatches(streams, accelerator.device, texts=sets)


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
    """Scale all gradients to a norm of at most `limit`, shards as one; returns it as it was."""
    weights = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm: Any = torch.nn.utils.clip_grad_norm_(weights, limit)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed dropout and adapter initialisation without disturbing the caller's random state."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
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
def _checkpointed(model: PreTrainedModel, training: Training) -> Iterator[None]:
    """With `training.checkpointing`: layers keep their inputs alone and are computed again.

    transformers would also make the embeddings' output ask for a gradient, which non-reentrant
    checkpoints do not need and frozen lower layers would be run through for. Raises UsageError for
    an architecture that has no checkpoints.
    """
    if not training.checkpointing:
        yield
        return
    before = [
        (module, module.gradient_checkpointing)
        for module in model.modules()
        if hasattr(module, "gradient_checkpointing")
    ]
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise UsageError(
            f"checkpointing is not possible: {error}", next_step="leave `checkpointing` off"
        ) from error
    model.disable_input_require_grads()
    try:
        yield
    finally:
        for module, flag in before:
            module.gradient_checkpointing = flag


@contextmanager
def _table_rows_only(model: PreTrainedModel, accelerator: Accelerator) -> Iterator[None]:
    """On CPU, a tied embedding table's gradient from the inputs as the rows that were read.

    autograd adds them to the output layer's gradient of the whole table. As a second whole table,
    nearly all zeros, they cost a tenth of a step of several short batches. Shards know no rows.
    """
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and table.weight is output.weight
    if not (tied and table.weight.device.type == "cpu") or is_sharded(accelerator):
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
