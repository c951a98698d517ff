"""A low-rank edit served as an adapter beside the weights, against one merged and swapped in.

    python benchmarks/adapters.py [--model M] [--texts N] [--tokens T] [--rank R] [--dtype D]

One adapter on every linear layer, and N sampled continuations of T tokens. Each way runs in a
process of its own, with the engine's own settings:

* merged:  what a cell does: the merged weights are swapped into the running engine, then it writes;
* adapter: vLLM with LoRA switched on reads the adapter's file, then writes through it;
* idle:    that engine without the adapter, as it would write for every other method.

Prints seconds to make the change ready, seconds to write, and how many of the texts are those of
`merged`: a rounding that differs turns a text sooner or later. Ratios hold across machines; seconds
do not.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_bench.data.fur import load_fur
from unlearn_bench.engine.base import Generation
from unlearn_bench.engine.vllm_engine import VllmEngine
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.open import open_model

CHANGE = 0.02  # of a matrix's norm: what the board's trained edits do to one
WAYS = ("merged", "adapter", "idle")


@dataclass(frozen=True)
class Served:
    """Seconds until the edited model could answer, seconds of its answers, and these."""

    ready: float
    written: float
    texts: list[str]


def write_edit(model: str, rank: int, folder: Path) -> None:
    """A random adapter (`adapter`), the model with it merged (`merged`) and without (`base`)."""
    source = open_model(model).folder
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    base.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear")
    adapted = peft.get_peft_model(base, config)
    for module in adapted.modules():
        if isinstance(module, peft.tuners.lora.Linear):
            a, b = module.lora_A["default"].weight.data, module.lora_B["default"].weight.data
            b.normal_()
            b *= CHANGE * module.base_layer.weight.norm() / (b @ a).norm()
    adapted.save_pretrained(folder / "adapter")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    for name in ("base", "merged"):
        tokenizer.save_pretrained(folder / name)


def prompts(tokenizer: Any, count: int, tokens: int) -> list[Generation]:
    """The first questions of our own facts, each drawn as RealToxicityPrompts' texts are."""
    texts = list(filter(None, (example.prompt for example in load_fur().target_training())))
    if count > len(texts):
        raise SystemExit(f"--texts: at most {len(texts)}")
    return [
        Generation(tuple(tokenizer.encode(text)), tokens, (), 1.0, 0.9, seed)
        for seed, text in enumerate(texts[:count])
    ]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def serve(way: str, folder: Path, asked: argparse.Namespace) -> Served:
    """One way, in this process."""
    args = {} if way == "merged" else {"enable_lora": True, "max_lora_rank": asked.rank}
    engine = VllmEngine(asked.dtype, "cpu" if not torch.cuda.is_available() else "cuda", args)
    engine.load(folder / "base", fingerprint(folder / "base"))
    requests = prompts(engine.tokenizer, asked.texts, asked.tokens)
    engine.generate(requests[:2])  # what the first text costs is no part of any way
    if way == "merged":
        ready, _ = timed(lambda: engine._load_generator(folder / "merged"))
    elif way == "adapter":
        ready, _ = timed(lambda: _add_adapter(engine._llm, folder / "adapter"))
    else:
        ready = 0.0
    written, texts = timed(lambda: engine.generate(requests))
    return Served(ready, written, texts)


def _add_adapter(llm: Any, folder: Path) -> None:
    """Every later text goes through the adapter."""
    from vllm.lora.request import LoRARequest

    request = LoRARequest("edit", 1, str(folder))
    llm.llm_engine.add_lora(request)
    generate = llm.generate
    llm.generate = lambda *given, **named: generate(*given, lora_request=request, **named)


def run_child(way: str, folder: Path, asked: argparse.Namespace) -> Served:
    command = [sys.executable, __file__, "--one", way, "--folder", str(folder)]
    for name in ("texts", "tokens", "rank", "dtype"):
        command += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Served(**json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--texts", type=int, default=160)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", default="mixed", choices=["float32", "mixed"])
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.one:
        print(json.dumps(asdict(serve(asked.one, asked.folder, asked))))
        return
    with tempfile.TemporaryDirectory() as place:
        write_edit(asked.model, asked.rank, Path(place))
        found = {way: run_child(way, Path(place), asked) for way in WAYS}
    merged = found["merged"]
    print(f"{'seconds':10}{'ready':>8}{'written':>9}{'ratio':>7}{'texts as merged':>17}")
    for way, served in found.items():
        alike = sum(a == b for a, b in zip(served.texts, merged.texts, strict=True))
        ratio = (served.ready + served.written) / (merged.ready + merged.written)
        print(f"{way:10}{served.ready:8.2f}{served.written:9.1f}{ratio:7.2f}{alike:17}")


if __name__ == "__main__":
    main()
