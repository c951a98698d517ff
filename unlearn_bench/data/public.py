"""A public set in the place of `fur`: its texts by what is to become of them, and its questions.

docs/design/public_sets.md says which fields of each set become what.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from unlearn_bench.data.dataset import Dataset, Splits
from unlearn_bench.data.files import Row
from unlearn_bench.data.fur import QUESTION_FORM, FurData, FurSets, Part
from unlearn_bench.errors import UsageError
from unlearn_bench.schema import Example, Origin

CLOZE_FORM = "{}"


@dataclass(frozen=True)
class Question:
    """One question in every form in which it is asked.

    part: whose metrics it counts for (`forget`, `retain`, ...; of an update `update`, scored as
    `update_old` and `update_new`). subject: what its answers have in common with others'.
    wrong_options: () where the set has none; then nothing is chosen, only answered. form: how the
    question stands in the prompt. paraphrased_answer: the answer in the words of the wrong options,
    with which the truth ratio compares them; "" where a question has none, None of a set in which
    none has.
    """

    id: str
    part: str
    subject: str
    question: str
    answer: str
    new_answer: str = ""
    paraphrases: tuple[str, ...] = ()
    wrong_options: tuple[str, ...] = ()
    form: str = QUESTION_FORM
    paraphrased_answer: str | None = None


@dataclass(frozen=True)
class PublicSet:
    """What `FurData` is for our own set. It keeps nothing for choosing options: no validation part.

    sets: what methods may read. beside: texts that both the target and the exact model learn and
    no method reads.
    """

    sets: FurSets
    questions: tuple[Question, ...]
    origin: Origin
    beside: tuple[Example, ...] = ()

    def edit_sets(self, part: Part = "test", requested: Collection[str] | None = None) -> FurSets:
        """What a method may read; of the part "validation" nothing. Raises UsageError: `requested`.

        Requests one after another are `fur`'s: no public set says which of its texts are one
        subject's.
        """
        _refuse_requests(requested)
        return self.sets if part == "test" else FurSets((), (), (), ())

    def target_training(self) -> tuple[Example, ...]:
        """What θ₀ has learned: everything as it was before any edit."""
        return (*self.sets.forget, *self.sets.old, *self.sets.retain, *self.beside)

    def exact_training(self, requested: Collection[str] | None = None) -> tuple[Example, ...]:
        """What the exact model learns instead: nothing to forget, the new for the old."""
        _refuse_requests(requested)
        return (*self.sets.update, *self.sets.retain, *self.beside)

    def evaluation_rows(self, part: Part = "test") -> dict[str, list[Row]]:
        """One row per question, by the part that it counts for; none in the part "validation"."""
        rows: dict[str, list[Row]] = {}
        for question in self.questions if part == "test" else ():
            rows.setdefault(question.part, []).append(_evaluation_row(question))
        return rows


EditSet = FurData | PublicSet


@dataclass(frozen=True)
class PublicSource:
    """Where a public set comes from and what is made of its rows."""

    dataset: Dataset
    build: Callable[[Splits, Origin], PublicSet]


def answer_example(identity: str, question: Question, answer: str) -> Example:
    """The training text of a question; it is about the question's subject if that stands in it."""
    prompt = question.form.format(question.question)
    subject = question.subject if question.subject in prompt else ""
    return Example(identity, prompt, f" {answer}", subject)


def _refuse_requests(requested: Collection[str] | None) -> None:
    if requested is not None:
        raise UsageError(
            "only fur's subjects can be requested one after another",
            next_step="leave out --edit-set",
        )


def _evaluation_row(question: Question) -> Row:
    reworded = question.paraphrased_answer
    return {
        "id": question.id,
        "subject": question.subject,
        "relation": "",
        "question": question.question,
        "form": question.form,
        "answer": question.answer,
        "new_answer": question.new_answer,
        "paraphrases": list(question.paraphrases),
        "wrong_options": list(question.wrong_options),
        **({} if reworded is None else {"paraphrased_answer": reworded}),
    }
