"""Our engines as an lm-eval model.

A subclass of lm-eval's own transformers model, so that tokenisation, special tokens, context and
continuation splitting and rolling windows are its code; only the two operations that cost time are
ours: scoring token pairs, and generating.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from unlearn_bench.engine.base import Engine, Generation, Progress
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.errors import UnlearnBenchError

TODAY = date(2025, 1, 1)  # in chat templates, whenever a model is asked


class EngineLM(HFLM):
    """lm-eval's view of an engine that holds a checkpoint.

    seed: of sampled texts. moments: names of the tasks whose likelihoods come with the moments of
    the vocabulary.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        seed: int,
        progress: Progress,
        moments: Collection[str] = (),
    ) -> None:
        # Windows of a rolling likelihood are handed over in blocks of batch_size: large blocks,
        # since batching is the scorer's work.
        super().__init__(
            pretrained=engine.model,
            tokenizer=engine.tokenizer,
            batch_size=1 << 20,
            backend="causal",
            # Templates print the date in one of two ways; the day must not move a number.
            chat_template_args={
                "date_string": TODAY.strftime("%d %b %Y"),
                "strftime_now": TODAY.strftime,
            },
        )
        self.engine, self.seed, self.progress = engine, seed, progress
        self.moments = moments
        self._asked: list[bool] = []  # of the requests at hand, whether with moments

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[Likelihood]:
        """Likelihoods with their per-token parts, in order."""
        self._asked = [request.task_name in self.moments for request in requests]
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Summed log-probability of each whole text, over disjoint windows."""
        self._asked = []
        return super().loglikelihood_rolling(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def score_texts(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """Likelihoods of generated texts after their prompts, in order. pairs: (prompt, text).

        An empty text is the end-of-text token: that is what a model wrote who wrote nothing.
        """
        split = [self._encode_pair(prompt, text) for prompt, text in pairs]
        ended = [int(self.eot_token_id)]
        self._asked = []
        return self._loglikelihood_tokens(
            [(None, prompt or ended, text or ended) for prompt, text in split]
        )

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[Likelihood]:
        asked = self._asked or [False] * len(requests)
        return self.engine.score(
            [
                self._truncate(context, continuation, moments)
                for (_, context, continuation), moments in zip(requests, asked, strict=True)
            ],
            self.progress,
        )

    def _truncate(
        self, context: Sequence[int], continuation: Sequence[int], moments: bool
    ) -> Request:
        """Drop what does not fit from the left, as lm-eval does: the last token is only predicted.

        A continuation alone longer than the model reads has no context left to drop from, which
        lm-eval does not support either.
        """
        room = max(self.max_length + 1 - len(continuation), 1)
        return Request(tuple(context[-room:]), tuple(continuation), moments)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Texts in order; the k-th request for the same prompt draws the k-th sample."""
        asked: Counter[str] = Counter()
        generations = []
        for request in requests:
            prompt, settings = request.args
            generations.append(self._generation(prompt, settings, asked[prompt]))
            asked[prompt] += 1
        return self.engine.generate(generations, self.progress)

    def _generation(self, prompt: str, settings: dict[str, Any], repeat: int) -> Generation:
        known = normalize_gen_kwargs(settings, self.max_gen_toks)
        until = known.get("until") or []
        room = self.engine.max_length - known["max_gen_toks"]
        if room < 1:
            raise UnlearnBenchError(
                f"the task wants {known['max_gen_toks']} new tokens, and the model reads "
                f"{self.engine.max_length} in all",
                next_step="leave the task out with --tasks, or choose a model that reads more",
            )
        return Generation(
            prompt=tuple(self.tok_encode(prompt)[-room:]),
            max_tokens=known["max_gen_toks"],
            stop=tuple([until] if isinstance(until, str) else until),
            temperature=float(known.get("temperature") or 0.0),
            top_p=float(known.get("top_p", 1.0)),
            # The seed is the item's own, so a text does not depend on what else is asked.
            seed=zlib.crc32(f"{self.seed}\0{repeat}\0{prompt}".encode()),
        )
