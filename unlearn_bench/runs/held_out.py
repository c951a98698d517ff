"""Options are chosen on items that no test suite asks: checked on the very items that are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from unlearn_bench.config import Suite, list_suites
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.overlap import normalise
from unlearn_bench.data.sources import load_documents, load_validation, resolve_task_dataset
from unlearn_bench.errors import CorruptDataError, MissingDataError
from unlearn_bench.protocols.catalog import MINI, Protocol, list_protocols

PROMPT_FIELDS = ("prompt", "question", "page", "text")


def asked_by_tests(sources: SourceOptions) -> list[Protocol]:
    """Every task of every shipped test suite, with the data that it would have here.

    A task whose data no source has is left out: no suite can ask it here either.
    """
    known = list_protocols()
    suites = [suite for suite in list_suites().values() if suite.part == "test"]
    tasks = {task for suite in suites for task in suite.tasks}
    found = []
    for task in sorted(tasks):
        try:
            dataset = resolve_task_dataset(known[task].dataset, sources)
        except MissingDataError:
            continue
        found.append(known[task] if dataset == known[task].dataset else known[task + MINI])
    return found


def prompts_of(
    suite: Suite, protocols: Mapping[str, Protocol], sources: SourceOptions
) -> list[str]:
    """Every prompt that models are asked, which no text that methods read may repeat.

    Beside a validation suite's own these are all of the test suites', so that tuning and testing
    train on the same texts.
    """
    datasets = [protocol.dataset for protocol in protocols.values()]
    parts = []
    if suite.part == "validation":
        parts = [load_validation(dataset, sources) for dataset in datasets]
        datasets = [protocol.dataset for protocol in asked_by_tests(sources)]
    parts += [load_documents(dataset, sources) for dataset in datasets]
    rows = (row for part in parts for rows in part.splits.values() for row in rows)
    return [text for row in rows for text in _prompts(row)]


def check_held_out(suite: Suite, protocols: Mapping[str, Protocol], sources: SourceOptions) -> None:
    """Raise CorruptDataError if a validation suite would ask what a shipped test suite asks.

    Compared are ids, and prompts without regard to case and punctuation, over all items of the
    tests whatever their limits.
    """
    from unlearn_bench.engine.evaluate import load_tasks  # lm-eval takes seconds to import

    asked = load_tasks(
        list(protocols.values()),
        limits=suite.limits,
        samples_per_prompt=suite.samples_per_prompt,
        paraphrases=suite.paraphrases,
        sources=sources,
        part=suite.part,
    )
    tested = load_tasks(
        asked_by_tests(sources),
        limits={},
        samples_per_prompt=1,
        paraphrases=None,
        sources=sources,
    )
    ids, prompts = set[str](), set[tuple[str, ...]]()
    for document in _documents(tested.values()):
        ids.add(str(document["id"]))
        prompts.update(normalise(text) for text in _prompts(document))
    for document in _documents(asked.values()):
        if str(document["id"]) in ids or any(
            normalise(text) in prompts for text in _prompts(document)
        ):
            raise CorruptDataError(
                f"options would be chosen on the test item {document['id']!r}",
                where=f"suite {suite.name}",
                next_step="restore the data set's validation part, or leave its task out",
            )


def _documents(tasks: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield from task.eval_docs


def _prompts(row: Mapping[str, Any]) -> list[str]:
    return [str(row[field]) for field in PROMPT_FIELDS if field in row]
