"""Generation with transformers: for machines without vLLM, and the reference for its texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.utils_hf import stop_sequences_criteria
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from unlearn_bench.engine.base import Engine, Generation, Progress, all_finite, not_finite

BATCH = 32


class TransformersEngine(Engine):
    """Batches of equal settings and similar length, padded on the left."""

    name = "transformers"

    def generate(
        self, requests: Sequence[Generation], progress: Progress = lambda done, total: None
    ) -> list[str]:
        """See Engine.generate. A sampled text depends on its batch's first seed and place."""
        texts: dict[int, str] = {}
        for batch in _batches(requests, BATCH // self.batch_divisor):
            for index, text in zip(
                batch, self._generate([requests[index] for index in batch]), strict=True
            ):
                texts[index] = text
            progress(len(texts), len(requests))
        return [texts[index] for index in range(len(requests))]

    def _generate(self, batch: list[Generation]) -> list[str]:
        first = batch[0]
        width = max(len(request.prompt) for request in batch)
        pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, width - len(request.prompt) :] = 1
        sampled = first.sampled
        config = GenerationConfig(
            max_new_tokens=first.max_tokens,
            do_sample=sampled,
            temperature=first.temperature if sampled else None,
            top_p=first.top_p if sampled else None,
            top_k=0 if sampled else None,
            pad_token_id=pad,
            eos_token_id=self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id,
        )
        stopping = stop_sequences_criteria(self.tokenizer, list(first.stop), width, len(batch))
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(first.seed)
            output = self.model.generate(
                ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([FiniteLogits()]),
                stopping_criteria=stopping if first.stop else None,
            )
        decoded = self.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        return [cut_at_stop(text, first.stop) for text in decoded]

    def describe(self) -> dict[str, Any]:
        """Name, dtype, device and versions."""
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "device": self.device,
            "batch": BATCH // self.batch_divisor,
            "transformers": metadata.version("transformers"),
            "torch": torch.__version__,
        }

    def _load_generator(self, checkpoint: Path) -> None:
        """The scoring model generates."""

    def _check_generator(self) -> tuple[int, int, float]:
        """The generating model is the scoring model, whose memory is hashed: nothing to compare."""
        total = len(self.model.state_dict())
        return total, total, 0.0


class FiniteLogits(LogitsProcessor):
    """Ends a generation at the first logit that is not finite."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits as they are. Raises DivergedError."""
        if not all_finite(scores):
            raise not_finite("a logit of the generating model")
        return scores


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first occurrence of any stop string."""
    for term in filter(None, stop):
        text = text.split(term, 1)[0]
    return text


def _batches(requests: Sequence[Generation], size: int) -> Iterator[list[int]]:
    def settings(index: int) -> tuple[Any, ...]:
        request = requests[index]
        return (request.max_tokens, request.stop, request.temperature, request.top_p)

    order = sorted(
        range(len(requests)),
        key=lambda index: (settings(index), -len(requests[index].prompt), index),
    )
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == size or settings(index) != settings(batch[0])):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
