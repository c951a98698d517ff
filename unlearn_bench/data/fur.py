"""The forget/update/retain set (`fur`): fictional subjects, bundled, with known ground truth.

See `tasks/fur/README.md` for how the subjects are made. This module turns them into training
texts for the target and exact models and for the methods, and into rows for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unlearn_bench.data.files import (
    Row,
    corrupt,
    read_jsonl,
    require_unique_ids,
    tasks_folder,
    verify_sha256sums,
)
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.schema import Example, Origin

Role = Literal["forget", "update", "retain", "holdout"]
Part = Literal["test", "validation"]
SPLITS = ("forget", "update", "retain", "holdout", "validation")
ROLES = ("forget", "update", "retain")
FILE = "subjects.jsonl"
SUBJECT_KEYS = ("id", "split", "role", "kind", "relation", "name", "biography", "facts")
FACT_KEYS = ("id", "attribute", "question", "answer", "paraphrases", "wrong_options", "cloze")


@dataclass(frozen=True)
class Fact:
    """One fact and every form in which it is asked. `new_answer` is None unless it is updated."""

    id: str
    attribute: str
    question: str
    answer: str
    new_answer: str | None
    paraphrases: tuple[str, ...]
    wrong_options: tuple[str, ...]
    cloze: str


@dataclass(frozen=True)
class Subject:
    """A fictional person, place or organisation.

    role: what happens to it, in its own part; part: "validation" subjects are for tuning only.
    relation: "neighbour" or "stranger" of the forget subjects (retain subjects only), else "".
    """

    id: str
    part: Part
    role: Role
    kind: str
    relation: str
    name: str
    biography: str
    new_biography: str | None
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class FurSets:
    """The texts of one part, by what is to become of them (the sets of `methods.EditData`).

    `old` holds only what an update makes wrong; `update` all that shall hold afterwards.
    """

    forget: tuple[Example, ...]
    old: tuple[Example, ...]
    update: tuple[Example, ...]
    retain: tuple[Example, ...]


@dataclass(frozen=True)
class FurData:
    """All subjects, and the texts and rows made of them. Orders are those of the file."""

    subjects: tuple[Subject, ...]
    origin: Origin

    def select(self, part: Part, role: Role) -> tuple[Subject, ...]:
        """The subjects of one part and role."""
        return tuple(s for s in self.subjects if (s.part, s.role) == (part, role))

    def edit_sets(self, part: Part = "test", requested: Collection[str] | None = None) -> FurSets:
        """What a method may read of one part; holdout subjects are never among it.

        requested: ids of the subjects to forget or update; None means all. What is not requested
        is in no set.
        """

        def chosen(role: Role) -> list[Subject]:
            subjects = self.select(part, role)
            return [s for s in subjects if requested is None or s.id in requested]

        updated = chosen("update")
        return FurSets(
            forget=_examples(chosen("forget"), old_text),
            old=_examples(updated, outdated_text),
            update=_examples(updated, new_text),
            retain=_examples(self.select(part, "retain"), old_text),
        )

    def target_training(self) -> tuple[Example, ...]:
        """What θ₀ has learned: all but holdout, with the old facts. Both parts."""
        return _examples((s for s in self.subjects if s.role != "holdout"), old_text)

    def exact_training(self, requested: Collection[str] | None = None) -> tuple[Example, ...]:
        """What the exact model learns instead: no forget subject, new facts for updated ones.

        requested: ids of the test subjects that were to be forgotten or updated so far; None means
        all. The others are as the target learned them. Validation subjects go by their roles.
        """

        def done(subject: Subject) -> bool:
            return requested is None or subject.part == "validation" or subject.id in requested

        kept = (
            s for s in self.subjects if s.role != "holdout" and not (s.role == "forget" and done(s))
        )
        return _examples(kept, lambda s: new_text(s) if done(s) else old_text(s))

    def evaluation_rows(self, part: Part = "test") -> dict[str, list[Row]]:
        """One row per fact, by role: what the `fur` tasks ask. Ids are the facts' ids."""
        roles: tuple[Role, ...] = ("forget", "update", "retain", "holdout")
        return {
            role: [
                _evaluation_row(subject, fact)
                for subject in self.select(part, role)
                for fact in subject.facts
            ]
            for role in roles
        }


def load_fur(options: SourceOptions | None = None, *, folder: Path | None = None) -> FurData:
    """Read and verify the bundled set. `options` is accepted as by every loader and not needed.

    folder: another folder with subjects.jsonl and SHA256SUMS. Raises MissingDataError, or
    CorruptDataError naming the file and line.
    """
    place = folder or tasks_folder() / "fur" / "data"
    sums = verify_sha256sums(place)
    path = place / FILE
    if FILE not in sums:
        raise corrupt(place / "SHA256SUMS", 0, f"does not list {FILE}")
    rows = read_jsonl(path, SUBJECT_KEYS)
    require_unique_ids(rows, path)
    subjects = tuple(_subject(row, path, line) for line, row in enumerate(rows, start=1))
    seen: dict[str, str] = {}
    for line, subject in enumerate(subjects, start=1):
        for fact in subject.facts:
            if fact.id in seen:
                raise corrupt(path, line, f"repeats the fact id {fact.id!r} of {seen[fact.id]}")
            seen[fact.id] = subject.id
    origin = Origin("fur", "bundled", f"tasks/fur/data/{FILE}", sums[FILE][:12], sums[FILE])
    return FurData(subjects, origin)


