"""Several processes that train one model together, started by `accelerate launch` or torchrun.

Every process reads its own share of the batches and one step uses them all, so that w processes
with `accumulate` k are one process with `accumulate` w·k, up to rounding. Two ways:

* replicated: every process holds the model, and gradients are averaged after the last backward
  pass of a step. Not DistributedDataParallel, whose wrapper allows one forward pass per backward
  pass and no parameter without a gradient: unlearning losses have several and leave some out.
* sharded (FSDP2): weights, gradients and optimiser states are spread over the processes by
  accelerate, as its own configuration says. The loop trains a sharded copy; the model itself gets
  the whole weights back, in every process.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    broadcast_object_list,
)
from torch import Tensor

from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.training.options import Training
from unlearn_bench.training.precision import default_device, supports_bf16

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Item = TypeVar("Item")
WRAPPER = "_checkpoint_wrapped_module."  # in names, where accelerate's configuration checkpoints


class OtherProcessError(UnlearnBenchError):
    """What another process raised, in those that would wait for it."""


def processes() -> int:
    """How many processes work together; 1 where none was asked to."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return processes() == 1 or torch.distributed.get_rank() == 0


def wait() -> None:
    """Return when every process has come here."""
    if processes() > 1:
        torch.distributed.barrier()


def loading_device() -> str:
    """Where models are loaded: shards go to the accelerator from main memory."""
    return "cpu" if shards_wanted() else default_device()


def open_accelerator(training: Training, model: PreTrainedModel) -> Accelerator:
    """An Accelerator of this run's own precision, on the model's device.

    With FSDP a model in main memory is trained on the accelerator where there is one. accelerate
    keeps the first precision of a process for good; a run must not inherit another's. Raises
    UsageError as `check_shards` does.
    """
    check_shards()
    AcceleratorState._reset_state(reset_partial_state=True)
    device = torch.device(default_device()) if shards_wanted() else model.device
    wanted = training.precision
    if wanted == "auto":
        wanted = "bf16" if supports_bf16(device) else "fp32"
    accelerator = Accelerator(
        mixed_precision="bf16" if wanted == "bf16" else "no",
        gradient_accumulation_steps=training.accumulate,
        cpu=device.type == "cpu",
    )
    if shards_wanted() and accelerator.distributed_type is DistributedType.MULTI_CPU:
        _shard_on_cpu(accelerator)
    return accelerator


def shards_wanted() -> bool:
    """Whether `accelerate launch` was told to use FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_shards() -> None:
    """Raise UsageError for an FSDP configuration that would train other weights than these.

    Its first version shards no model that a loss calls several times. Its sparing way to load
    leaves the models of all processes but the first without weights, the reference among them.
    """
    if not shards_wanted():
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError(
            "only FSDP's second version is supported",
            next_step="set `fsdp_version: 2` in accelerate's configuration",
        )
    if os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise UsageError(
            "every process needs the whole model in its memory, which the configuration denies it",
            next_step="set `fsdp_cpu_ram_efficient_loading: false` in accelerate's configuration",
        )


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """accelerate reads an FSDP configuration for GPUs only; its shards work over gloo as well."""
    plugin = FullyShardedDataParallelPlugin()
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    PartialState().distributed_type = DistributedType.FSDP  # of which the other is a copy
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the model is spread over the processes."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def share(stream: Iterator[Item], accelerator: Accelerator) -> Iterator[Item]:
    """Every w-th item, from this process's number on: together the w processes read all."""
    return islice(stream, accelerator.process_index, None, accelerator.num_processes)


def shard(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> PreTrainedModel:
    """A sharded copy of `model`, which the optimiser made for it trains from now on.

    Hooks, modes and adapters are copied with it.
    """
    twin = copy.deepcopy(model)
    own = dict(zip(map(id, model.parameters()), twin.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["params"] = [own[id(parameter)] for parameter in group["params"]]
    policy, _ = accelerator.prepare(twin, optimizer)
    return policy


@torch.no_grad()
def write_back(policy: Any, model: PreTrainedModel) -> None:
    """Copy what the shards have learned into the whole `model`, in every process.

    Does nothing where the two are one.
    """
    if policy is model:
        return
    whole = dict(model.named_parameters())
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            whole[name.replace(WRAPPER, "")].copy_(parameter.full_tensor())


@contextmanager
def sharing_fate(accelerator: Accelerator) -> Iterator[None]:
    """What one process raises in the block ends it in all: the others get an OtherProcessError.

    Without this they would wait for the one that has left, for hours. Shards talk to each other
    inside the block, so nothing can be agreed on there.
    """
    if accelerator.num_processes == 1 or is_sharded(accelerator):
        yield
        return
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    raised = accelerator.reduce(torch.tensor(float(own is not None), device=accelerator.device))
    if own is not None:
        raise own
    if raised:
        raise OtherProcessError("another process failed in this step")


def average_gradients(model: PreTrainedModel, accelerator: Accelerator) -> None:
    """Replace gradients by their mean over the processes; shards have it already.

    Where only some processes have a gradient, the others count as zero; where none has, there is
    none.
    """
    if accelerator.num_processes == 1 or is_sharded(accelerator):
        return
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    present = torch.tensor([float(w.grad is not None) for w in weights], device=accelerator.device)
    for weight, count in zip(weights, accelerator.reduce(present, "sum").tolist(), strict=True):
        if count:
            own = weight.grad if weight.grad is not None else torch.zeros_like(weight)
            weight.grad = accelerator.reduce(own, "mean")


def average(value: Tensor, accelerator: Accelerator) -> float:
    """The mean of a scalar over the processes, the same number in each; NaN where one has NaN."""
    detached = value.detach()
    if accelerator.num_processes == 1:
        return float(detached)
    return float(accelerator.reduce(detached.float(), "mean"))


def agree(answer: bool, accelerator: Accelerator) -> bool:
    """The main process's answer, in every process."""
    if accelerator.num_processes == 1:
        return answer
    return bool(broadcast_object_list([answer])[0])
