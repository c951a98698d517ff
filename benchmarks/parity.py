"""Our answers against those of unmodified lm-eval on transformers, item by item.

    python benchmarks/parity.py --output FOLDER [--model M] [--data FOLDER] [--engine E]
                                [--tasks T ...] [--limit N]

Both sides get the same weights in float32, the same documents and lm-eval's own definition of each
task (prompts, few-shot examples, filters, metrics). Each task runs on each side in a process of its
own and is kept in FOLDER, so a second call only runs what is missing. Prints Markdown: per metric
both values, on how many items the two sides say the same, and below it every item on which they do
not. Without --data the bundled mini sets are asked.

A likelihood is the same within 0.001 nats per option and with the same greedy flag; a page's
log-likelihood within 0.001 of its value; a generated text letter by letter.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from lm_eval.evaluator import simple_evaluate
from sqlitedict import SqliteDict

from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import resolve_task_dataset
from unlearn_bench.engine.base import Engine, open_engine
from unlearn_bench.engine.evaluate import evaluate, load_tasks
from unlearn_bench.models.open import open_model
from unlearn_bench.protocols.catalog import find_protocol

TASKS = ("truthfulqa", "wikitext", "toxigen_classification", "gsm8k")
# A page is a window of as many tokens as the model reads, each with the whole vocabulary's logits.
BATCH, PAGES = 16, 1
FEWSHOT_SEED = 1234
CORES = len(os.sched_getaffinity(0))
CLOSE = 1e-3  # nats per option; of a page, relative
SHOWN = 60  # letters of a text that differs
Answer = dict[str, Any]  # subtask, filter, item, prompt, likelihoods, texts, values


@dataclass(frozen=True)
class Difference:
    """One item on which the two sides do not say the same."""

    item: str
    what: str


def load(limits: Mapping[str, int | None], sources: SourceOptions) -> dict[str, Any]:
    """lm-eval's tasks by the name of each subtask; limits: per task's data set, how many items."""
    found = {name: find_protocol(resolve_task_dataset(name, sources)) for name in limits}
    return load_tasks(
        list(found.values()),
        limits={found[name].name: limit for name, limit in limits.items()},
        samples_per_prompt=1,
        paraphrases=0,
        sources=sources,
    )


def answer_ours(engine: Engine, tasks: dict[str, Any]) -> list[Answer]:
    return [
        {
            "subtask": sample.task,
            "filter": sample.filter,
            "item": sample.item_id,
            "likelihoods": [list(pair) for pair in sample.likelihoods],
            "texts": list(sample.outputs),
            "values": sample.values,
        }
        for sample in evaluate(engine, tasks, seed=0)
    ]


def answer_stock(folder: Path, tasks: dict[str, Any], cache: Path | None = None) -> list[Answer]:
    """What unmodified lm-eval logs through its own transformers model, with the seed of ours.

    cache: lm-eval's own cache of responses; hours of batches outlive a process that ended.
    """
    pages = any(task.OUTPUT_TYPE == "loglikelihood_rolling" for task in tasks.values())
    batch = PAGES if pages else BATCH
    lm = get_model("hf")(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch)
    results = simple_evaluate(
        model=lm,
        tasks=list(tasks.values()),
        bootstrap_iters=0,
        fewshot_random_seed=FEWSHOT_SEED,
        use_cache=str(cache) if cache else None,
    )
    assert results is not None
    return [
        _stock_answer(subtask, logged, tasks[subtask].OUTPUT_TYPE)
        for subtask, samples in results["samples"].items()
        for logged in samples
    ]


def generate_stock(cache: Path) -> None:
    """Fill lm-eval's cache with what its transformers model writes, in a process per core.

    On a CPU it is faster so than in one process with batches, where the shorter texts wait for the
    longest: with two cores 4 s a text of GSM8K instead of 7 (32 with batches of 16).
    """
    command = [sys.executable, *sys.argv, "--part"]
    parts = range(CORES)
    workers = [subprocess.Popen([*command, str(part)]) for part in parts]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise SystemExit("a process that asked stock lm-eval ended early; run the command again")
    with SqliteDict(f"{cache}_rank0.db", autocommit=True) as whole:
        for part in parts:
            with SqliteDict(_part_of(cache, part)) as known:
                whole.update(known)


def generate_part(folder: Path, tasks: dict[str, Any], cache: Path, part: int) -> None:
    """One process's share of `generate_stock`."""
    torch.set_num_threads(1)
    lm = get_model("hf")(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)
    kept = CachingLM(lm, _part_of(cache, part))
    for task in tasks.values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        task.build_all_requests(rank=0, world_size=1)
        kept.generate_until(task.instances[part::CORES])


def _part_of(cache: Path, part: int) -> str:
    return f"{cache}-part{part}.db"


def _stock_answer(subtask: str, logged: dict[str, Any], kind: str) -> Answer:
    """kind: lm-eval's name of what was asked. A text may be a number: it does not tell."""
    responses = [options[0] for options in logged["resps"]]
    written, rolling = kind == "generate_until", kind == "loglikelihood_rolling"
    return {
        "subtask": subtask,
        "filter": logged["filter"],
        "item": str(logged["doc_id"]),
        "likelihoods": []
        if written
        else [[float(responses[0]), False]]
        if rolling
        else [[float(lp), str(greedy) == "True"] for lp, greedy in responses],
        "texts": responses if written else [],
        "values": {name: logged[name] for name in logged["metrics"]},
    }


