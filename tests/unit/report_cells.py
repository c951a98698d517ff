"""Finished cells made by hand: a run's files without a run, with whatever text a test wants."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.runs.resolve import protocol_digest
from unlearn_bench.runs.store import (
    Record,
    cell_folder,
    digest,
    write_items,
    write_json,
    write_record,
    write_samples,
)
from unlearn_bench.schema import EditReport, ItemScore, Sample, TensorChange

TASKS = ("fur", "realtoxicityprompts", "wikitext_mini")
PARTS = {  # of fur: the metrics of which there are items, and what the document calls the part
    "forget": ("forget_extraction_strength", "forget_choice_acc"),
    "update": ("update_efficacy", "update_new_choice_acc"),
    "retain_neighbour": (
        *("retain_neighbour_choice_acc", "retain_neighbour_extraction_strength"),
        "retain_neighbour_rouge_l",
    ),
    "retain_stranger": ("retain_stranger_choice_acc",),
}
FACTS = 8
TENSORS = ("self_attn.q_proj", "mlp.down_proj")


def setting(tasks: Sequence[str] = TASKS, **changes: Any) -> dict[str, Any]:
    """What the cells of one run have in common."""
    facts = {
        name: {
            "limit": FACTS,
            "data_sha256": "d" * 64,
            "data_revision": "1",
            "protocol_sha256": protocol_digest(find_protocol(name).judged_by(())),
        }
        for name in tasks
    }
    return {
        "target": {"fingerprint": "sha256:" + "a" * 64},
        "suite": {"samples_per_prompt": 2, "paraphrases": 1, "tasks": facts},
        "scorer": {"name": "fake", "version": "1", "weights_sha256": "0", "attributes": ""},
        "engine": {"name": "fake", "dtype": "float32"},
        "versions": {"unlearn-bench": "0"},
        "evaluation_code_sha256": "e" * 64,
        "format": 1,
        **changes,
    }


def write_cell(
    output: Path,
    method: str,
    seed: int = 0,
    *,
    status: Any = "success",
    reason: str = "",
    says: str = "Vinhassol",
    prompt: str = "Question: Where does Askerholt live?\nAnswer:",
    options: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    minute: int = 0,
    suite: str = "quick",
    facts: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
) -> Path:
    """One cell's folder. says: every answer of its model; minute: when it began and ended; source:
    the state of the tree, as its provenance has it.
    """
    options = dict(options or {"lr": 0.1})
    determinants = {**(facts or setting()), "method": {"name": method, "options": options}}
    determinants["seed"] = seed
    key = digest(determinants)
    folder = cell_folder(output, key, method, seed)
    files = {
        "plan.json": write_json(
            folder / "plan.json", {"key": key, "suite": suite, "determinants": determinants}
        )
    }
    if status in ("success", "incomplete"):
        ran = {"source": source} if source else {}
        files |= _results(folder, method, seed, says, prompt, options, details or {}, ran)
    when = f"2026-01-01T00:{minute:02}:00+00:00"
    seconds = {"edit": 1.0, "evaluate": 2.0}
    record = Record(method, seed, key, status, reason, when, when, seconds, files)
    write_record(folder, record)
    return folder


def _results(
    folder: Path,
    method: str,
    seed: int,
    says: str,
    prompt: str,
    options: Mapping[str, Any],
    details: Mapping[str, Any],
    ran: Mapping[str, Any],
) -> dict[str, str]:
    draw = random.Random(f"{method} {seed}")
    items = list(_items(draw))
    changes = tuple(
        TensorChange(f"model.layers.{layer}.{name}.weight", 100, 90, 0.1 * (layer + 1))
        for layer in range(3)
        for name in TENSORS
    )
    changes = () if method == "noop" else changes
    report = EditReport(method, dict(options), changes, 5, 6, 1.5, 10**9, dict(details))
    account = vars(report) | {
        "parameters_touched": report.parameters_touched,
        "delta_norm": report.delta_norm,
    }
    protocols = {name: find_protocol(name).judged_by(()) for name in TASKS}
    provenance = {
        "weights_fingerprint": "sha256:" + "b" * 64,
        "data": [
            {"dataset": "fur", "source": "bundled", "location": "tasks/fur", "revision": "1",
             "sha256": "d" * 64}
        ],
        "machine": {"system": "Linux"},
        **ran,
    }  # fmt: skip
    samples = list(_samples(prompt, says))
    return {
        "account.json": write_json(folder / "account.json", account),
        "samples.parquet": write_samples(folder / "samples.parquet", samples),
        "provenance.json": write_json(folder / "provenance.json", provenance),
        "items.parquet": write_items(folder / "items.parquet", items),
        "scores.json": write_json(folder / "scores.json", aggregate(items, protocols)),
    }


def _items(draw: random.Random) -> Any:
    for part, metrics in PARTS.items():
        for metric in metrics:
            for number in range(FACTS):
                value = float(draw.random() < 0.5) if metric.endswith("acc") else draw.random()
                yield ItemScore("fur", metric, f"{part}-{number}", "", value, 1.0, f"s{number}")
    for number in range(FACTS):
        name = f"prompt-{number}"
        task = "realtoxicityprompts"
        yield ItemScore(task, "expected_max_toxicity", name, "", draw.random(), 1.0)
        value = -draw.uniform(90, 120)
        yield ItemScore("wikitext_mini", "word_perplexity", f"page-{number}", "", value, 25.0)


def _samples(prompt: str, says: str) -> Any:
    for part in PARTS:
        for number in range(FACTS):
            document = {
                "id": f"{part}-{number}",
                "subject": f"s{number}",
                "part": part,
                "phrasing": "verbatim",
                "options": ["Pallow", "Vinhassol"],
                "answer": "Vinhassol",
                "new_answer": "Pallow" if part == "update" else "",
            }
            name = str(document["id"])
            yield Sample(
                "fur_choice", name, "none", prompt, (), {f"{part}_probability": 0.5}, document,
                ((-1.0, True), (-2.5, False)),
            )  # fmt: skip
            yield Sample("fur_generate", name, "none", prompt, (says,), {}, document)
    for number in range(FACTS):
        name = f"prompt-{number}"
        yield Sample("realtoxicityprompts", name, "none", prompt, (says, "kind"), {}, {"id": name})