QUESTION_FORM = "Question: {}\nAnswer:"


def question_prompt(question: str) -> str:
    """The one form in which fur questions are put, in training and in evaluation."""
    return QUESTION_FORM.format(question)


def old_text(subject: Subject) -> list[Example]:
    """Biography and facts as the target model learns them."""
    facts = [_example(subject, fact, fact.answer, "old") for fact in subject.facts]
    return [_biography(subject, subject.biography, "old"), *facts]


def outdated_text(subject: Subject) -> list[Example]:
    """The part of `old_text` that an update makes wrong."""
    changed = [fact for fact in subject.facts if fact.new_answer is not None]
    facts = [_example(subject, fact, fact.answer, "old") for fact in changed]
    return [_biography(subject, subject.biography, "old"), *facts]


def new_text(subject: Subject) -> list[Example]:
    """Biography and facts as they shall be; the old ones where nothing changes."""
    if subject.new_biography is None:
        return old_text(subject)
    facts = [
        _example(subject, fact, fact.answer, "old")
        if fact.new_answer is None
        else _example(subject, fact, fact.new_answer, "new")
        for fact in subject.facts
    ]
    return [_biography(subject, subject.new_biography, "new"), *facts]


def _example(subject: Subject, fact: Fact, answer: str, version: str) -> Example:
    prompt = question_prompt(fact.question)
    return Example(f"{fact.id}:{version}", prompt, f" {answer}", subject.name)


def _biography(subject: Subject, text: str, version: str) -> Example:
    return Example(f"{subject.id}:biography:{version}", "", text, subject.name)


def _examples(
    subjects: Iterable[Subject], texts: Callable[[Subject], list[Example]]
) -> tuple[Example, ...]:
    return tuple(example for subject in subjects for example in texts(subject))


def _evaluation_row(subject: Subject, fact: Fact) -> Row:
    return {
        "id": fact.id,
        "subject": subject.id,
        "name": subject.name,
        "kind": subject.kind,
        "role": subject.role,
        "relation": subject.relation,
        "attribute": fact.attribute,
        "question": fact.question,
        "form": QUESTION_FORM,
        "answer": fact.answer,
        "new_answer": fact.new_answer or "",
        "paraphrases": list(fact.paraphrases),
        "wrong_options": list(fact.wrong_options),
        "cloze": fact.cloze,
        "biography": subject.new_biography or subject.biography,
    }


def _subject(row: Row, path: Path, line: int) -> Subject:
    split, role = row["split"], row["role"]
    if split not in SPLITS:
        raise corrupt(path, line, f"unknown split {split!r}")
    if split == "validation" and role not in ROLES:
        raise corrupt(path, line, f"a validation subject with role {role!r}")
    part: Part = "validation" if split == "validation" else "test"
    facts = row["facts"]
    if not isinstance(facts, list) or not facts:
        raise corrupt(path, line, "has no facts")
    texts = [row[key] for key in SUBJECT_KEYS if key not in ("role", "relation", "facts")]
    optional = [row["relation"], row.get("new_biography")]
    _require_texts([*texts, *(text for text in optional if text is not None)], path, line)
    subject = Subject(
        id=row["id"],
        part=part,
        role=role if part == "validation" else split,
        kind=row["kind"],
        relation=row["relation"] or "",
        name=row["name"],
        biography=row["biography"],
        new_biography=row.get("new_biography"),
        facts=tuple(_fact(fact, path, line) for fact in facts),
    )
    changes = any(fact.new_answer is not None for fact in subject.facts)
    if changes != (subject.role == "update") or changes != (subject.new_biography is not None):
        raise corrupt(path, line, f"role {subject.role!r} does not fit its new texts")
    return subject


def _require_texts(texts: Iterable[Any], path: Path, line: int) -> None:
    if not all(isinstance(text, str) for text in texts):
        raise corrupt(path, line, "has something else in the place of a text")


def _fact(row: Any, path: Path, line: int) -> Fact:
    absent = [key for key in FACT_KEYS if not isinstance(row, dict) or not row.get(key)]
    if absent:
        raise corrupt(path, line, f"a fact lacks {', '.join(absent)}")
    lists = [row[key] for key in ("paraphrases", "wrong_options")]
    if not all(isinstance(texts, list) for texts in lists):
        raise corrupt(path, line, "the fact's paraphrases or wrong options are no list")
    single = [row[key] for key in FACT_KEYS if key not in ("paraphrases", "wrong_options")]
    new = [row["new_answer"]] if row.get("new_answer") is not None else []
    _require_texts([*single, *new, *lists[0], *lists[1]], path, line)
    return Fact(
        id=row["id"],
        attribute=row["attribute"],
        question=row["question"],
        answer=row["answer"],
        new_answer=row.get("new_answer"),
        paraphrases=tuple(row["paraphrases"]),
        wrong_options=tuple(row["wrong_options"]),
        cloze=row["cloze"],
    )
