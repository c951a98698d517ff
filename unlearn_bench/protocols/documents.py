"""What lm-eval tasks ask for their documents: `custom_dataset: !function` in their YAML.

lm-eval calls the function with its task manager's metadata, which carries the run's sources and
limits, and with the YAML's `dataset_kwargs`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from unlearn_bench.data.dataset import interleave
from unlearn_bench.data.files import Row
from unlearn_bench.data.fur import Part, Role, load_fur, old_text
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import FUR, load_documents, load_edit_set, load_validation
from unlearn_bench.errors import MissingDataError


def run_metadata(
    sources: SourceOptions,
    limits: dict[str, int | None],
    paraphrases: int | None,
    part: Part = "test",
    edit_set: str = FUR,
) -> dict[str, Any]:
    """What `load` needs to know of a run, in the plain form that lm-eval can carry.

    limits: number of items per data set and task (None: all). part: "validation" asks the items on
    which options are chosen in place of the task's own. edit_set: what the run's models have
    learned.
    """
    return {
        "data_folder": str(sources.data_folder) if sources.data_folder else "",
        "offline": sources.offline,
        "cache": str(sources.cache),
        "limits": dict(limits),
        "paraphrases": paraphrases,
        "part": part,
        "edit_set": edit_set,
    }


def load(
    *,
    dataset: str,
    split: str,
    data_folder: str,
    offline: bool,
    cache: str,
    limits: dict[str, int | None],
    task: str = "",
    part: Part = "test",
    **_: Any,
) -> DatasetDict:
    """The documents of one data set; `split` is cut to the run's limit, the others stay whole.

    task: whose limit, where several tasks read one data set; else the data set's namesake. Of the
    part "validation" nothing else is loaded, and it stands under the name that the task
    asks for. Raises MissingDataError for a data set that keeps no such items.
    """
    sources = _sources(data_folder, offline, cache)
    if part == "validation":
        splits = {split: load_validation(dataset, sources).splits["validation"]}
    else:
        splits = dict(load_documents(dataset, sources).splits)
    splits[split] = splits[split][: limits.get(task or dataset)]
    return _as_dataset(splits, dataset, split)


def load_fur_questions(
    *,
    limits: dict[str, int | None],
    paraphrases: int | None,
    part: Part = "test",
    edit_set: str = FUR,
    parts: Sequence[str] = (),
    data_folder: str = "",
    offline: bool = False,
    cache: str = "",
    **_: Any,
) -> DatasetDict:
    """One document per fact and phrasing, parts interleaved so that every prefix is balanced, and
    within a part every subject asked once before any is asked twice.

    edit_set: `fur` or the public set in its place, whose limit counts facts; `paraphrases` how many
    rewordings of each are asked beside the verbatim question (None: all). Each document holds the
    options in a fixed shuffled order, and behind them the reworded answer of a set that has those:
    it is weighed against the wrong options, and nothing that could be chosen.

    parts: those that a subtask asks, of the facts that the limit leaves; () for all.
    """
    rows = load_edit_set(edit_set, _sources(data_folder, offline, cache)).evaluation_rows(part)
    facts = interleave(
        [
            {**row, "part": _part(role, row)}
            for role, own in rows.items()
            if role != "holdout"  # for membership, not for questions
            for row in _by_turns(own)
        ],
        strata=("part",),
    )[: limits.get(edit_set)]
    own = [fact for fact in facts if not parts or fact["part"] in parts]
    if parts and not own:
        raise MissingDataError(
            f"the limit of {limits.get(edit_set)} leaves {edit_set} no question of "
            + ", ".join(parts),
            next_step=f"raise it to {len(rows)}, the number of its parts",
        )
    documents = [document for fact in own for document in _phrasings(fact, paraphrases)]
    return _as_dataset({"test": documents}, edit_set, "test")


def _sources(data_folder: str, offline: bool, cache: str) -> SourceOptions:
    return SourceOptions(Path(data_folder) if data_folder else None, offline, Path(cache))


def load_membership(*, limits: dict[str, int | None], part: Part = "test", **_: Any) -> DatasetDict:
    """The texts that forget and holdout subjects are told by, in the form of the training: of the
    former the target has seen every one, of the latter no model any.

    `limits["membership"]` counts subjects, forget and holdout by turns.
    """
    data = load_fur()
    kinds: dict[str, Role] = {"member": "forget", "nonmember": "holdout"}
    subjects = interleave(
        [
            {"membership": kind, "subject": subject.id, "texts": old_text(subject)}
            for kind, role in kinds.items()
            for subject in data.select(part, role)
        ],
        strata=("membership",),
    )[: limits.get("membership")]
    documents = [
        {
            "id": text.id,
            "subject": row["subject"],
            "membership": row["membership"],
            "prompt": text.prompt,
            "text": text.answer,
        }
        for row in subjects
        for text in row["texts"]
    ]
    return _as_dataset({"test": documents}, "fur", "test")


def _by_turns(facts: Sequence[Row]) -> list[Row]:
    """One fact of each subject in turn, each subject's beginning at another place.

    Facts of one subject are one observation (docs/design/statistics.md): thirteen of three subjects
    could show no difference. And the first fact of everybody would always be the birthplace.
    """
    subjects: dict[str, list[Row]] = {}
    for row in facts:
        subjects.setdefault(row["subject"], []).append(row)
    turned = []
    for number, own in enumerate(subjects.values()):
        start = number % len(own)
        turned += [*own[start:], *own[:start]]
    return interleave(turned, strata=("subject",))


def _part(role: str, row: Row) -> str:
    return f"{role}_{row['relation']}" if row["relation"] else role


def _phrasings(fact: Row, paraphrases: int | None) -> list[Row]:
    questions = {"verbatim": fact["question"]}
    for number, question in enumerate(fact["paraphrases"][:paraphrases], start=1):
        questions[f"paraphrase{number}"] = question
    answers = [fact["answer"], *([fact["new_answer"]] if fact["new_answer"] else [])]
    options = [*answers, *fact["wrong_options"]]
    # Seeded by the fact: the order says nothing about which option is right, and never changes.
    random.Random(fact["id"]).shuffle(options)  # noqa: S311
    reworded = fact.get("paraphrased_answer")  # in no fact of a set that has none
    if reworded and reworded not in options:
        options.append(reworded)
    return [
        {
            "id": f"{fact['id']}:{phrasing}",
            "subject": fact["subject"],
            "part": fact["part"],
            "phrasing": phrasing,
            "prompt": fact["form"].format(question),
            "options": options,
            "answer": fact["answer"],
            "new_answer": fact["new_answer"],
            **({} if reworded is None else {"paraphrased_answer": reworded}),
        }
        for phrasing, question in questions.items()
    ]


def _as_dataset(splits: dict[str, list[Row]], dataset: str, split: str) -> DatasetDict:
    if not splits[split]:
        raise MissingDataError(f"{dataset} has no items in split {split!r}")
    return DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items() if rows})
