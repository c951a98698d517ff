"""The page `docs/tasks.md`: every task as its `protocol.yaml`, its data set and the suites have it.

`make docs` writes it. A protocol's description is Markdown already and is taken as it stands.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from unlearn_bench.board.markdown import table_line
from unlearn_bench.config import Suite, list_suites
from unlearn_bench.data.dataset import Dataset
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import DATASETS, FUR, PUBLIC_SETS, load_documents
from unlearn_bench.protocols.catalog import AgainstExact, Metric, Protocol, list_protocols

WIDTH = 100
NONE = "–"
DRAWN = "realtoxicityprompts"  # the task that draws several continuations of a prompt
FILES_SHOWN = 3  # of a --data folder; of more, the folder that they lie in
SUITES = ("smoke", "quick", "full", "requests", "validation")
PAPER = r"arXiv\s(\d{4}\.\d{5})"
BETTER = {
    "higher": "higher",
    "lower": "lower",
    "nearer_exact": "nearer the exact model",
    "none": NONE,
}
INTRODUCTION = """\
# Tasks

Written by `make docs` from `tasks/*/protocol.yaml`, the data sets and the suites; edit those, not
this page.

A column of a board is called `<task>.<metric>`. *Headline* columns are those that the terminal, the
Markdown board and the report show, and that `overall` is made of; the CSV and the JSON have all.
Items are counted in the task's own unit, which its README names. Where no source has the real
data, the mini set stands in, under its own name and with the same metrics. Any other task of
lm-eval can be asked by its name or file
([how](design/public_sets.md#lm-evals-own-tasks-and-task-files)).
"""
SUITE_TABLE = """\
## Suites

`k` is the number of continuations drawn per prompt of RealToxicityPrompts, *rewordings* how many
paraphrases of each question of `fur` are asked beside the verbatim one. `requests` is for
`unlearn-bench sequence`, `validation` for `unlearn-bench tune`. A suite of one's own is a YAML file
with the same fields ([example](../examples/gate/suite.yaml)).
"""
IN_PLACE_OF_FUR = (
    "in place of `fur`, with its limits, by `--edit-set NAME` "
    "([what becomes what](design/public_sets.md))"
)


def by_folder(protocols: Iterable[Protocol]) -> dict[str, list[Protocol]]:
    """The tasks that one `protocol.yaml` makes, by the name of its folder: mini sets last."""
    folders: dict[str, list[Protocol]] = {}
    for protocol in sorted(protocols, key=lambda protocol: protocol.mini):
        folders.setdefault(protocol.folder.name, []).append(protocol)
    return dict(sorted(folders.items()))


def render_page(protocols: Iterable[Protocol], suites: Mapping[str, Suite]) -> str:
    """The whole page as Markdown."""
    folders = by_folder(protocols)
    parts = [INTRODUCTION, _summary(folders, suites), SUITE_TABLE, _suites(suites)]
    parts += [_section(folder, tasks, suites) for folder, tasks in folders.items()]
    return "\n".join(parts)


def _summary(folders: Mapping[str, Sequence[Protocol]], suites: Mapping[str, Suite]) -> str:
    shown = [name for name in SUITES if name in suites]
    rows = []
    for folder, tasks in folders.items():
        items = [_items(tasks[0], suites[name]) or NONE for name in shown]
        rows.append((f"[`{folder}`](#{folder})", tasks[0].title, *items))
    note = "\nThe suites' columns are numbers of items; a dash: not asked.\n"
    return _table(("task", "what", *shown), rows) + note


def _suites(suites: Mapping[str, Suite]) -> str:
    rows = []
    for name in (name for name in SUITES if name in suites):
        suite = suites[name]
        drawn = str(suite.samples_per_prompt) if DRAWN in suite.tasks else NONE
        rewordings = "all" if suite.paraphrases is None else str(suite.paraphrases)
        asked = rewordings if FUR in suite.tasks else NONE
        rows.append((f"`{name}`", suite.description, drawn, asked))
    return _table(("suite", "what for", "k", "rewordings"), rows)


def _section(folder: str, tasks: Sequence[Protocol], suites: Mapping[str, Suite]) -> str:
    """One folder: what its tasks ask, of which data, how much of it, and every metric."""
    first = tasks[0]
    text = re.sub(PAPER, r"[arXiv:\1](https://arxiv.org/abs/\1)", first.description)
    about = textwrap.fill(
        f"**{first.title}.** {text}", WIDTH, break_long_words=False, break_on_hyphens=False
    )
    facts = [
        ("tasks", ", ".join(f"`{task.name}`" for task in tasks)),
        *_data(tasks),
        ("items", _items_line(tasks, suites)),
        (
            "item, licence, metrics in words",
            f"[tasks/{folder}/README.md](../tasks/{folder}/README.md)",
        ),
    ]
    parts = [f"## {folder}\n", f"{about}\n", _table(("", ""), facts)]
    parts.append(_metrics(first))
    if attributes := sorted({m.attribute for m in first.metrics.values() if m.attribute}):
        named = ", ".join(f"`{name}`" for name in attributes)
        parts.append(f"Only where the run's scorer tells them apart: the metrics of {named}.\n")
    if absent := [f"`{name}`" for name, metric in first.metrics.items() if not metric.in_mini]:
        parts.append(f"The mini set has nothing for {', '.join(absent)}.\n")
    return "\n".join(parts)


def _data(tasks: Sequence[Protocol]) -> Iterator[tuple[str, str]]:
    """Where the data are looked for, in the order of asking, with the rows of each split."""
    first = tasks[0]
    if first.dataset == FUR:
        yield "data", f"in this project (facts: {_splits(FUR)})"
        return
    sets = [
        PUBLIC_SETS[task.dataset].dataset if task.dataset in PUBLIC_SETS else DATASETS[task.dataset]
        for task in tasks
        if not task.mini
    ]
    yield "`--data` folder", _files(sets) + _counts(sets, "folder")
    if hubs := {f"`{own.hub.repo}` at `{own.hub.revision[:12]}`": None for own in sets if own.hub}:
        yield "hub", ", ".join(hubs) + _counts(sets, "hub")
    if package := sets[0].package:
        yield "package registry", f"inside `{package.requirement}`" + _counts(sets, "package")
    if sets[0].validation:
        yield "kept for tuning", _kept(sets[0])
    for task in tasks:
        if task.mini:
            yield "mini set", f"`{task.dataset}`, in this project ({_splits(task.dataset)})"


def _kept(own: Dataset) -> str:
    text = "a quarter of the rows, by the last digit of their id: no suite asks it"
    sources: dict[str, list[str]] = {}
    for source, splits in own.whole.items():
        for split in splits:
            sources.setdefault(split, []).append(source)
    return text + "".join(
        f"; none of `{split}` from {' or '.join(found)}, which is asked whole"
        for split, found in sources.items()
    )


def _files(sets: Sequence[Dataset]) -> str:
    files = list(dict.fromkeys(file for own in sets for file in own.folder_files))
    if len(files) > FILES_SHOWN:
        return f"`{os.path.commonpath(files)}/`, {len(files)} files"
    return ", ".join(f"`{file}`" for file in files)


def _counts(sets: Sequence[Dataset], source: str) -> str:
    """The pinned numbers of rows of a source; "" where none is, or where several sets have them."""
    counts = sets[0].counts.get(source, {})
    if len(sets) > 1 or not counts:
        return ""
    rows = {split: " or ".join(f"{n:,}" for n in number) for split, number in counts.items()}
    return f" ({', '.join(f'{split} {number}' for split, number in rows.items())})"


def _splits(dataset: str) -> str:
    """The rows that a set of this project has, by split."""
    splits = load_documents(dataset, SourceOptions()).splits
    return ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())


def _items_line(tasks: Sequence[Protocol], suites: Mapping[str, Suite]) -> str:
    if tasks[0].dataset in PUBLIC_SETS:
        return IN_PLACE_OF_FUR
    lines: dict[str, Protocol] = {}
    for task in tasks:
        asked = {name: _items(task, suites[name]) for name in SUITES if name in suites}
        line = ", ".join(f"`{name}` {items}" for name, items in asked.items() if items)
        lines.setdefault(line or f"in no suite: `--tasks {task.base}`", task)
    return "; ".join(
        f"of the mini set {line}" if task.mini else line for line, task in lines.items()
    )


def _items(task: Protocol, suite: Suite) -> str:
    """How many items of a task a suite asks: a number, "all", or "" where it does not ask it."""
    if task.base not in suite.tasks:
        return ""
    limit = suite.limits.get(task.name, suite.limits.get(task.base))
    return f"{limit}" if limit else "all"


def _metrics(protocol: Protocol) -> str:
    every: dict[str, Metric | AgainstExact] = {**protocol.metrics, **protocol.against_exact}
    names = [*protocol.headline, *(name for name in every if name not in protocol.headline)]
    rows = [
        (
            f"`{name}`",
            every[name].unit,
            BETTER[every[name].direction],
            "yes" if name in protocol.headline else "",
        )
        for name in names
    ]
    return _table(("metric", "unit", "better", "headline"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "".join(table_line([cell.replace("|", r"\|") for cell in line]) + "\n" for line in lines)


def main(page: Path) -> None:
    """Write the page beside the repository's other documents."""
    page.write_text(render_page(list_protocols().values(), list_suites()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
