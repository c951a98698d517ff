"""Where the time of one cell's evaluation goes: by stage, and within both models by kind of layer.

    python benchmarks/shares.py [--suite S] [--data FOLDER] [--target MODEL] [--engine E]

Edits the model with `random_noise`, evaluates the result once to start the engine and warm
everything, and then once more with a stopwatch at every layer of the model that scores, of vLLM's,
and at every stage. Time belongs to the innermost that runs. Prints seconds and shares, and how much
longer the evaluation was than without the stopwatch.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks
from transformers import AutoConfig

from unlearn_bench.config import load_config
from unlearn_bench.engine.base import Engine
from unlearn_bench.engine.transformers_engine import TransformersEngine
from unlearn_bench.engine.vllm_engine import VllmEngine
from unlearn_bench.models.open import open_model
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan
from unlearn_bench.runs.steps import ModelSteps

REST = "batches, softmax, Python"
SPLIT = ("likelihoods", "texts")  # stages that are shown by kind of layer
KINDS = (
    ("LogitsProcessor", "output layer"),
    ("Linear", "linear layers"),
    ("Attention", "attention"),
    ("Sampler", "sampling"),
)


class Stopwatch:
    """Seconds by (stage, part), each moment to the innermost part that is open."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.seconds: Counter[tuple[str, str]] = Counter()
        self._open: list[tuple[str, str]] = []
        self._mark = 0.0

    def enter(self, stage: str, part: str) -> None:
        """From now on time is this part's."""
        self._charge()
        self._open.append((stage, part))

    def leave(self) -> None:
        """Back to what was open before."""
        self._charge()
        self._open.pop()

    def enter_layer(self, layer: nn.Module, inputs: Any) -> None:
        """Torch calls it before every layer."""
        stage, part = self._open[-1] if self._open else ("elsewhere", "")
        self.enter(stage, self._kind(layer, part) if stage in SPLIT else part)

    def leave_layer(self, layer: nn.Module, inputs: Any, outputs: Any) -> None:
        """Torch calls it after every layer."""
        self.leave()

    def around(self, owner: type, name: str, stage: str) -> None:
        """Count a method's time as a stage."""
        inner: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage, REST)
            try:
                return inner(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, name, timed)

    @contextmanager
    def in_layers(self) -> Iterator[None]:
        """Every layer of every model counts its own time."""
        handles = [
            hooks.register_module_forward_pre_hook(self.enter_layer),
            hooks.register_module_forward_hook(self.leave_layer),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._mark
        self._mark = now

    def _kind(self, layer: nn.Module, around: str) -> str:
        if isinstance(layer, nn.Linear) and layer.out_features == self.vocabulary:
            return "output layer"
        name = type(layer).__name__
        for word, kind in KINDS:
            if word in name:
                return kind
        return around if around in ("attention", "sampling") else "norms, activations, the rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--engine", default="auto")
    asked = parser.parse_args()
    silence_libraries(verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "suite": asked.suite, "engine": asked.engine, "methods": "random_noise",
            "target": str(open_model(asked.target).folder), "output": folder,
            **({"data": asked.data} if asked.data else {}),
        }  # fmt: skip
        measure(resolve_plan(load_config(given), Reporter()), Path(folder) / "edited")


def measure(plan: Any, checkpoint: Path) -> None:
    cell = plan.cells[-1]  # the target's comes first
    steps = ModelSteps(plan, print)

    def tick(*what: Any) -> None:
        """Nobody watches."""

    def evaluate() -> float:
        started = time.perf_counter()
        samples, _ = steps.evaluate(cell, checkpoint, tick)
        steps.score(samples, tick)
        return time.perf_counter() - started

    steps.prepare(tick)
    steps.edit(cell, checkpoint, tick)
    evaluate()
    plain = evaluate()
    watch = Stopwatch(AutoConfig.from_pretrained(plan.model.folder).vocab_size)
    for name in ("load", "verify"):
        watch.around(Engine, name, "swapping and proving")
    watch.around(Engine, "score", "likelihoods")
    for engine in (VllmEngine, TransformersEngine):
        watch.around(engine, "generate", "texts")
    watch.around(ModelSteps, "score", "judging, metrics")
    watch.around(ModelSteps, "evaluate", "lm-eval, documents, samples")
    with watch.in_layers():
        whole = evaluate()
    print_shares(watch.seconds, whole)
    print(f"{whole:.1f} s, and {plain:.1f} s without the stopwatch")
    steps.close()


def print_shares(seconds: Counter[tuple[str, str]], whole: float) -> None:
    stages: Counter[str] = Counter()
    for (stage, _), own in seconds.items():
        stages[stage] += own
    print(f"{'':44}{'s':>7}{'%':>6}")
    for stage, total in stages.most_common():
        print(f"{stage:44}{total:7.1f}{100 * total / whole:6.0f}")
        parts = {part: own for (of, part), own in seconds.items() if of == stage}
        for part, own in sorted(parts.items(), key=lambda one: -one[1]) if len(parts) > 1 else ():
            print(f"    {part:40}{own:7.1f}{100 * own / whole:6.0f}")


if __name__ == "__main__":
    main()
