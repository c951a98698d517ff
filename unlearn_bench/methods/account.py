"""What an edit did and what it cost: measured from outside, the same way for every method (C5)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.models.layers import longest_list
from unlearn_bench.schema import EditReport, TensorChange

SAMPLE_SECONDS = 0.02
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Account:
    """Context manager around one edit of `model`; `report` builds its EditReport afterwards.

    before: θ₀ by parameter name, if the caller holds it already (a mapping that reads tensors from
    the checkpoint on demand costs no memory); otherwise a copy is kept in main memory, and its
    bytes are not charged to the edit. A second model that the edit calls, such as the reference,
    is counted after `watch`; a deep copy of a watched model is watched already.

    Peak memory is the largest resident set of this process seen during the edit (sampled every
    20 ms); on a GPU the peak of allocated bytes.
    """

    def __init__(self, model: nn.Module, before: Mapping[str, Tensor] | None = None) -> None:
        self._model, self._before = model, before
        self.passes = PassCounter()
        self.seconds = 0.0
        self.peak_memory_bytes = 0

    def watch(self, model: nn.Module) -> None:
        """Count the passes of this model too. Watching it twice counts it once."""
        self.passes.attach(model)

    def __enter__(self) -> Account:
        on_gpu = any(parameter.is_cuda for parameter in self._model.parameters())
        own_bytes = 0
        if self._before is None:
            self._before = snapshot(self._model)
            own_bytes = 0 if on_gpu else sum(tensor.nbytes for tensor in self._before.values())
        self.watch(self._model)
        self._memory = PeakMemory(on_gpu, not_counted=own_bytes)
        self._memory.start()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.peak_memory_bytes = self._memory.stop()  # waits for a GPU to finish
        self.seconds = time.perf_counter() - self._started
        self.passes.detach()

    def report(
        self, method: str, options: Mapping[str, Any], details: Mapping[str, Any]
    ) -> EditReport:
        """The account as an EditReport; `changes` names only tensors of which some bit changed."""
        assert self._before is not None, "report() is for after the edit"
        return EditReport(
            method=method,
            options=dict(options),
            changes=tuple(diff(self._before, self._model)),
            forward_passes=self.passes.forward,
            backward_passes=self.passes.backward,
            seconds=self.seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            details=dict(details),
        )


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter in main memory, tied ones once, by name."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
    }


def diff(before: Mapping[str, Tensor], model: nn.Module) -> Iterator[TensorChange]:
    """Compare every parameter with θ₀ bit by bit and yield the changed ones, in the model's order.

    −0 and 0 differ; equal NaNs do not. Norms are Frobenius norms in float32, NaN where the edit
    left NaN. Raises UnlearnBenchError if parameters came, went or changed their shape or dtype:
    untied embeddings and forgotten adapters show here.
    """
    after = dict(model.named_parameters())
    if strange := sorted(set(after) ^ set(before)):
        raise UnlearnBenchError(
            f"the edit changed the model's structure: {', '.join(strange[:4])}",
            next_step="merge or remove adapters and keep tied weights tied before returning",
        )
    for name, parameter in after.items():
        new, old = parameter.detach(), before[name].detach().to(parameter.device)
        if new.shape != old.shape or new.dtype != old.dtype:
            raise UnlearnBenchError(
                f"the edit turned {name} from {tuple(old.shape)} {old.dtype} "
                f"into {tuple(new.shape)} {new.dtype}"
            )
        bits = BITS[new.element_size()]
        if torch.equal(new.view(bits), old.view(bits)):
            continue
        changed = int((new.view(bits) != old.view(bits)).sum())
        norm = float(torch.linalg.vector_norm(new.float() - old.float()))
        yield TensorChange(name, new.numel(), changed, norm)


class PassCounter:
    """Counts passes through decoder stacks by hooks, whoever calls them and under whatever wrapper.

    A forward pass is one call of the stack on one batch. A backward pass is one forward pass
    reached by a `backward`; two calls of `backward` through the same graph count once.
    """

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0
        self._handles: list[RemovableHandle] = []
        reached = [True]  # whether the latest forward pass has been reached by a backward

        # Plain functions: a deep copy of a watched model keeps the very same hooks, and its passes
        # land in the same counter.
        def on_forward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal reached
            self.forward += 1
            reached = [False]

        def on_layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if not hidden.requires_grad:
                return
            mine = reached

            def on_gradient(gradient: Tensor) -> None:
                self.backward += not mine[0]
                mine[0] = True

            hidden.register_hook(on_gradient)

        self._on_forward, self._on_layer = on_forward, on_layer

    def attach(self, model: nn.Module) -> None:
        """Hook the model's decoder stack, unless this counter already has."""
        stack: nn.Module = getattr(model, "base_model", model)
        if self._on_forward in stack._forward_pre_hooks.values():
            return
        self._handles.append(stack.register_forward_pre_hook(self._on_forward))
        for layer in longest_list(stack):
            self._handles.append(layer.register_forward_hook(self._on_layer))

    def detach(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class PeakMemory:
    """Peak bytes in use from `start` to `stop`, less `not_counted`."""

    def __init__(self, on_gpu: bool, *, not_counted: int = 0) -> None:
        self._on_gpu, self._not_counted = on_gpu, not_counted
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()

    def stop(self) -> int:
        """End, and return the peak in bytes."""
        if self._on_gpu:
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - self._not_counted
        self._stop.set()
        self._thread.join()
        return self._peak - self._not_counted

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self._peak = max(self._peak, process.memory_info().rss)
            if self._stop.wait(SAMPLE_SECONDS):
                break
        self._peak = max(self._peak, process.memory_info().rss)
