"""Stored answers in a model's place: lm-eval asks every question again and gets what was said then.

Prompts, few-shot examples, filters and per-item metrics are made anew by the tasks themselves; only
the answers are taken from the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from unlearn_bench.engine.evaluate import ask, item_of
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.schema import Sample

MESSAGE = "\0"  # before each message of a conversation, in a replayed prompt


def replay(
    samples: Sequence[Sample], tasks: Mapping[str, Any], positions: Mapping[str, Sequence[int]]
) -> list[Sample]:
    """The samples as they should be, in the tasks' order: same answers, all else made anew.

    positions: as for `evaluate.ask`. Raises CorruptDataError when a question is asked for which
    there is no stored answer.
    """
    return ask(ReplayLM(samples, tasks, positions), tasks, positions, in_chat=True)


def same_question(stored: str, anew: str) -> bool:
    """Whether a stored prompt asks what the replayed one asks.

    Of a conversation only the messages are known here, not the template that the model had: each
    must stand in the stored prompt, in their order.
    """
    if not anew.startswith(MESSAGE):
        return stored == anew
    place = 0
    for message in anew.split(MESSAGE)[1:]:
        place = stored.find(message, place)
        if place < 0:
            return False
        place += len(message)
    return True


class ReplayLM(LM):
    """Answers by task and item id."""

    def __init__(
        self,
        samples: Sequence[Sample],
        tasks: Mapping[str, Any],
        positions: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.tasks, self.positions = tasks, positions
        self.stored = {(sample.task, sample.item_id): sample for sample in samples}

    @property
    def tokenizer_name(self) -> str:
        """lm-eval names caches of requests by it, and there are none."""
        return ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages, marked; not the system's, which some templates leave out."""
        told = [turn["content"] for turn in chat_history if turn["role"] != "system"]
        return "".join(MESSAGE + message for message in told)

    def loglikelihood(self, requests: list[Instance]) -> list[Likelihood]:
        """Each option's likelihood, with its tokens."""
        return [_option(self._answer(request), request.idx) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Each text's total, in nats."""
        return [self._answer(request).likelihoods[0][0] for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The k-th request for an item gets its k-th text."""
        asked: Counter[int] = Counter()
        texts = []
        for request in requests:
            sample, number = self._answer(request), asked[id(request)]
            if number >= len(sample.outputs):
                raise _unanswered(sample.task, sample.item_id, f"text {number + 1}")
            texts.append(sample.outputs[number])
            asked[id(request)] += 1
        return texts

    def _answer(self, request: Instance) -> Sample:
        task = str(request.task_name)
        item = item_of(task, self.tasks[task], self.positions.get(task), request)
        sample = self.stored.get((task, item))
        if sample is None:
            raise _unanswered(task, item, "item")
        return sample


def _option(sample: Sample, index: int) -> Likelihood:
    if index >= len(sample.tokens):
        raise CorruptDataError(f"item {sample.item_id!r} of {sample.task} lacks option {index + 1}")
    tokens = sample.tokens[index]
    moments = np.array([tokens.means, tokens.deviations]).T if tokens.means else None
    return Likelihood(np.array(tokens.log_probs), np.array(tokens.greedy, dtype=bool), moments)


def _unanswered(task: str, item: str, what: str) -> CorruptDataError:
    return CorruptDataError(
        f"there is no stored answer to {what} of {item!r} of {task}",
        next_step="use the data and the version that the run used",
    )
