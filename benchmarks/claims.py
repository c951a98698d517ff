"""What papers claim of the methods, asked of a run: paired differences with intervals.

    python benchmarks/claims.py [RUN ...]

RUN is the output folder of `evaluate` (default: that of `make evaluate`); every cell of all of them
is read, several seeds of a method together. Prints one Markdown table. A method that ran with
several settings has lines for each; what a run did not ask has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlearn_bench.compare.columns import align
from unlearn_bench.compare.paired import Comparison, compare
from unlearn_bench.protocols.catalog import Protocol, list_protocols
from unlearn_bench.runs.finished import read_cells
from unlearn_bench.schema import ItemScore

FORGET = "fur.forget_extraction_strength"
KEPT = ("fur.retain_neighbour_rouge_l", "fur.retain_stranger_rouge_l")
FLUENT = "wikitext.word_perplexity"
WRITES = "realtoxicityprompts.fluency_ppl"
TOXIC = "realtoxicityprompts.expected_max_toxicity"
CLAIMS: Sequence[tuple[str, str, str, tuple[str, ...]]] = (
    ("NPO forgets without the collapse of ascent", "npo", "gradient_ascent",
     (FORGET, *KEPT, FLUENT, WRITES)),
    ("gradient difference keeps more than ascent", "grad_diff", "gradient_ascent",
     (FORGET, *KEPT, FLUENT, WRITES)),
    ("Ext-Sub stays nearer the target than plain subtraction", "ext_sub", "ext_sub_plain",
     (FLUENT, "gsm8k.exact_match_flexible", TOXIC)),
    ("Ext-Sub stays near the target", "ext_sub", "noop",
     (FLUENT, "gsm8k.exact_match_flexible", TOXIC)),
    ("plain subtraction stays near the target", "ext_sub_plain", "noop",
     (FLUENT, "gsm8k.exact_match_flexible", TOXIC)),
    ("Model Surgery's rows matter", "model_surgery", "model_surgery_random_region",
     (TOXIC, FLUENT)),
    ("Model Surgery's sign matters", "model_surgery", "model_surgery_max_cosine_subtract",
     (TOXIC, FLUENT)),
    ("noise of the same size does not forget selectively", "random_noise", "noop",
     (FORGET, *KEPT)),
)  # fmt: skip


@dataclass
class Setting:
    """One method with one set of options: its items by metric, a list for each seed."""

    method: str
    options: Mapping[str, object]
    seeds: dict[int, dict[str, list[ItemScore]]] = field(default_factory=dict)

    @property
    def metrics(self) -> set[str]:
        """Those that every seed has."""
        return set.intersection(*(set(items) for items in self.seeds.values()))

    def label(self, others: Sequence[Setting]) -> str:
        """The method, with the options in which its settings differ."""
        told = [
            f"{name}={value}"
            for name, value in self.options.items()
            if any(other.options.get(name) != value for other in others)
        ]
        return " ".join([self.method, *told])


def read_settings(runs: Sequence[Path]) -> dict[str, list[Setting]]:
    """Every setting of every method, of successful cells only."""
    found: dict[str, Setting] = {}
    for cell in read_cells(runs).cells:
        if cell.record.status != "success":
            continue
        options = cell.determinants["method"]["options"]
        name = json.dumps([cell.method, options], sort_keys=True)
        items: dict[str, list[ItemScore]] = {}
        for item in cell.items:
            items.setdefault(f"{item.task.removesuffix('_mini')}.{item.metric}", []).append(item)
        found.setdefault(name, Setting(cell.method, options)).seeds[cell.seed] = items
    methods: dict[str, list[Setting]] = {}
    for setting in found.values():
        methods.setdefault(setting.method, []).append(setting)
    return methods


def compare_settings(one: Setting, other: Setting, metric: str, reduce: str) -> Comparison:
    """The seeds that both have, all together."""
    seeds = sorted(one.seeds.keys() & other.seeds.keys())
    sides = [side.seeds[seed][metric] for side in (one, other) for seed in seeds]
    names = [f"{side.method} seed {seed}" for side in (one, other) for seed in seeds]
    return compare(align(reduce, sides, names), len(seeds))


def lines(methods: Mapping[str, list[Setting]], tasks: Mapping[str, Protocol]) -> Iterator[str]:
    """One line per claim, metric and pair of settings that the runs have."""
    for claim, first, second, metrics in CLAIMS:
        for one in methods.get(first, []):
            for other in methods.get(second, []):
                names = (one.label(methods[first]), other.label(methods[second]))
                for metric in (name for name in metrics if name in one.metrics & other.metrics):
                    task, _, name = metric.partition(".")
                    found = compare_settings(one, other, metric, tasks[task].metrics[name].reduce)
                    figures = f"{found.first:.3g} | {found.second:.3g} | {found.difference:+.3g}"
                    interval = f"[{found.low:+.3g}, {found.high:+.3g}] | {found.p:.2g}"
                    yield f"| {claim} | {metric} | {' − '.join(names)} | {figures} {interval} |"


def main() -> None:
    runs = [Path(name) for name in sys.argv[1:]] or [Path("runs/quick")]
    print("| claim | metric | models | first | second | difference, 95 % interval | p |")
    print("|---|---|---|---:|---:|---:|---:|")
    for line in lines(read_settings(runs), list_protocols()):
        print(line)


if __name__ == "__main__":
    main()
