"""Answers side by side: the target's, an edited model's, the exact one's, to the same questions.

Which are shown is a rule, so nobody picked them: the first by id, of every task or of every role.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearn_bench.board.collect import Collection, Entrant
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.runs.finished import StoredCell
from unlearn_bench.schema import Sample

ITEMS = 3  # of every task
FACTS = 3  # subjects of every role, one fact of each
RULE = (
    f"Shown are the first {ITEMS} items by id of every task that generates text, and of questions "
    f"about facts the first one of each of the first {FACTS} subjects of every role, in the words "
    "of the training texts. Nobody chose them."
)
TRAINED = "verbatim"
# Tasks whose prompts or answers hurt although nobody judges their toxicity.
HARSH = ("jailbreak", "jailbreak_harmbench", "over_refusal", "toxigen_classification")


@dataclass(frozen=True)
class Side:
    """What one model said to an item; empty where it was not asked."""

    who: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Excerpt:
    """One item of one task with the answers. harsh: to be folded, with a warning."""

    task: str
    item: str
    prompt: str
    harsh: bool
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Said:
    """One model's answer to a fact, and the probability per token that it gives the right one.

    right, old: whether the answer holds the right and the replaced one, in any case; probability
    None where likelihoods were not asked.
    """

    who: str
    text: str
    right: bool
    old: bool
    probability: float | None


@dataclass(frozen=True)
class Fact:
    """One question. right: the answer that counts; old: what an update replaces, else ""."""

    role: str
    item: str
    question: str
    right: str
    old: str
    said: tuple[Said, ...]


def list_excerpts(found: Collection, entrant: Entrant) -> list[Excerpt]:
    """The entrant's answers between the target's and the exact model's."""
    asked = _asked(found, entrant)
    own = asked[_who(entrant)]
    excerpts = []
    for task in dict.fromkeys(sample.task for sample in own.values()):
        here = [s for s in own.values() if s.task == task and s.outputs and not _is_fact(s)]
        for sample in sorted(here, key=lambda s: _by_id(s.item_id))[:ITEMS]:
            sides = tuple(_side(who, answers, sample) for who, answers in asked.items())
            harsh = _is_harsh(found.protocols, task)
            excerpts.append(Excerpt(task, sample.item_id, sample.prompt, harsh, sides))
    return excerpts


def list_facts(found: Collection, entrant: Entrant) -> list[Fact]:
    """The entrant's fact cards: roles in the order in which they were asked."""
    asked = _asked(found, entrant)
    own = asked[_who(entrant)]
    asks = [s for s in own.values() if s.outputs and _is_fact(s)]
    facts = []
    for role in dict.fromkeys(str(sample.document["part"]) for sample in asks):
        here = [sample for sample in asks if sample.document["part"] == role]
        facts += [_fact(role, sample, asked) for sample in _first_of_subjects(here)]
    return facts


def _first_of_subjects(samples: Sequence[Sample]) -> list[Sample]:
    """One per subject, in the trained words where a subject was asked in them."""

    def place(sample: Sample) -> tuple[bool, list[tuple[int, str]]]:
        return sample.document["phrasing"] != TRAINED, _by_id(sample.item_id)

    first: dict[str, Sample] = {}
    for sample in sorted(samples, key=place):
        first.setdefault(str(sample.document.get("subject") or sample.item_id), sample)
    return list(first.values())[:FACTS]


Answers = Mapping[tuple[str, str], Sample]


def _asked(found: Collection, entrant: Entrant) -> dict[str, Answers]:
    """By model the answers by task and item; of several filters of one answer the first."""
    target, exact = found.entrant("target"), found.entrant("exact")
    answers: dict[str, Answers] = {}
    for one in dict.fromkeys(one for one in (target, entrant, exact) if one is not None):
        table: dict[tuple[str, str], Sample] = {}
        for sample in _twin(one, entrant).samples:
            table.setdefault((sample.task, sample.item_id), sample)
        answers[_who(one)] = table
    return answers


def _who(entrant: Entrant) -> str:
    measure = entrant.role in ("target", "exact")
    return f"{entrant.name} ({entrant.role})" if measure else entrant.name


def _twin(one: Entrant, entrant: Entrant) -> StoredCell:
    """The cell of the same seed, else the first one with scores."""
    return next((c for c in one.scored if c.seed == entrant.first.seed), one.first)


def _is_fact(sample: Sample) -> bool:
    return {"part", "phrasing", "answer"} <= sample.document.keys()


def _is_harsh(protocols: Mapping[str, Protocol], subtask: str) -> bool:
    """Judged for toxicity, about harm, or of a task that nobody here knows."""
    owner = next((own for own in protocols.values() if subtask in own.subtasks), None)
    return owner is None or owner.judged or owner.base in HARSH


def _by_id(item: str) -> list[tuple[int, str]]:
    """In the order of people: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", item)]


def _side(who: str, answers: Answers, sample: Sample) -> Side:
    found = answers.get((sample.task, sample.item_id))
    return Side(who, found.outputs if found else ())


def _fact(role: str, sample: Sample, asked: Mapping[str, Answers]) -> Fact:
    document = sample.document
    new, answer = str(document.get("new_answer") or ""), str(document["answer"])
    right, old = (new, answer) if new else (answer, "")
    said = []
    for who, answers in asked.items():
        found = answers.get((sample.task, sample.item_id))
        text = found.outputs[0].strip() if found and found.outputs else ""
        said.append(
            Said(
                who,
                text,
                right=_holds(text, right),
                old=_holds(text, old),
                probability=_probability(answers, sample, "_new" if new else ""),
            )
        )
    return Fact(role, sample.item_id, _question(sample.prompt), right, old, tuple(said))


def _question(prompt: str) -> str:
    """Without the frame that all questions share."""
    return prompt.strip().removesuffix("Answer:").removeprefix("Question:").strip()


def _holds(text: str, answer: str) -> bool:
    return bool(answer) and answer.casefold() in text.casefold()


def _probability(answers: Answers, sample: Sample, kind: str) -> float | None:
    """Of the right answer, per token, from the same question's likelihoods."""
    family, _, _ = sample.task.rpartition("_")
    twin = answers.get((f"{family}_choice", sample.item_id))
    found = twin.values if twin else {}
    names = [name for name in found if name.endswith("_probability")]
    names = [name for name in names if kind in name and "paraphrase" not in name]
    value = found[names[0]] if names else None
    return value if isinstance(value, float) else None
