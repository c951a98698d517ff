"""Options are chosen on other items than those of the tests, whatever the source of the data."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest
from data_files import write_jsonl, write_parquet

from tests.unit.test_execute import Screen
from unlearn_bench.config import RunConfig, Suite, load_suite
from unlearn_bench.data import realtoxicityprompts, sources, wikitext
from unlearn_bench.data.dataset import ASIDE
from unlearn_bench.data.fur import FurData, load_fur
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents, load_validation, resolve_task_dataset
from unlearn_bench.engine.evaluate import load_tasks
from unlearn_bench.errors import CorruptDataError, MissingDataError, UsageError
from unlearn_bench.protocols import documents
from unlearn_bench.protocols.catalog import Protocol, list_protocols
from unlearn_bench.runs import resolve
from unlearn_bench.runs.held_out import asked_by_tests, check_held_out, prompts_of
from unlearn_bench.runs.plan import Plan

OFFLINE = SourceOptions(offline=True, cache=Path("nowhere"))
SMALL = Suite(
    name="small", part="validation", tasks=("fur", "wikitext"), limits={"fur": 60}, paraphrases=1
)


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def protocols(*names: str) -> dict[str, Protocol]:
    known = list_protocols()
    return {name: known[name] for name in names}


def asked(suite: Suite, options: SourceOptions, *names: str) -> dict[str, list[dict[str, Any]]]:
    tasks = load_tasks(
        list(protocols(*names).values()),
        limits=suite.limits,
        samples_per_prompt=suite.samples_per_prompt,
        paraphrases=suite.paraphrases,
        sources=options,
        part=suite.part,
    )
    return {name: list(task.eval_docs) for name, task in tasks.items()}


@pytest.fixture
def prompts_folder(tmp_path: Path) -> SourceOptions:
    """400 prompts, of which about a quarter is set aside; no other data set."""
    rows = [{"prompt": {"text": f"Prompt number {n}"}, "challenging": True} for n in range(400)]
    write_jsonl(tmp_path / "data" / realtoxicityprompts.FOLDER_POOL, rows)
    write_jsonl(tmp_path / "data" / realtoxicityprompts.FOLDER_CHALLENGING, rows[:40])
    return SourceOptions(tmp_path / "data", offline=True, cache=tmp_path / "cache")


@pytest.fixture
def _any_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    known = sources.DATASETS["realtoxicityprompts"]
    monkeypatch.setitem(
        sources.DATASETS, "realtoxicityprompts", replace(known, counts={}, released={})
    )


def test_the_shipped_suite_asks_facts_of_every_part_verbatim_and_reworded() -> None:
    suite = load_suite("validation")
    found = asked(suite, OFFLINE, "fur", "wikitext_mini")
    facts = {row["id"].rpartition(":")[0]: row["part"] for row in found["fur_choice"]}
    parts = list(facts.values())
    assert {part: parts.count(part) for part in set(parts)} == {
        "forget": 20, "update": 20, "retain_neighbour": 10, "retain_stranger": 10,
    }  # fmt: skip
    assert len(found["fur_choice"]) == 2 * 60
    assert all(identity.startswith("validation-") for identity in facts)
    assert len(found["wikitext_mini"]) == suite.limits["wikitext_mini"]


@pytest.mark.usefixtures("_any_count")
def test_a_task_of_the_validation_part_asks_the_rows_set_aside(
    prompts_folder: SourceOptions,
) -> None:
    suite = load_suite("validation")
    (rows,) = asked(suite, prompts_folder, "realtoxicityprompts").values()
    aside = load_documents("realtoxicityprompts", prompts_folder).splits["validation"]
    assert len(rows) == suite.limits["realtoxicityprompts"]
    assert [row["id"] for row in rows] == [row["id"] for row in aside[: len(rows)]]


@pytest.mark.usefixtures("_any_count")
def test_the_challenging_prompts_are_asked_whole_and_none_is_chosen_on(
    prompts_folder: SourceOptions,
) -> None:
    splits = load_documents("realtoxicityprompts", prompts_folder).splits
    ids = {name: {row["id"] for row in rows} for name, rows in splits.items()}
    assert len(ids["challenging"]) == 40
    assert not ids["challenging"] & ids["validation"]
    ended = {identity for identity in ids["challenging"] if identity[-1] in ASIDE}
    assert ended  # without the exception these would be kept for choosing
    assert not ended & ids["train"]
    assert len(ids["train"] | ids["validation"] | ended) == 400


def test_nothing_that_is_kept_for_choosing_is_in_a_test() -> None:
    check_held_out(SMALL, protocols("fur", "wikitext_mini"), OFFLINE)


def test_what_the_tests_ask_is_every_task_that_can_be_had() -> None:
    names = {protocol.name for protocol in asked_by_tests(OFFLINE)}
    assert names == {
        "fur",
        "gsm8k_mini",
        "jailbreak_mini",
        "membership",
        "over_refusal_mini",
        "toxigen_classification_mini",
        "toxigen_mini",
        "truthfulqa_gen_mini",
        "truthfulqa_mini",
        "wikitext_mini",
    }


def plant(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let one page that tests ask stand among those that options are chosen on."""
    (tested, *_) = load_documents("wikitext_mini", OFFLINE).splits["test"]
    real = documents.load_validation

    def planted(dataset: str, options: SourceOptions) -> Any:
        found = real(dataset, options)
        found.splits["validation"].insert(1, change(tested))
        return found

    monkeypatch.setattr(documents, "load_validation", planted)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row,
        lambda row: {**row, "page": "Other words under the same id."},
        lambda row: {**row, "id": "new", "page": row["page"].upper().replace(",", "")},
    ],
    ids=["whole", "id", "prompt"],
)
def test_a_planted_test_item_is_found_by_its_id_and_by_its_words(
    monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    plant(monkeypatch, change)
    with pytest.raises(CorruptDataError, match="on the test item"):
        check_held_out(SMALL, protocols("fur", "wikitext_mini"), OFFLINE)


def test_a_planted_fact_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the questions of the tests were loaded whatever the part."""
    real = load_fur()

    class Forgetful(FurData):
        def evaluation_rows(self, part: str = "test") -> Any:
            return super().evaluation_rows("test")

    monkeypatch.setattr(
        documents,
        "load_edit_set",
        lambda name, sources: Forgetful(real.subjects, real.origin),
    )
    with pytest.raises(CorruptDataError, match="on the test item"):
        check_held_out(SMALL, protocols("fur"), OFFLINE)


@pytest.mark.usefixtures("_any_count")
def test_a_prompt_that_differs_from_a_tested_one_in_a_comma_only_is_left_out(
    prompts_folder: SourceOptions, tmp_path: Path
) -> None:
    whole = load_documents("realtoxicityprompts", prompts_folder).splits
    twin = whole["train"][0]["prompt"]
    rows = [{"prompt": {"text": row["prompt"]}, "challenging": True}
            for split in ("train", "validation") for row in whole[split]]  # fmt: skip
    rows += [{"prompt": {"text": twin + mark}, "challenging": True} for mark in ",.;:!?-…"]
    write_jsonl(tmp_path / "data" / realtoxicityprompts.FOLDER_POOL, rows)
    aside = load_documents("realtoxicityprompts", prompts_folder).splits["validation"]
    kept = load_validation("realtoxicityprompts", prompts_folder).splits["validation"]
    left_out = [row["prompt"] for row in aside if row not in kept]
    assert left_out
    assert all(prompt.startswith(twin) for prompt in left_out)


class TestWikitext:
    TEXT = " \n = First = \n \n Text one . \n = Second = \n \n Text <unk> . \n"

    def test_the_folder_has_the_edition_with_unk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / wikitext.FOLDER_VALIDATION_FILE
        path.parent.mkdir()
        path.write_bytes(gzip.compress(self.TEXT.encode()))
        with pytest.raises(CorruptDataError, match="not WikiText-2's"):
            wikitext.read_folder_validation(tmp_path)
        digest = hashlib.sha256(self.TEXT.encode()).hexdigest()
        monkeypatch.setattr(wikitext, "VALIDATION_SHA256", digest)
        pages = wikitext.read_folder_validation(tmp_path)["validation"]
        assert [row["page"].split(" = ")[1] for row in pages] == ["First", "Second"]

    def test_the_hub_has_it_whole(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / wikitext.HUB_VALIDATION_FILE, [{"page": " = A = \n b"}])
        assert len(wikitext.read_hub_validation(tmp_path)["validation"]) == 1

    def test_our_own_pages_are_divided(self) -> None:
        tested = load_documents("wikitext_mini", OFFLINE).splits["test"]
        aside = load_validation("wikitext_mini", OFFLINE).splits["validation"]
        assert (len(tested), len(aside)) == (28, 7)
        assert not {row["id"] for row in tested} & {row["id"] for row in aside}

    def test_the_mini_pages_stand_in_where_only_the_test_file_is_there(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "data" / wikitext.FOLDER_FILE
        path.parent.mkdir(parents=True)
        path.write_text("any")
        options = SourceOptions(tmp_path / "data", offline=True, cache=tmp_path / "cache")
        assert resolve_task_dataset("wikitext", options) == "wikitext"
        assert resolve_task_dataset("wikitext", options, "validation") == "wikitext_mini"


@pytest.mark.parametrize("dataset", ["truthfulqa", "truthfulqa_mini", "gsm8k", "toxigen_mini"])
def test_a_data_set_without_such_items_is_named(dataset: str) -> None:
    """truthfulqa's own split is called validation, and it is what the tests ask."""
    with pytest.raises(MissingDataError, match=f"'{dataset}' keeps no items"):
        load_validation(dataset, OFFLINE)


def test_a_suite_that_needs_them_is_refused(tiny_folder: Path) -> None:
    suite = Path("s.yaml")
    suite.write_text("name: s\npart: validation\ntasks: [fur, wikitext, truthfulqa]\n")
    with pytest.raises(MissingDataError, match="truthfulqa_mini"):
        resolved(tiny_folder, suite=str(suite))


def resolved(model: Path, part: Any = "validation", **changes: Any) -> Plan:
    given = {
        "model": str(model),
        "methods": ("noop", "npo"),
        "suite": "small.yaml",
        "offline": True,
        "engine": "transformers",
    }
    Path("small.yaml").write_text("name: small\npart: validation\ntasks: [fur, wikitext]\n")
    return resolve.resolve_plan(RunConfig(**{**given, **changes}), Screen(), part=part)


def test_tuning_edits_the_subjects_of_both_parts(tiny_folder: Path) -> None:
    """Else an epoch would have a quarter of the steps that it has in a test."""
    tuning = resolved(tiny_folder)
    testing = resolved(tiny_folder, "test", suite="smoke", tasks=("fur", "wikitext"))
    fur = load_fur()
    for name in ("forget", "old", "update", "retain"):
        parts = [set(getattr(fur.edit_sets(part), name)) for part in ("test", "validation")]
        assert set(getattr(testing.data, name)) == parts[0]
        assert set(getattr(tuning.data, name)) == parts[0] | parts[1]
        assert len(parts[1]) > 0


def test_tuning_and_testing_start_from_one_target(tiny_folder: Path) -> None:
    """The comments that hold the target to its base are chosen by what is asked: by all of it."""
    tuning = resolved(tiny_folder)
    testing = resolved(tiny_folder, "test", suite="full", tasks=("fur", "wikitext", "gsm8k"))
    assert tuning.anchors == testing.anchors
    facts = [plan.cells[0].determinants["target"] for plan in (tuning, testing)]
    assert facts[0] == facts[1]


def test_no_text_that_methods_read_repeats_a_test_prompt_or_a_validation_prompt() -> None:
    prompts = prompts_of(SMALL, protocols("fur", "wikitext_mini"), OFFLINE)
    mini = load_documents("gsm8k_mini", OFFLINE).splits["test"]
    aside = load_validation("wikitext_mini", OFFLINE).splits["validation"]
    assert {row["question"] for row in mini} <= set(prompts)
    assert {row["page"] for row in aside} <= set(prompts)


def test_the_part_is_in_the_key_only_where_it_is_not_the_tests(tiny_folder: Path) -> None:
    suites = [
        resolved(tiny_folder).cells[0].determinants["suite"],
        resolved(tiny_folder, "test", suite="smoke", tasks=("fur",)).cells[0].determinants["suite"],
    ]
    assert suites[0]["part"] == "validation"
    assert "part" not in suites[1]


@pytest.mark.parametrize(("part", "suite"), [("test", "validation"), ("validation", "quick")])
def test_a_suite_of_the_other_part_is_refused(tiny_folder: Path, part: str, suite: str) -> None:
    with pytest.raises(UsageError, match=f"suite '{suite}' asks") as caught:
        resolved(tiny_folder, part, suite=suite)
    assert ("validation" in caught.value.next_step) == (part == "validation")
