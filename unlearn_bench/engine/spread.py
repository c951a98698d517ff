"""vLLM over several processes or devices, for a model that none of them could hold alone.

Each of vLLM's workers has a part of every weight, so nothing here has the whole model but torch on
the CPU, which only reads the canaries. Likelihoods are vLLM's own, from the log-probabilities of
its prompts; the moments of a whole vocabulary it does not give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unlearn_bench.engine import proof
from unlearn_bench.engine.base import Progress, tensors_sha256
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.engine.vllm_engine import VllmEngine, progress_bar
from unlearn_bench.errors import WeightSwapError

SPREADING = ("tensor_parallel_size", "pipeline_parallel_size")


def is_spread(args: Mapping[str, Any]) -> bool:
    """Whether these arguments of vLLM's put a model on more than one device."""
    return any(int(args.get(name, 1)) > 1 for name in SPREADING)


class SpreadVllmEngine(VllmEngine):
    """As VllmEngine; the weights lie in vLLM alone, in parts."""

    score_device = "cpu"
    executor = "mp"

    def __init__(self, dtype: str, device: str, args: Mapping[str, Any]) -> None:
        super().__init__(dtype, device, args)
        self._digests: dict[str, tuple[str, ...]] = {}  # of the workers' parts, by `_as_generated`

    def _likelihoods(self, requests: Sequence[Request], progress: Progress) -> list[Likelihood]:
        """One token is written after each text, since vLLM writes at least one; nobody reads it."""
        from vllm import SamplingParams

        distinct = list(dict.fromkeys(Request(one.context, one.continuation) for one in requests))
        outputs = self._continue(
            [[*one.context, *one.continuation] for one in distinct],
            SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1),
            progress_bar(progress),
        )
        found = {
            one: _likelihood(one, output.prompt_logprobs)
            for one, output in zip(distinct, outputs, strict=True)
        }
        return [found[Request(one.context, one.continuation)] for one in requests]

    def _cpu_settings(self) -> dict[str, Any]:
        """Without our norms, which are registered in this process and in no worker."""
        own = super()._cpu_settings()
        return {name: value for name, value in own.items() if name != "ir_op_priority"}

    @property
    def max_length(self) -> int:
        """Longest text, in tokens, that the engine reads: one less, for the token that is written
        after every text.
        """
        return self.window - 1

    def _check_generator(self) -> tuple[int, int, float]:
        """No tensor can be compared whole. The same weights must always multiply alike, and other
        ones otherwise; and the canaries must be the checkpoint's.
        """
        digests = tuple(self._llm.apply_model(digest_columns))
        held = self._as_generated()
        known = self._digests.setdefault(held, digests)
        others = (one for name, one in self._digests.items() if name != held)
        if known != digests or digests in others:
            raise WeightSwapError(
                "the engine's workers hold the weights of another model",
                where=str(self.checkpoint),
                next_step="this is a fault of the engine: run without the --engine-arg that "
                "spreads the model, and report it",
            )
        gap = self._canary_gap()
        proof.require_canaries(gap, self.generate_dtype)
        return 0, len(self.model.state_dict()), gap

    def _as_generated(self) -> str:
        """Hash of the checkpoint's tensors rounded to the generator's format, in which two
        checkpoints may be the same.
        """
        rounded = {
            name: tensor.to(getattr(torch, self.generate_dtype))
            for name, tensor in self.model.state_dict().items()
        }
        return tensors_sha256(rounded)


def digest_columns(model: Any) -> str:
    """Hash of columns of a worker's part of every layer, as its kernel multiplies with them, and of
    its other weights: it covers copies that are packed for multiplying.
    """
    whole = hashlib.sha256()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        whole.update(name.encode())
        found = _columns(module) if proof.is_multiplied(name, module) else weight
        whole.update(found.detach().float().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _columns(module: Any) -> torch.Tensor:
    width = getattr(module, "input_size_per_partition", None) or module.embedding_dim
    return proof.columns(module, width, next(iter(module.parameters())).dtype)[1]


def _likelihood(request: Request, steps: Sequence[Mapping[int, Any] | None]) -> Likelihood:
    """steps: for every token of the prompt the log-probabilities of itself and of the likeliest."""
    told = [
        step[token] if step else None
        for token, step in zip(request.continuation, steps[len(request.context) :], strict=True)
    ]
    return Likelihood(
        np.array([one.logprob if one else np.nan for one in told], np.float64),
        np.array([one is not None and one.rank == 1 for one in told], np.bool_),
    )
