"""Each part of an evaluation that was done anew, against how it was or how others do it.

    python benchmarks/parts.py [--model M] [PART ...]

* sampling:  one token for each of 128 requests by seeded top-p: vLLM's own sampler against ours;
* prefixes:  likelihoods of multiple-choice questions: every option read with its question against
             what options share read once (engine/token_tree.py);
* swap:      the next model: a new engine against weights swapped into the running one, both proven;
* start:     the first model: vLLM in processes of its own, as by default, against in ours;
* scorer:    judging 256 texts: in batches of 1 and of 8 against batches of 64;
* parquet:   an evaluation's answers on disk: lm-eval's JSON lines against our parquet, seconds and
             size, read back too.

Prints seconds before and after and their ratio: best of three, but for engines, which start once.
Not everything is faster: docs/design/engine.md says what is not, and what it is there for.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from unlearn_bench.data.fur import load_fur
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents
from unlearn_bench.engine.likelihood import LikelihoodScorer
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.engine.vllm_engine import ENVIRONMENT, VllmEngine
from unlearn_bench.models.load import load_model
from unlearn_bench.models.open import open_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.runs.judge import load_judges, scorer_candidates
from unlearn_bench.runs.store import read_samples, write_samples
from unlearn_bench.schema import Sample

Line = tuple[str, float, float]  # what, seconds before, seconds after
ROWS, VOCABULARY, TOP_P = 128, 49_152, 0.9
QUESTIONS, TEXTS, SAMPLES = 16, 256, 2000


def best(work: Callable[[], Any], times: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def sampling(model: OpenedModel) -> Iterator[Line]:
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch, random_sample

    from unlearn_bench.engine.nucleus import draw_from_nucleus

    torch.manual_seed(0)
    logits = 3 * torch.randn(ROWS, VOCABULARY)
    top_p, drawn = torch.full((ROWS,), TOP_P), torch.rand(ROWS)
    own = {row: torch.Generator().manual_seed(row) for row in range(ROWS)}

    def theirs() -> None:
        kept = apply_top_k_top_p_pytorch(logits.clone(), None, top_p)
        random_sample(kept.softmax(dim=-1, dtype=torch.float32), own)

    yield "sampling", best(theirs), best(lambda: draw_from_nucleus(logits, top_p, drawn))


def prefixes(model: OpenedModel) -> Iterator[Line]:
    loaded, tokenizer = load_model(model.folder)
    splits = load_documents("truthfulqa_mini", SourceOptions(offline=True)).splits
    rows = next(iter(splits.values()))[:QUESTIONS]
    asked = [
        Request(
            tuple(tokenizer.encode(f"Q: {row['question']}\nA:")),
            tuple(tokenizer.encode(f" {choice}")),
        )
        for row in rows
        for choice in row["mc2_targets"]["choices"]
    ]
    plain, tree = (LikelihoodScorer(loaded, tree=tree) for tree in (False, True))
    before, after = best(lambda: plain.score(asked)), best(lambda: tree.score(asked))
    yield f"prefixes, {len(asked)} options", before, after


def _engine_seconds(model: OpenedModel) -> dict[str, float]:
    """In this process: the first load, and one that swaps."""
    engine = VllmEngine("mixed", "cpu", {})
    first, second = (
        best(lambda: engine.load(model.folder, model.fingerprint), 1) for _ in range(2)
    )
    return {"first": first, "swap": second}


def _child(model: str, **environment: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--engine", "--model", model]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def swap(model: OpenedModel) -> Iterator[Line]:
    found = _child(str(model.folder))
    yield "swap", found["first"], found["swap"]


def start(model: OpenedModel) -> Iterator[Line]:
    options = "dtype='bfloat16', max_model_len=4096, enforce_eager=True"
    options += ", kv_cache_memory_bytes=600_000_000"
    program = "from vllm import LLM\n"
    program += f"if __name__ == '__main__': LLM(model={str(model.folder)!r}, {options})"

    def run(**environment: str) -> float:
        command = [sys.executable, "-c", program]
        given = {**os.environ, **environment}
        return best(lambda: subprocess.run(command, env=given, capture_output=True, check=True), 1)

    yield "start, with imports", run(VLLM_ENABLE_V1_MULTIPROCESSING="1"), run(**ENVIRONMENT)


def _texts() -> list[str]:
    """Distinct texts of unlike lengths."""
    words = " ".join(example.answer for example in load_fur().target_training()).split()
    draw = random.Random(0)
    lengths = [draw.choice((5, 20, 40, 80)) for _ in range(TEXTS)]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def scorer(model: OpenedModel) -> Iterator[Line]:
    judged = {"toxigen_mini": find_protocol("toxigen_mini")}
    judge, _ = load_judges([scorer_candidates("embedded")], None, judged, False)
    texts, own = _texts(), cast(Any, judge.scorer)  # a dataclass
    after = best(lambda: own.score(texts))
    for size in (1, 8):
        other = replace(own, batch_size=size)
        yield f"scorer, batches of {size}", best(functools.partial(other.score, texts)), after


def parquet(model: OpenedModel) -> Iterator[Line]:
    samples = [
        Sample(
            task="t", item_id=str(n), filter="none", prompt=text, outputs=(text,) * 4,
            values={"acc": 1.0}, likelihoods=((-1.5, True),) * 4,
            document={"id": str(n), "question": text, "choices": [text] * 4},
        )
        for n, text in enumerate(_texts() * (SAMPLES // TEXTS))
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        lines, table = Path(folder) / "samples.jsonl", Path(folder) / "samples.parquet"

        def write_lines() -> None:
            lines.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))

        def read_lines() -> list[Any]:
            return [json.loads(line) for line in lines.read_text().splitlines()]

        yield (
            f"parquet, {len(samples)} samples written",
            best(write_lines),
            best(lambda: write_samples(table, samples)),
        )
        yield "parquet, read", best(read_lines), best(lambda: read_samples(table))
        yield "parquet, MB", lines.stat().st_size / 1e6, table.stat().st_size / 1e6


PARTS = {part.__name__: part for part in (sampling, prefixes, swap, start, scorer, parquet)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    model = open_model(asked.model)
    if asked.engine:
        print(json.dumps(_engine_seconds(model)))
        return
    print(f"{'seconds':34}{'before':>9}{'after':>9}{'ratio':>8}")
    for name in asked.parts or PARTS:
        for what, before, after in PARTS[name](model):
            print(f"{what:34}{before:9.3f}{after:9.3f}{before / after:8.1f}", flush=True)


if __name__ == "__main__":
    main()
