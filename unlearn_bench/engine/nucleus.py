"""Seeded top-p sampling for vLLM without sorting the vocabulary or drawing noise over all of it.

vLLM on CPU sorts all logits of every row to find the nucleus, and then draws one exponential
variate per vocabulary entry from each request's own generator: together several times the cost of
the model. Here one uniform number decides: the nucleus almost always lies within the largest
`HEADS[0]` logits, and the token is where the number falls in their cumulative probabilities. Rows
whose nucleus is wider are looked at again with a larger head, at last the whole vocabulary, so the
result is exact: a token can be drawn if the probability of all likelier tokens is below p (Holtzman
et al. 2020, arXiv 1904.09751).

To vLLM such a request is greedy, over logits in which only the drawn token is left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from unlearn_bench.engine.base import all_finite

HEADS = (256, 4096)
OPTION = "nucleus"  # key of SamplingParams.extra_args; value: (temperature, top_p, seed)


@dataclass(frozen=True)
class _Request:
    """One sampled request. `output` is vLLM's own growing list of its tokens."""

    temperature: float
    top_p: float
    seed: int
    output: Sequence[int]

    def uniform(self) -> float:
        """The random number of the next token: a function of seed and position alone.

        So a text does not depend on its batch, on preemption or on how its prompt was read.
        """
        return random.Random(f"{self.seed} {len(self.output)}").random()  # noqa: S311


class NucleusProcessor(LogitsProcessor):
    """Leaves, of each such request's logits, only the token it draws. Looks at everybody's.

    broken: whether a logit of this process was not finite since `take_broken`. An error would leave
    vLLM with half a step done.
    """

    broken: ClassVar[torch.Tensor | bool] = False

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.requests: dict[int, _Request] = {}

    def is_argmax_invariant(self) -> bool:
        """It decides the arg max, so vLLM must apply it to greedy requests."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within the batch."""
        process_dict_updates(self.requests, batch_update, _read_request)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """(requests, vocabulary) in, same out with −inf everywhere but at the drawn tokens."""
        NucleusProcessor.broken = ~all_finite(logits) | NucleusProcessor.broken
        if not self.requests:
            return logits
        rows = sorted(self.requests)
        chosen = [self.requests[row] for row in rows]
        index = torch.tensor(rows, device=logits.device)

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, device=logits.device, dtype=torch.float32)

        tokens = draw_from_nucleus(
            logits[index].float() / column([request.temperature for request in chosen])[:, None],
            column([request.top_p for request in chosen]),
            column([request.uniform() for request in chosen]),
        )
        logits[index] = -torch.inf
        logits[index, tokens] = 0.0
        return logits


def take_broken(model: Any) -> bool:
    """Whether a logit was not finite since this was last asked. `LLM.apply_model` asks in each
    worker.
    """
    broken, NucleusProcessor.broken = bool(NucleusProcessor.broken), False
    return broken


def _read_request(params: Any, prompt: Any, output: Sequence[int]) -> _Request | None:
    given = (params.extra_args or {}).get(OPTION)
    if given is None:
        return None
    temperature, top_p, seed = given
    return _Request(temperature, top_p, seed, output)


def draw_from_nucleus(
    logits: torch.Tensor,
    top_p: torch.Tensor,
    uniform: torch.Tensor,
    heads: Sequence[int] = HEADS,
) -> torch.Tensor:
    """One token per row by inverse transform over its nucleus, likeliest first.

    logits: (n, V) float. top_p, uniform: (n,), the latter in [0, 1). Returns (n,) int64.
    """
    head = min(heads[0], logits.shape[1]) if heads else logits.shape[1]
    values, indices = logits.topk(head, dim=1)  # descending
    probabilities = (values - logits.logsumexp(dim=1, keepdim=True)).exp()
    reached = probabilities.cumsum(dim=1)
    inside = reached - probabilities < top_p[:, None]  # mass of the likelier tokens
    mass = (probabilities * inside).sum(dim=1)
    place = (reached <= (uniform * mass)[:, None]).sum(dim=1)
    # Rounding must not step out of the nucleus. That of NaN holds nothing: any token will do.
    last = (inside.sum(dim=1) - 1).clamp(min=0)
    tokens = indices.gather(1, torch.minimum(place, last)[:, None]).squeeze(1)
    wider = reached[:, -1] < top_p
    if head < logits.shape[1] and bool(wider.any()):
        rows = wider.nonzero().squeeze(1)
        tokens[rows] = draw_from_nucleus(logits[rows], top_p[rows], uniform[rows], heads[1:])
    return tokens
