"""Seconds per token of each kind of work on this machine: the constants of `runs/speed.py`.

    python benchmarks/pace.py [--output FOLDER] [MODEL ...]

Each model (a name, a file, a folder; `random-15m` is made in FOLDER) in processes of its own, in
the number formats of the main job: likelihoods of multiple-choice options, prompts that are read
for one token, short texts that are written after short prompts, and steps of AdamW (of SGD where
AdamW's states would not fit) on batches of fur's examples; and the start of the first model and the
swap of the next. Then, by least squares of relative errors, what a token costs whatever the model
is, and how many operations of the model's parameters a second does.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from random_llama import make_llama

from unlearn_bench.data.fur import load_fur
from unlearn_bench.engine.base import Generation, open_engine
from unlearn_bench.engine.token_tree import Request, plan_groups
from unlearn_bench.models.load import load_model
from unlearn_bench.models.open import open_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.runs.progress import silence_libraries
from unlearn_bench.runs.speed import OPERATIONS
from unlearn_bench.training.batches import encode
from unlearn_bench.training.likelihood import nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

RANDOM = "random-15m"
QUESTIONS, OPTIONS, QUESTION, OPTION = 24, 5, 20, 12  # and tokens of each, as TruthfulQA has them
PAGES, PAGE = 8, 760  # prompts, and tokens of each, as GSM8K has them
TEXTS, PROMPT, WRITTEN = 192, 15, 20  # as RealToxicityPrompts has them
NARROW = 1e-3  # temperature: a nucleus of few tokens, as of a model that was trained
STEPS, BATCH = 6, 16
ADAMW_BYTES = 18  # per parameter, with the copy for bf16


def seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def evaluate(model: OpenedModel) -> dict[str, float]:
    """Seconds per token of what an engine does; seconds of a start, and of a swap."""
    engine = open_engine()
    first, swap = (
        seconds_of(lambda: engine.load(model.folder, model.fingerprint)) for _ in range(2)
    )
    size = min(len(engine.tokenizer), engine.model.config.vocab_size)
    draw = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, size) for _ in range(count))

    def read(count: int, length: int) -> list[Generation]:
        return [Generation(ids(length), 1) for _ in range(count)]

    def write() -> list[Generation]:
        return [
            Generation(ids(PROMPT), WRITTEN, temperature=NARROW, top_p=0.9, seed=n)
            for n in range(TEXTS)
        ]

    asked = []
    for _ in range(QUESTIONS):
        question = ids(QUESTION)
        asked += [Request(question, ids(OPTION)) for _ in range(OPTIONS)]
    engine.generate(write())  # warm
    scored = sum(group.tokens for group in plan_groups(asked))
    found = {
        "parameters": float(sum(one.numel() for one in engine.model.parameters())),
        "first": first,
        "swap": swap,
        "score": seconds_of(lambda: engine.score(asked)) / scored,
        "read": seconds_of(lambda: engine.generate(read(PAGES, PAGE))) / (PAGES * PAGE),
    }
    started = seconds_of(lambda: engine.generate(read(TEXTS, PROMPT)))
    written = seconds_of(lambda: engine.generate(write())) - started
    found["write"] = written / (TEXTS * (WRITTEN - 1))
    return found


def train_steps(model: OpenedModel) -> dict[str, float]:
    """Seconds per token of the examples, the optimiser's steps included."""
    loaded, tokenizer = load_model(model.folder)
    room = psutil.virtual_memory().available
    fits = ADAMW_BYTES * loaded.num_parameters() < room / 2
    training = Training(steps=STEPS, batch_size=BATCH, optimizer="adamw" if fits else "sgd")
    examples = load_fur().target_training()[: STEPS * BATCH]
    log = train(
        loaded,
        tokenizer,
        {"forget": examples},
        lambda batch, policy, reference: nll_mean(policy, batch.forget),
        training,
        seed=0,
    )
    tokens = sum(len(row.tokens) for row in encode(tokenizer, examples))
    return {"train": log.seconds / tokens}


def fit(parameters: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(a, b) ≥ 0 of seconds ≈ a + b · parameters, with the least relative errors."""
    sizes, taken = np.array(parameters), np.array(seconds)
    weighted = np.stack([1 / taken, sizes / taken], axis=1)
    (constant, slope), *_ = np.linalg.lstsq(weighted, np.ones(len(taken)), rcond=None)
    if constant < 0:
        constant, slope = 0.0, weighted[:, 1].sum() / (weighted[:, 1] ** 2).sum()
    elif slope < 0:
        constant, slope = weighted[:, 0].sum() / (weighted[:, 0] ** 2).sum(), 0.0
    return float(constant), float(slope)


def print_fits(names: Sequence[str], found: Sequence[dict[str, float]]) -> None:
    kinds = ("first", "swap", *OPERATIONS)
    print(f"{'seconds':24}{'parameters':>12}" + "".join(f"{kind:>11}" for kind in kinds))
    for name, one in zip(names, found, strict=True):
        figures = "".join(f"{one[kind]:11.2g}" for kind in kinds)
        print(f"{name[-23:]:24}{one['parameters'] / 1e6:10.0f} M{figures}")
    if len(found) < 2:
        return
    for kind in kinds:
        known = [one for one in found if not math.isnan(one[kind])]
        if len(known) < 2:
            continue
        constant, slope = fit([one["parameters"] for one in known], [one[kind] for one in known])
        line = f"{kind:8}{constant:10.2g} s + {slope:.2g} s per parameter"
        if kind in OPERATIONS and slope:
            line += f": {OPERATIONS[kind] / slope / 1e9:.0f} G operations a second"
        print(line)


def measured(spec: str) -> dict[str, float]:
    """Each part in a process of its own; what one of them did not live to say is missing."""
    found = dict.fromkeys(("parameters", "first", "swap", *OPERATIONS), math.nan)
    for part in PARTS:
        command = [sys.executable, __file__, spec, "--part", part]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{spec}: {part} ended with {done.returncode}", flush=True)
        else:
            found |= json.loads(done.stdout.strip().splitlines()[-1])
    return found


PARTS = {"evaluate": evaluate, "train": train_steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[RANDOM, "smollm2-135m"])
    parser.add_argument("--output", type=Path, default=Path("runs/pace"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    silence_libraries(verbose=False)
    if asked.part:
        print(json.dumps(PARTS[asked.part](open_model(asked.models[0]))))
        return
    specs = list(asked.models)
    if RANDOM in specs:
        small = make_llama(asked.output / RANDOM, width=192, inner=512, layers=12, heads=6)
        specs[specs.index(RANDOM)] = str(small)
    print_fits(asked.models, [measured(spec) for spec in specs])


if __name__ == "__main__":
    main()
