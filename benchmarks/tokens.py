"""What the items of a suite's tasks cost in tokens: the figures of `runs/estimate.py`.

    python benchmarks/tokens.py [--suite S] [--data FOLDER]

Asks every item as `evaluate` does, of an engine that counts and answers nothing. Per task: how many
items, and per item the tokens whose likelihoods are read (shared prefixes once), those of prompts
to write after, how many tokens may be written at most, and how many texts. What is really written
depends on the model: most texts end before.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unlearn_bench.config import load_config
from unlearn_bench.engine.base import Generation, Progress
from unlearn_bench.engine.evaluate import evaluate, load_tasks
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.token_tree import Request, plan_groups
from unlearn_bench.engine.transformers_engine import TransformersEngine
from unlearn_bench.models.open import open_model
from unlearn_bench.runs.progress import Reporter, silence_libraries
from unlearn_bench.runs.resolve import resolve_plan

COUNTED = ("scored", "read", "written", "texts")


class CountingEngine(TransformersEngine):
    """Has the model's tokenizer and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__("float32", "cpu")
        self.counts: Counter[str] = Counter()

    def _likelihoods(self, requests: Sequence[Request], progress: Progress) -> list[Likelihood]:
        self.counts["scored"] += sum(group.tokens for group in plan_groups(requests))
        nothing = [len(request.continuation) for request in requests]
        return [Likelihood(np.full(n, -1.0), np.zeros(n, bool), np.ones((n, 2))) for n in nothing]

    def generate(
        self, requests: Sequence[Generation], progress: Progress = lambda done, total: None
    ) -> list[str]:
        """Counts as well; every text is one word."""
        self.counts["read"] += sum(len(request.prompt) for request in requests)
        self.counts["written"] += sum(request.max_tokens for request in requests)
        self.counts["texts"] += len(requests)
        return ["nothing"] * len(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="full")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    silence_libraries(verbose=False)
    given = {
        "suite": asked.suite,
        "methods": "noop",
        **({"data": asked.data} if asked.data else {}),
    }
    plan = resolve_plan(load_config(given), Reporter())
    engine, model = CountingEngine(), open_model("smollm2-135m")
    engine.load(model.folder, model.fingerprint)
    print(f"{'task':40}{'items':>7}" + "".join(f"{name:>10}" for name in COUNTED))
    for name, protocol in plan.protocols.items():
        engine.counts.clear()
        tasks = load_tasks(
            [protocol],
            limits=plan.suite.limits,
            samples_per_prompt=plan.suite.samples_per_prompt,
            paraphrases=plan.suite.paraphrases,
            sources=plan.sources,
            part=plan.suite.part,
        )
        items = len({sample.item_id for sample in evaluate(engine, tasks, seed=0)})
        figures = "".join(f"{engine.counts[what] / items:10.1f}" for what in COUNTED)
        print(f"{name:40}{items:7}{figures}", flush=True)


if __name__ == "__main__":
    main()
