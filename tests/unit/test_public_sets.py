"""Public sets in the place of `fur`: who learns what, what is asked, what each task measures."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.tasks._yaml_loader import _import_fun_from_str

from tests.unit import public_files
from tests.unit.data_files import REAL_DATA, needs_real_data
from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.public import PublicSet
from unlearn_bench.data.sources import PUBLIC_SETS, load_documents, load_edit_set
from unlearn_bench.engine.evaluate import load_tasks
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.errors import MissingDataError, UnknownNameError, UsageError
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.protocols.documents import load_fur_questions, run_metadata

SMALL = [name for name in PUBLIC_SETS if name.endswith(("forget01", "_100", "_10", "wikibio"))]
SMALL += ["muse_news", "muse_books"]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceOptions:
    """A folder with all small sets, and no other source."""
    public_files.any_count(monkeypatch)
    return SourceOptions(public_files.write_all(tmp_path / "data"), True, tmp_path / "cache")


def load(name: str, options: SourceOptions) -> PublicSet:
    found = load_edit_set(name, options)
    assert isinstance(found, PublicSet)
    return found


def asked(name: str, options: SourceOptions, paraphrases: int | None = None) -> list[Any]:
    known = run_metadata(options, {}, paraphrases, edit_set=name)
    return list(load_fur_questions(**known)["test"])


def sizes(data: PublicSet) -> dict[str, int]:
    return {name: len(texts) for name, texts in vars(data.sets).items() if texts}


class TestEverySet:
    @pytest.mark.parametrize("name", SMALL)
    def test_the_task_has_exactly_the_metrics_that_its_questions_give(
        self, name: str, options: SourceOptions
    ) -> None:
        """No metric of a role that the set lacks, and none that is scored and not declared."""
        fur = tasks_folder() / "fur" / "fur"
        score, read = (_import_fun_from_str(f"{fur}.{f}") for f in ("score_choice", "score_answer"))
        given = set()
        for document in asked(name, options):
            likely = Likelihood(np.array([-1.0]), np.array([True]))
            given |= set(score(document, [likely] * len(document["options"])))
            given |= set(read(document, ["a text"]))
        declared = find_protocol(name).metrics.values()
        assert given == {metric.value for metric in declared}

    @pytest.mark.parametrize("name", SMALL)
    def test_the_exact_model_never_meets_what_must_go(
        self, name: str, options: SourceOptions
    ) -> None:
        data = load(name, options)
        gone = {text.id for text in (*data.sets.forget, *data.sets.old)}
        exact = {text.id for text in data.exact_training()}
        target = {text.id for text in data.target_training()}
        assert gone
        assert not gone & exact
        assert gone <= target
        assert exact - target == {text.id for text in data.sets.update}

    @pytest.mark.parametrize("name", SMALL)
    def test_ids_are_unique_and_nothing_is_kept_for_choosing_options(
        self, name: str, options: SourceOptions
    ) -> None:
        data = load(name, options)
        for texts in (data.target_training(), data.exact_training()):
            assert len({text.id for text in texts}) == len(texts)
        rows = [row["id"] for own in data.evaluation_rows().values() for row in own]
        assert len(set(rows)) == len(rows) > 0
        assert data.evaluation_rows("validation") == {}
        assert not any(vars(data.edit_sets("validation")).values())

    @pytest.mark.parametrize("name", SMALL)
    def test_a_prefix_holds_every_part(self, name: str, options: SourceOptions) -> None:
        parts = list(load(name, options).evaluation_rows())
        known = run_metadata(options, {name: len(parts)}, 0, edit_set=name)
        assert sorted(load_fur_questions(**known)["test"]["part"]) == sorted(parts)

    def test_the_questions_are_the_documents_that_texts_are_held_against(
        self, options: SourceOptions
    ) -> None:
        splits = load_documents("tofu_forget01", options).splits
        assert splits["world_facts"][0]["question"] == "Where is Rome?"

    def test_requests_are_refused(self, options: SourceOptions) -> None:
        with pytest.raises(UsageError, match="only fur's subjects"):
            load("tofu_forget01", options).exact_training(["author-3"])

    def test_a_near_name_is_suggested(self, options: SourceOptions) -> None:
        with pytest.raises(UnknownNameError, match="tofu_forget10"):
            load_edit_set("tofu_forget1", options)


class TestTofu:
    def test_what_is_forgotten_and_what_is_asked(self, options: SourceOptions) -> None:
        """80 rows of 4 authors: the last 40, of authors 2 and 3, go."""
        data = load("tofu_forget01", options)
        assert sizes(data) == {"forget": 40, "retain": 40}
        first = data.evaluation_rows()["forget"][0]
        assert first["subject"] == "author-2"
        assert first["wrong_options"][0] == "No 0: Author 2 wrote book 40."
        assert data.sets.forget[0].prompt == "Question: Who wrote book 40?\nAnswer:"
        assert data.sets.forget[0].answer == " Author 2 wrote book 40."
        assert {part: len(rows) for part, rows in data.evaluation_rows().items()} == {
            "forget": 40, "retain": 5, "real_authors": 1, "world_facts": 1,
        }  # fmt: skip

    def test_the_reworded_answer_stands_behind_the_options(self, options: SourceOptions) -> None:
        """Five wrong answers and the right one in a shuffled order, as without it; then the words
        in which the wrong ones are written. Real authors have none.
        """
        documents = asked("tofu_forget01", options)
        forget = [document for document in documents if document["part"] == "forget"]
        assert {document["phrasing"] for document in forget} == {"verbatim", "paraphrase1"}
        for document in forget:
            *chosen, reworded = document["options"]
            assert reworded == document["paraphrased_answer"] == f"It was: {document['answer']}"
            assert sorted(chosen)[0].startswith("Author")
            assert len(chosen) == 6
        real = next(document for document in documents if document["part"] == "real_authors")
        assert (real["paraphrased_answer"], len(real["options"])) == ("", 3)

    @pytest.mark.parametrize("name", ["fur", "counterfact_100", "wikibio"])
    def test_no_other_set_knows_of_reworded_answers(
        self, name: str, options: SourceOptions
    ) -> None:
        assert set(asked(name, options)[0]) == {
            "id", "subject", "part", "phrasing", "prompt", "options", "answer", "new_answer",
        }  # fmt: skip

    def test_paraphrases_and_general_knowledge_are_never_trained_on(
        self, options: SourceOptions
    ) -> None:
        trained = {text.prompt for text in load("tofu_forget01", options).target_training()}
        others = [
            document["prompt"]
            for document in asked("tofu_forget01", options)
            if document["phrasing"] != "verbatim"
            or document["part"] in ("real_authors", "world_facts")
        ]
        assert len(others) == 47
        assert not trained & set(others)

    def test_the_hub_gives_what_the_folder_gives(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: SourceOptions
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub = PUBLIC_SETS["tofu_forget01"].dataset.hub
        assert hub is not None
        snapshots = tmp_path / "hub" / "datasets--locuslab--TOFU" / "snapshots"
        public_files.write_tofu(snapshots / hub.revision)
        there = load("tofu_forget01", SourceOptions(cache=tmp_path / "cache"))
        assert there.origin.source == "hub"
        assert there.origin.revision == hub.revision
        assert there.questions == load("tofu_forget01", options).questions

    def test_a_gzipped_file_is_read_in_place_of_the_plain_one(self, options: SourceOptions) -> None:
        plain = load("tofu_forget01", options)
        assert options.data_folder is not None
        path = options.data_folder / "tofu" / "full.json"
        (path.parent / "full.json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        assert load("tofu_forget01", options).sets == plain.sets


class TestCounterFact:
    def test_updates_retained_and_local_facts(self, options: SourceOptions) -> None:
        data = load("counterfact_100", options)
        assert sizes(data) == {"old": 100, "update": 100, "retain": 100}
        assert data.sets.update[0].prompt == "The mother tongue of Person 0 is"
        assert data.sets.update[0].answer == " English"
        assert data.sets.old[0].answer == " French"
        assert data.sets.old[0].subject == "Person 0"
        assert data.sets.retain[0].subject == "Person 100"
        local = data.evaluation_rows()["locality"][0]
        assert (local["answer"], local["wrong_options"]) == ("French", ["English"])

    def test_a_subject_counts_once_and_a_trained_prompt_is_not_local(
        self, tmp_path: Path, options: SourceOptions
    ) -> None:
        """Records 0 and 1 are of one subject; record 2's locality prompt is record 5's own."""
        records = public_files.counterfact_records()
        records[1]["subject"] = records[0]["subject"]
        records[2]["locality_prompt"] = records[5]["prompt"]
        assert options.data_folder is not None
        path = options.data_folder / "counterfact" / "counterfact-edit.json"
        public_files.write_json(path, records)
        rows = load("counterfact_100", options).evaluation_rows()
        assert [row["id"] for row in rows["update"][:3]] == [
            "counterfact-0", "counterfact-2", "counterfact-3",
        ]  # fmt: skip
        assert "counterfact-2-locality" not in {row["id"] for row in rows["locality"]}
        assert len(rows["locality"]) == 99

    def test_an_update_without_wrong_options_is_scored_but_not_chosen(
        self, options: SourceOptions
    ) -> None:
        document = next(d for d in asked("counterfact_100", options) if d["part"] == "update")
        assert sorted(document["options"]) == ["English", "French"]


def test_zsre_asks_questions_and_leaves_out_what_updates_nothing(options: SourceOptions) -> None:
    data = load("zsre_100", options)
    assert data.sets.update[0].subject == "Person 1"  # Person 0's new answer is the old one
    assert data.sets.update[0].prompt.startswith("Question: What university did Person 1 attend?")
    local = data.evaluation_rows()["locality"][0]
    assert (local["question"], local["wrong_options"]) == ("Who sings that song?", [])


def test_wikibio_updates_one_half_and_forgets_the_other(options: SourceOptions) -> None:
    """4 biographies: 2 and 2; every cell has 2 usable questions, one cell is no list at all."""
    data = load("wikibio", options)
    assert sizes(data) == {"forget": 2, "old": 2, "update": 2, "retain": 3}
    rows = data.evaluation_rows()
    assert {part: len(own) for part, own in rows.items()} == {
        "forget": 4, "update_old": 2, "update_new": 4, "retain": 2,
    }  # fmt: skip
    assert (rows["forget"][0]["answer"], rows["forget"][1]["answer"]) == ("Oslo", "Bern")
    assert rows["forget"][1]["wrong_options"] == ["Rome", "Oslo"]


def test_rwku_forgets_the_first_people_and_retains_the_next(options: SourceOptions) -> None:
    data = load("rwku_10", options)
    assert [text.subject for text in data.sets.forget] == [f"Person {i}" for i in range(10)]
    assert [text.subject for text in data.sets.retain] == [f"Person {i}" for i in range(10, 20)]
    rows = data.evaluation_rows()
    assert {part: len(own) for part, own in rows.items()} == dict.fromkeys(
        ("forget_blank", "retain_blank", "forget", "retain", "neighbour_blank", "neighbour"), 10
    )
    assert rows["forget_blank"][0]["form"].startswith("Fill in the blank.")


def test_muse_keeps_the_retained_questions_texts_from_methods(options: SourceOptions) -> None:
    """2,600 characters are two pieces of at most 2,000; `retain2` is learned, never handed out."""
    data = load("muse_news", options)
    assert [len(text.answer) for text in data.sets.forget] == [2000, 600]
    read = " ".join(text.answer for texts in vars(data.sets).values() for text in texts)
    assert "retain1" in read
    assert "retain2" not in read
    for learned in (data.target_training(), data.exact_training()):
        assert "retain2" in " ".join(text.answer for text in learned)


def test_muse_goes_on_with_passages_over_line_breaks(options: SourceOptions) -> None:
    """Questions are answered to the end of the line; every question and passage is in one of the
    two subtasks, and a limit leaves both the same facts as it leaves the likelihoods.
    """
    for limit, passages in ((None, 1), (3, 1), (2, 1)):
        tasks = load_tasks(
            [find_protocol("muse_news")],
            limits={"muse_news": limit},
            samples_per_prompt=1,
            paraphrases=0,
            sources=options,
        )
        questions, texts = (tasks[f"muse_{name}"] for name in ("generate", "continue"))
        assert [doc["part"] for doc in texts.eval_docs] == ["forget_text"] * passages
        asked = {doc["id"] for task in (questions, texts) for doc in task.eval_docs}
        assert asked == {doc["id"] for doc in tasks["muse_choice"].eval_docs}
        assert "\n" in questions.config.generation_kwargs["until"]
        assert texts.config.generation_kwargs["until"] == []


def test_a_limit_that_leaves_muse_no_passage_says_how_many_it_takes(options: SourceOptions) -> None:
    known = run_metadata(options, {"muse_news": 1}, 0, edit_set="muse_news")
    with pytest.raises(MissingDataError, match="no question of forget_text") as caught:
        load_fur_questions(**known, parts=["forget_text"])
    assert "raise it to 3" in str(caught.value)


def test_without_any_source_all_reasons_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingDataError) as caught:
        load_edit_set("counterfact_100", SourceOptions(tmp_path, True, tmp_path / "cache"))
    for words in ("counterfact-edit.json", "no repository on the hub", "--data"):
        assert words in str(caught.value)


@needs_real_data
class TestRealFiles:
    @pytest.mark.parametrize(("name", "forgotten"), [("tofu_forget01", 40), ("tofu_forget10", 400)])
    def test_tofu(self, name: str, forgotten: int) -> None:
        data = load(name, SourceOptions(REAL_DATA, True))
        assert sizes(data) == {"forget": forgotten, "retain": 4000 - forgotten}
        rows = data.evaluation_rows()
        assert {part: len(own) for part, own in rows.items()} == {
            "forget": forgotten, "retain": 400, "real_authors": 100, "world_facts": 117,
        }  # fmt: skip
        assert len({row["subject"] for row in rows["forget"]}) == forgotten // 20
        reworded = [row["paraphrased_answer"] for row in (*rows["forget"], *rows["retain"])]
        assert all(reworded)
        assert not any(row["paraphrased_answer"] for row in rows["real_authors"])

    def test_the_rest_of_full_is_what_the_authors_release_as_retain(self) -> None:
        released = gzip.decompress((REAL_DATA / "tofu" / "retain90.json.gz").read_bytes())
        questions = [json.loads(line)["question"] for line in released.decode().splitlines()]
        retained = load("tofu_forget10", SourceOptions(REAL_DATA, True)).sets.retain
        assert [text.prompt for text in retained] == [f"Question: {q}\nAnswer:" for q in questions]

    @pytest.mark.parametrize(
        ("name", "local"), [("counterfact_100", 100), ("counterfact_1000", 998)]
    )
    def test_counterfact(self, name: str, local: int) -> None:
        """Two of the first 1,000 locality prompts are trained on as another record's own."""
        data = load(name, SourceOptions(REAL_DATA, True))
        size = int(name.rpartition("_")[2])
        assert sizes(data) == {"old": size, "update": size, "retain": size}
        assert len(data.evaluation_rows()["locality"]) == local
        assert all(text.subject for text in data.sets.update)
