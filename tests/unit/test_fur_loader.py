"""The fur set as training texts and evaluation rows: who learns what, and who never sees it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from unlearn_bench.data.fur import FurData, load_fur, question_prompt
from unlearn_bench.errors import CorruptDataError, MissingDataError
from unlearn_bench.protocols.documents import load_fur_questions
from unlearn_bench.schema import Example


@pytest.fixture(scope="module")
def fur() -> FurData:
    return load_fur()


def subjects_of(examples: tuple[Example, ...]) -> set[str]:
    return {example.id.split(":")[0].split(".")[0] for example in examples}


def ids(data: FurData, part: Any, role: Any) -> set[str]:
    return {subject.id for subject in data.select(part, role)}


def make_subject(name: str, split: str, role: str | None = None) -> dict[str, Any]:
    updated = "update" in (split, role)
    return {
        "id": name,
        "split": split,
        "role": role,
        "kind": "person",
        "relation": None,
        "neighbour_of": [],
        "name": name.title(),
        "biography": f"{name.title()} lives in Aa.",
        "new_biography": f"{name.title()} lives in Bb." if updated else None,
        "facts": [
            {
                "id": f"{name}.town",
                "attribute": "town",
                "question": f"Where does {name} live?",
                "answer": "Aa",
                "new_answer": "Bb" if updated else None,
                "paraphrases": ["p", "q"],
                "wrong_options": ["x", "y", "z"],
                "cloze": f"{name} lives in",
            },
            {
                "id": f"{name}.food",
                "attribute": "food",
                "question": f"What does {name} eat?",
                "answer": "Plums",
                "new_answer": None,
                "paraphrases": ["p", "q"],
                "wrong_options": ["x", "y", "z"],
                "cloze": f"{name} eats",
            },
        ],
    }


SUBJECTS = [
    make_subject("fay", "forget"),
    make_subject("una", "update"),
    make_subject("rob", "retain"),
    make_subject("hal", "holdout"),
    make_subject("vera", "validation", "forget"),
    make_subject("vito", "validation", "update"),
    make_subject("viki", "validation", "retain"),
]


def write_set(folder: Path, subjects: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(subject) + "\n" for subject in subjects).encode()
    (folder / "subjects.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  subjects.jsonl\n")
    return folder


class TestSmallSet:
    @pytest.fixture
    def small(self, tmp_path: Path) -> FurData:
        return load_fur(folder=write_set(tmp_path, SUBJECTS))

    def test_forms_of_the_texts(self, small: FurData) -> None:
        biography, fact, _ = small.edit_sets().forget
        assert biography == Example("fay:biography:old", "", "Fay lives in Aa.", "Fay")
        assert fact == Example(
            "fay.town:old", "Question: Where does fay live?\nAnswer:", " Aa", "Fay"
        )

    def test_old_is_only_what_an_update_makes_wrong(self, small: FurData) -> None:
        old = [example.id for example in small.edit_sets().old]
        assert old == ["una:biography:old", "una.town:old"]

    def test_update_is_all_that_shall_hold(self, small: FurData) -> None:
        update = {example.id: example.answer for example in small.edit_sets().update}
        assert update == {
            "una:biography:new": "Una lives in Bb.",
            "una.town:new": " Bb",
            "una.food:old": " Plums",
        }

    def test_validation_sets_are_their_own(self, small: FurData) -> None:
        sets = small.edit_sets("validation")
        assert subjects_of(sets.forget) == {"vera"}
        assert subjects_of(sets.old) == subjects_of(sets.update) == {"vito"}
        assert subjects_of(sets.retain) == {"viki"}

    def test_target_learns_the_old_of_everyone_but_holdout(self, small: FurData) -> None:
        target = small.target_training()
        assert subjects_of(target) == {"fay", "una", "rob", "vera", "vito", "viki"}
        assert all(example.id.endswith(":old") for example in target)
        assert {example.answer for example in target} == {
            " Aa",
            " Plums",
            *(f"{name.title()} lives in Aa." for name in subjects_of(target)),
        }

    def test_exact_never_meets_forget_or_outdated_text(self, small: FurData) -> None:
        exact = small.exact_training()
        assert subjects_of(exact) == {"una", "rob", "vito", "viki"}
        updated = [example for example in exact if subjects_of((example,)) & {"una", "vito"}]
        assert {example.answer for example in updated} == {
            "Una lives in Bb.",
            "Vito lives in Bb.",
            " Bb",
            " Plums",
        }

    def test_only_what_is_requested_is_in_the_sets(self, small: FurData) -> None:
        forget, update = (small.edit_sets(requested=[name]) for name in ("fay", "una"))
        assert subjects_of(forget.forget) == {"fay"}
        assert forget.old == forget.update == update.forget == ()
        assert subjects_of(update.old) == subjects_of(update.update) == {"una"}
        assert forget.retain == update.retain == small.edit_sets().retain
        assert small.edit_sets(requested=["fay", "una"]) == small.edit_sets()

    def test_exact_so_far_differs_only_in_what_was_requested(self, small: FurData) -> None:
        """Test subjects that nobody asked for are as in the target; validation goes by role."""
        before = small.exact_training([])
        assert subjects_of(before) == {"fay", "una", "rob", "vito", "viki"}
        assert "una:biography:old" in {example.id for example in before}
        assert "vito:biography:new" in {example.id for example in before}
        forgotten = small.exact_training(["fay"])
        assert set(before) - set(forgotten) == set(small.edit_sets(requested=["fay"]).forget)
        assert not set(forgotten) - set(before)
        updated = small.exact_training(["una"])
        assert {example.id for example in set(updated) - set(before)} == {
            "una:biography:new",
            "una.town:new",
        }
        assert small.exact_training(["una", "fay"]) == small.exact_training()

    def test_evaluation_rows(self, small: FurData) -> None:
        rows = small.evaluation_rows()
        assert [row["id"] for row in rows["update"]] == ["una.town", "una.food"]
        assert rows["update"][0]["new_answer"] == "Bb"
        assert rows["forget"][0]["new_answer"] == ""
        assert [row["id"] for row in rows["holdout"]] == ["hal.town", "hal.food"]


class TestBundledSet:
    def test_size_and_origin(self, fur: FurData) -> None:
        assert len(fur.subjects) >= 60
        assert all(len(subject.facts) >= 5 for subject in fur.subjects)
        assert fur.origin.source == "bundled"
        assert len(fur.origin.sha256) == 64

    def test_no_text_is_both_trained_in_target_and_held_out(self, fur: FurData) -> None:
        holdout = ids(fur, "test", "holdout")
        assert holdout
        assert not holdout & subjects_of(fur.target_training())
        assert not holdout & subjects_of(fur.exact_training())

    def test_exact_lacks_every_forget_subject_and_their_names(self, fur: FurData) -> None:
        forgotten = [*fur.select("test", "forget"), *fur.select("validation", "forget")]
        texts = " ".join(example.prompt + example.answer for example in fur.exact_training())
        assert not {subject.id for subject in forgotten} & subjects_of(fur.exact_training())
        persons = [subject.name for subject in forgotten if subject.kind == "person"]
        assert persons
        assert not [name for name in persons if name in texts]

    def test_target_knows_what_edits_touch(self, fur: FurData) -> None:
        target = {example.id: example for example in fur.target_training()}
        for part in ("test", "validation"):
            sets = fur.edit_sets(part)
            for example in (*sets.forget, *sets.old, *sets.retain):
                assert target[example.id] == example

    def test_example_ids_are_unique_in_every_training_set(self, fur: FurData) -> None:
        for examples in (fur.target_training(), fur.exact_training()):
            assert len({example.id for example in examples}) == len(examples)

    def test_paraphrases_are_never_trained_on(self, fur: FurData) -> None:
        trained = {example.prompt for example in (*fur.target_training(), *fur.exact_training())}
        paraphrases = {
            question_prompt(text)
            for subject in fur.subjects
            for fact in subject.facts
            for text in fact.paraphrases
        }
        assert not trained & paraphrases

    def test_retain_has_neighbours_and_strangers(self, fur: FurData) -> None:
        relations = {row["relation"] for row in fur.evaluation_rows()["retain"]}
        assert relations == {"neighbour", "stranger"}


class TestDamage:
    def test_changed_file_does_not_load(self, tmp_path: Path) -> None:
        write_set(tmp_path, SUBJECTS)
        path = tmp_path / "subjects.jsonl"
        path.write_text(path.read_text().replace("Aa", "Cc", 1))
        with pytest.raises(CorruptDataError, match="SHA256SUMS says"):
            load_fur(folder=tmp_path)

    def test_absent_set(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match="SHA256SUMS"):
            load_fur(folder=tmp_path)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda rows: rows + rows[:1], "line 8"),
            (lambda rows: [*rows, make_subject("bad", "deleted")], "unknown split 'deleted'"),
            (lambda rows: [*rows, make_subject("bad", "validation")], "role None"),
            (lambda rows: [*rows, rows[0] | {"id": "bad"}], "repeats the fact id"),
            (lambda rows: [*rows, make_subject("bad", "retain") | {"facts": []}], "no facts"),
            (
                lambda rows: [*rows, make_subject("bad", "update") | {"new_biography": None}],
                "does not fit its new texts",
            ),
        ],
    )
    def test_broken_sets_name_the_line(self, tmp_path: Path, damage: Any, message: str) -> None:
        with pytest.raises(CorruptDataError) as caught:
            load_fur(folder=write_set(tmp_path, damage(list(SUBJECTS))))
        assert message in str(caught.value)
        assert "subjects.jsonl, line 8" in str(caught.value)


def test_a_limit_asks_every_subject_before_it_asks_one_twice() -> None:
    """quick's 52 facts are 13 of each part: of 12 subjects or more, and not of one attribute each.
    All facts are asked in the end, whatever the order.
    """
    asked = load_fur_questions(limits={"fur": 52}, paraphrases=0)["test"]
    attributes = {fact.id: fact.attribute for s in load_fur().subjects for fact in s.facts}
    parts: dict[str, list[Any]] = {}
    for row in asked:
        parts.setdefault(row["part"], []).append(row)
    assert {part: len(rows) for part, rows in parts.items()} == dict.fromkeys(
        ("forget", "update", "retain_neighbour", "retain_stranger"), 13
    )
    for rows in parts.values():
        assert len({row["subject"] for row in rows}) >= 12
        assert len({attributes[row["id"].removesuffix(":verbatim")] for row in rows}) >= 6
    whole = load_fur_questions(limits={}, paraphrases=0)["test"]
    expected = {fact.id for s in load_fur().select("test", "forget") for fact in s.facts}
    assert {row["id"].partition(":")[0] for row in whole if row["part"] == "forget"} == expected