def differences(mine: Answer, stock: Answer) -> Iterator[str]:
    """What the two say otherwise about one item."""
    if mine["texts"] != stock["texts"]:
        at = _parting(mine["texts"][0], stock["texts"][0])
        ours, theirs = (side["texts"][0][at : at + SHOWN] for side in (mine, stock))
        yield f"texts part at letter {at}: {ours!r} / {theirs!r}"
    rolling = not mine["texts"] and len(mine["likelihoods"]) == 1
    for option, (one, other) in enumerate(
        zip(mine["likelihoods"], stock["likelihoods"], strict=True)
    ):
        gap = abs(one[0] - other[0])
        if gap > (CLOSE * abs(other[0]) if rolling else CLOSE):
            yield f"option {option}: {one[0]:.4f} / {other[0]:.4f} nats"
        if not rolling and one[1] != other[1]:
            yield f"option {option}: greedy {one[1]} / {other[1]}"
    for name, value in stock["values"].items():
        if name in mine["values"] and not _same(mine["values"][name], value):
            yield f"{name} {mine['values'][name]} / {value}"


def _parting(one: str, other: str) -> int:
    """Index of the first letter that is another one."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _same(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True) if isinstance(other, list | tuple) else [(one, other)]
    return all(math.isclose(float(a), float(b), rel_tol=CLOSE, abs_tol=CLOSE) for a, b in pairs)


def compare(ours: list[Answer], stock: list[Answer]) -> Iterator[tuple[str, int, list[Difference]]]:
    """Per subtask and filter: its name, its number of items, and where the sides differ."""
    names = dict.fromkeys((one["subtask"], one["filter"]) for one in stock)
    for name in names:
        left, right = (
            [one for one in side if (one["subtask"], one["filter"]) == name]
            for side in (ours, stock)
        )
        found = [
            Difference(mine["item"], "; ".join(parts))
            for mine, theirs in zip(left, right, strict=True)
            if (parts := list(differences(mine, theirs)))
        ]
        yield ", ".join(part for part in name if part != "none"), len(right), found


def mean(answers: list[Answer], subtask: str, filter_name: str, metric: str) -> float:
    """lm-eval's own aggregation of the kinds that these tasks have."""
    values = [
        one["values"][metric]
        for one in answers
        if (one["subtask"], one["filter"]) == (subtask, filter_name) and metric in one["values"]
    ]
    if isinstance(values[0], list | tuple):
        total, weight = (sum(float(pair[i]) for pair in values) for i in (0, 1))
        nats = -total / weight
        return nats / math.log(2) if metric == "bits_per_byte" else math.exp(nats)
    return sum(map(float, values)) / len(values)


def render(task: str, ours: list[Answer], stock: list[Answer]) -> Iterator[str]:
    """Markdown lines of one task."""
    yield f"\n### {task}\n"
    yield "| metric | ours | stock | items | alike |"
    yield "|---|---:|---:|---:|---:|"
    compared = list(compare(ours, stock))
    names = dict.fromkeys((one["subtask"], one["filter"]) for one in stock)
    for (subtask, kind), (label, count, found) in zip(names, compared, strict=True):
        first = next(one for one in stock if (one["subtask"], one["filter"]) == (subtask, kind))
        for metric in first["values"]:
            if not any(metric in one["values"] for one in ours if one["subtask"] == subtask):
                continue
            left, right = (mean(side, subtask, kind, metric) for side in (ours, stock))
            alike = f"{count - len(found)}"
            yield f"| {label}: {metric} | {left:.6g} | {right:.6g} | {count} | {alike} |"
    yield ""
    for label, _, found in compared:
        for one in found:
            yield f"- {label}, item {one.item}: {one.what.replace('|', chr(92) + '|')}"


def run_side(side: str, task: str, arguments: argparse.Namespace) -> list[Answer]:
    """One task's answers of one side: what an earlier call kept, or fresh ones."""
    limit = f"-{arguments.limit}" if arguments.limit else ""
    kept = arguments.output / f"{task}{limit}-{side}.json"
    if not kept.exists():
        command = [sys.executable, __file__, "--side", side, "--one", task]
        command += ["--output", str(kept), "--model", arguments.model]
        command += ["--engine", arguments.engine]
        command += ["--data", str(arguments.data)] if arguments.data else []
        command += ["--limit", str(arguments.limit)] if arguments.limit else []
        subprocess.run(command, check=True)
    answers: list[Answer] = json.loads(kept.read_text())
    return answers


def answer_one(arguments: argparse.Namespace) -> None:
    """One task on one side, in this process: written whole, or not at all."""
    logging.disable(logging.WARNING)
    sources = SourceOptions(data_folder=arguments.data)
    tasks = load({arguments.one: arguments.limit}, sources)
    model = open_model(arguments.model)
    cache = arguments.output.with_suffix("")
    if arguments.part is not None:
        generate_part(model.folder, tasks, cache, arguments.part)
        return
    if arguments.side == "stock":
        if all(task.OUTPUT_TYPE == "generate_until" for task in tasks.values()):
            generate_stock(cache)
        answers = answer_stock(model.folder, tasks, cache)
    else:
        engine = open_engine(arguments.engine, "float32")
        engine.load(model.folder, model.fingerprint)
        answers = answer_ours(engine, tasks)
        engine.close()
    unfinished = arguments.output.with_suffix(".part")
    unfinished.write_text(json.dumps(answers))
    unfinished.rename(arguments.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--engine", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--side", choices=["ours", "stock"], help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        answer_one(arguments)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f"Model {arguments.model}, engine {arguments.engine}, float32.")
    for task in arguments.tasks:
        ours, stock = (run_side(side, task, arguments) for side in ("ours", "stock"))
        for line in render(task, ours, stock):
            print(line, flush=True)


if __name__ == "__main__":
    main()
