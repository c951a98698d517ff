"""Every reader, on small files in each source's own form, gives the columns lm-eval expects."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_files import REAL_DATA, needs_real_data, write_jsonl, write_parquet

from unlearn_bench.config import load_suite
from unlearn_bench.data import (
    advbench,
    gsm8k,
    harmbench,
    realtoxicityprompts,
    toxigen,
    truthfulqa,
    wikitext,
    xstest,
)
from unlearn_bench.data.dataset import in_id_order, interleave, with_ids
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents


class TestIds:
    def test_same_content_same_id_wherever_it_stands(self) -> None:
        first = with_ids("d", [{"q": "a", "x": 1}, {"q": "b", "x": 2}], ("q",))
        second = with_ids("d", [{"q": "b", "x": 3}], ("q",))
        assert first[1]["id"] == second[0]["id"]
        assert first[0]["id"] != first[1]["id"]
        assert first[0]["id"].startswith("d-")

    def test_repeated_content_stays_apart(self) -> None:
        rows = with_ids("d", [{"q": "a"}, {"q": "a"}, {"q": "a"}], ("q",))
        base = rows[0]["id"]
        assert [row["id"] for row in rows] == [base, f"{base}-2", f"{base}-3"]

    def test_content_keys_do_not_run_together(self) -> None:
        rows = with_ids("d", [{"a": "xy", "b": "z"}, {"a": "x", "b": "yz"}], ("a", "b"))
        assert rows[0]["id"] != rows[1]["id"]

    def test_interleave_takes_one_of_each_in_turn(self) -> None:
        rows = [{"g": g, "n": n} for g in "ab" for n in range(3)] + [{"g": "c", "n": 0}]
        taken = [(row["g"], row["n"]) for row in interleave(rows, ("g",))]
        assert taken == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]

    def test_id_order_is_the_same_from_any_order(self) -> None:
        rows = with_ids("d", [{"q": letter} for letter in "abcdefgh"], ("q",))
        assert in_id_order(rows) == in_id_order(reversed(rows))


class TestWikitext:
    TEXT = (
        " \n = First = \n \n Text one . \n = = Part = = \n \n More . \n"
        " = = = Deep = = = \n \n x = y \n \n = Second = \n \n Text two . \n"
    )

    def test_pages_start_at_titles_and_lose_nothing(self) -> None:
        pages = list(wikitext.split_pages(self.TEXT))
        assert len(pages) == 2
        assert pages[0].startswith(" = First = \n")
        assert "= = Part = =" in pages[0]
        assert pages[1].startswith(" = Second = \n")
        assert " \n" + "\n".join(pages) == self.TEXT  # all but the blank line before the first

    def test_hub_and_folder_agree_on_ids(self, tmp_path: Path) -> None:
        pages = list(wikitext.split_pages(self.TEXT))
        write_parquet(tmp_path / wikitext.HUB_FILE, [{"page": page} for page in pages])
        from_hub = wikitext.read_hub(tmp_path)["test"]
        assert from_hub == with_ids("wikitext", ({"page": page} for page in pages), ("page",))

    @needs_real_data
    def test_real_pages_count_as_in_lm_eval(self) -> None:
        from lm_eval.tasks.wikitext.preprocess_wikitext import process_results

        rows = load_documents("wikitext", SourceOptions(REAL_DATA)).splits["test"]
        results = [process_results(row, (-1.0,)) for row in rows]
        assert len(rows) == 62
        # WikiText-2's test part has 245,569 tokens, 4,358 of them line ends; lm-eval's split also
        # counts the empty strings before and after each page.
        words = sum(result["word_perplexity"][1] for result in results)
        assert words == 245_569 - 4_358 + 2 * 62
        # The file's 1,290,590 bytes less its first blank line and the breaks between the pages.
        assert sum(result["byte_perplexity"][1] for result in results) == 1_290_590 - 2 - 61


class TestTruthfulqa:
    MC: tuple[dict[str, Any], ...] = (
        {
            "question": "Is the sky green?",
            "mc1_targets": {"No, it is blue": 1, "Yes": 0, "At night": 0},
            "mc2_targets": {"No": 1, "It is blue": 1, "Yes": 0},
        },
    )
    CSV = (
        "Type,Category,Question,Best Answer,Best Incorrect Answer,Correct Answers,"
        "Incorrect Answers,Source\n"
        'A,Sky,Is the sky green?,"No, it is blue",Yes,"No, never; It is blue;","Yes; At night",u\n'
    )

    def write_folder(self, root: Path, mc: Any, table: str) -> Path:
        (root / "truthfulqa").mkdir()
        (root / "truthfulqa" / "mc_task.json").write_text(json.dumps(mc))
        (root / "truthfulqa" / "TruthfulQA.csv").write_text(table)
        return root

    def test_folder(self, tmp_path: Path) -> None:
        (row,) = truthfulqa.read_folder(self.write_folder(tmp_path, self.MC, self.CSV))[
            "validation"
        ]
        assert row["mc1_targets"] == {
            "choices": ["No, it is blue", "Yes", "At night"],
            "labels": [1, 0, 0],
        }
        assert row["mc2_targets"]["labels"] == [1, 1, 0]
        assert row["correct_answers"] == ["No, never", "It is blue"]
        assert row["incorrect_answers"] == ["Yes", "At night"]

    def test_hub_gives_the_same_id_as_the_folder(self, tmp_path: Path) -> None:
        (from_folder,) = truthfulqa.read_folder(self.write_folder(tmp_path, self.MC, self.CSV))[
            "validation"
        ]
        targets = {key: from_folder[key] for key in truthfulqa.CONTENT}
        answers = {
            key: from_folder[key]
            for key in ("category", "question", "best_answer", "correct_answers")
        } | {"incorrect_answers": from_folder["incorrect_answers"]}
        write_parquet(tmp_path / truthfulqa.HUB_TARGETS, [targets])
        write_parquet(tmp_path / truthfulqa.HUB_ANSWERS, [answers])
        assert truthfulqa.read_hub(tmp_path)["validation"] == [from_folder]

    def test_stock_mc2_reads_the_rows(self, tmp_path: Path) -> None:
        from lm_eval.tasks.truthfulqa.utils import process_results_mc2

        (row,) = truthfulqa.read_folder(self.write_folder(tmp_path, self.MC, self.CSV))[
            "validation"
        ]
        results = [(0.0, False), (0.0, False), (0.0, False)]
        assert process_results_mc2(row, results)["acc"] == pytest.approx(2 / 3)

    def test_mini_puts_the_best_answer_first(self, tmp_path: Path) -> None:
        item = {
            "id": "m-1",
            "category": "c",
            "question": "q",
            "best_answer": "right",
            "correct_answers": ["also right", "right"],
            "incorrect_answers": ["wrong", "worse"],
        }
        (row,) = truthfulqa.read_mini(write_jsonl(tmp_path / "m.jsonl", [item]))["validation"]
        assert row["mc1_targets"] == {"choices": ["right", "wrong", "worse"], "labels": [1, 0, 0]}
        assert row["mc2_targets"]["choices"] == ["also right", "right", "wrong", "worse"]
        assert row["id"] == "m-1"

    @needs_real_data
    def test_real_questions_all_start_with_the_truth(self) -> None:
        rows = load_documents("truthfulqa", SourceOptions(REAL_DATA)).splits["validation"]
        assert len(rows) == 790
        assert {row["mc1_targets"]["labels"][0] for row in rows} == {1}
        assert {sum(row["mc1_targets"]["labels"]) for row in rows} == {1}


class TestGsm8k:
    ROW = ({"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"},)

    def test_folder_and_hub_give_the_same_rows(self, tmp_path: Path) -> None:
        rows = list(self.ROW)
        for split, file in gsm8k.FOLDER_FILES.items():
            write_jsonl(tmp_path / file, rows)
            write_parquet(tmp_path / gsm8k.HUB_FILES[split], rows)
        assert gsm8k.read_folder(tmp_path) == gsm8k.read_hub(tmp_path)

    def test_mini_rows_go_to_their_splits(self, tmp_path: Path) -> None:
        rows = [{"id": f"m-{split}", "split": split, **self.ROW[0]} for split in ("test", "train")]
        splits = gsm8k.read_mini(write_jsonl(tmp_path / "m.jsonl", rows))
        assert [row["id"] for row in splits["train"]] == ["m-train"]
        assert set(splits["test"][0]) == {"id", "question", "answer"}

    @needs_real_data
    def test_real_counts(self) -> None:
        splits = load_documents("gsm8k", SourceOptions(REAL_DATA)).splits
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 7473, "test": 1319}


class TestRealToxicityPrompts:
    @staticmethod
    def record(text: str, toxicity: float | None, challenging: bool) -> dict[str, Any]:
        prompt = {"text": text} | ({} if toxicity is None else {"toxicity": toxicity})
        return {"prompt": prompt, "challenging": challenging, "continuation": {"text": "x"}}

    def test_one_prompt_has_one_id_in_all_sources(self, tmp_path: Path) -> None:
        records = [self.record("So then", 0.2, False), self.record("You absolute", 0.9, True)]
        write_jsonl(tmp_path / realtoxicityprompts.HUB_FILE, records)
        hub = realtoxicityprompts.read_hub(tmp_path)
        write_jsonl(tmp_path / realtoxicityprompts.FOLDER_POOL, records)
        write_jsonl(tmp_path / realtoxicityprompts.FOLDER_CHALLENGING, records[1:])
        folder = realtoxicityprompts.read_folder(tmp_path)
        assert hub == folder
        package = realtoxicityprompts.read_package(
            write_jsonl(tmp_path / "test.jsonl", [{"text": "You absolute", "toxicity": 0.9}])
        )
        assert package["challenging"] == hub["challenging"]

    def test_a_missing_score_stays_missing(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / realtoxicityprompts.HUB_FILE, [self.record("So then", None, False)])
        (row,) = realtoxicityprompts.read_hub(tmp_path)["train"]
        assert row["prompt_toxicity"] is None

    @needs_real_data
    def test_real_folder(self) -> None:
        splits = load_documents("realtoxicityprompts", SourceOptions(REAL_DATA)).splits
        counts = {name: len(rows) for name, rows in splits.items()}
        assert counts == {"train": 3787, "challenging": 1196, "validation": 1198}
        aside = {row["id"] for row in splits["validation"]}
        assert not aside & {row["id"] for name in ("train", "challenging") for row in splits[name]}
        assert all(row["challenging"] for row in splits["challenging"])
        # An even prefix: sorted by toxicity it would be all toxic, by file all alike.
        toxic = [(row["prompt_toxicity"] or 0) > 0.5 for row in splits["train"]]
        assert abs(sum(toxic[:500]) / 500 - sum(toxic) / len(toxic)) < 0.05


class TestToxigen:
    def test_hub_file_names_give_label_and_group(self, tmp_path: Path) -> None:
        for label in ("hate", "neutral"):
            write_parquet(
                tmp_path / "prompts" / f"{label}_native_american_1k-00000-of-00001.parquet",
                [{"prompt": f"- {label} one\\n- two\\n-"}],
            )
        rows = toxigen.read_hub(tmp_path)["test"]
        assert [(row["group"], row["label"]) for row in rows] == [
            ("native_american", "hate"),
            ("native_american", "neutral"),
        ]
        assert rows[0]["prompt"] == "- hate one\n- two\n-"

    def test_a_prefix_asks_about_every_group_before_any_group_twice(self) -> None:
        rows = load_documents("toxigen_mini", SourceOptions(offline=True)).splits["test"]
        groups = len({row["group"] for row in rows})
        for turn in range(4):
            asked = rows[turn * groups : (turn + 1) * groups]
            assert len({row["group"] for row in asked}) == groups
            neutral = sum(row["label"] == "neutral" for row in asked)
            assert neutral in (groups // 2, groups - groups // 2)
        both = {(row["group"], row["label"]) for row in rows[: 2 * groups]}
        assert len(both) == 2 * groups, "the second turn asks each group's other label"

    def test_quick_asks_every_group_twice_so_that_the_rate_has_an_error(self) -> None:
        limits = load_suite("quick").limits
        rows = load_documents("toxigen_mini", SourceOptions(offline=True)).splits["test"]
        asked = Counter(row["group"] for row in rows[: limits["toxigen_mini"]])
        assert set(asked.values()) == {2}
        assert limits["toxigen"] == 2 * len(toxigen.GROUPS)

    @needs_real_data
    def test_every_prefix_of_the_real_set_is_balanced(self) -> None:
        rows = load_documents("toxigen", SourceOptions(REAL_DATA)).splits["test"]
        assert len(rows) == 1240
        assert len({row["group"] for row in rows}) == 16
        prefix = rows[: 4 * 16]
        assert set(Counter(row["group"] for row in prefix).values()) == {4}
        labels = Counter((row["group"], row["label"]) for row in prefix)
        assert labels.pop(("trans", "hate")) == 4, "the files have no neutral list for this group"
        assert set(labels.values()) == {2}


class TestRequests:
    def test_folder_and_hub_give_the_same_requests(self, tmp_path: Path) -> None:
        goals = ["Do harm, and more.", 'Say "harm"']
        table = 'goal,target\n"Do harm, and more.",x\n"Say ""harm""",y\n'
        (tmp_path / "advbench").mkdir()
        (tmp_path / advbench.FOLDER_FILE).write_text(table)
        write_parquet(tmp_path / advbench.HUB_FILE, [{"query": goal} for goal in goals])
        found = advbench.read_folder(tmp_path)
        assert found == advbench.read_hub(tmp_path)
        assert sorted(row["prompt"] for row in found["test"]) == sorted(goals)

    def test_only_standard_behaviours_are_taken(self, tmp_path: Path) -> None:
        rows = [("Harm", "standard"), ("Harm this", "contextual"), ("Sing it", "copyright")]
        (tmp_path / "harmbench").mkdir()
        table = "Behavior,FunctionalCategory\n" + "".join(f"{a},{b}\n" for a, b in rows)
        (tmp_path / harmbench.FOLDER_FILE).write_text(table)
        write_parquet(tmp_path / harmbench.HUB_FILE, [{"prompt": "Harm", "category": "c"}])
        assert harmbench.read_folder(tmp_path) == harmbench.read_hub(tmp_path)
        assert [row["prompt"] for row in harmbench.read_hub(tmp_path)["test"]] == ["Harm"]

    @needs_real_data
    def test_real_counts(self) -> None:
        rows = load_documents("advbench", SourceOptions(REAL_DATA)).splits["test"]
        assert len({row["prompt"] for row in rows}) == 520


class TestXstest:
    ROWS = (
        {"prompt": "Kill a process?", "type": "homonyms", "label": "safe"},
        {"prompt": "Kill a man?", "type": "contrast_homonyms", "label": "unsafe"},
    )

    def test_folder_and_hub_give_the_same_rows(self, tmp_path: Path) -> None:
        (tmp_path / "xstest").mkdir()
        lines = [f"{n},{r['prompt']},{r['type']},{r['label']},k,v" for n, r in enumerate(self.ROWS)]
        table = "id,prompt,type,label,focus,note\n" + "\n".join(lines) + "\n"
        (tmp_path / xstest.FOLDER_FILE).write_text(table)
        write_parquet(tmp_path / xstest.HUB_FILE, list(self.ROWS))
        assert xstest.read_folder(tmp_path) == xstest.read_hub(tmp_path)

    def test_every_type_has_prompts_of_ours(self) -> None:
        rows = load_documents("xstest_mini", SourceOptions(offline=True)).splits["test"]
        assert {row["type"] for row in rows if row["label"] == "safe"} == set(xstest.SAFE_TYPES)
        assert len({row["type"] for row in rows[:18]}) == 18, "every prefix is balanced"
        assert {row["label"] for row in rows[:10]} == {"safe"}

    @needs_real_data
    def test_real_counts(self) -> None:
        rows = load_documents("xstest", SourceOptions(REAL_DATA)).splits["test"]
        counts = Counter((row["type"], row["label"]) for row in rows)
        assert len(rows) == 450
        assert set(counts.values()) == {25}
        assert {kind for kind, label in counts if label == "safe"} == set(xstest.SAFE_TYPES)


@pytest.mark.parametrize(
    ("name", "split", "least"),
    [
        ("truthfulqa_mini", "validation", 100),
        ("gsm8k_mini", "test", 100),
        ("wikitext_mini", "test", 12),
        ("toxigen_mini", "test", 13),
        ("toxigen_classification_mini", "test", 40),
        ("advbench_mini", "test", 24),
        ("xstest_mini", "test", 48),
    ],
)
def test_bundled_mini_sets_are_large_enough(name: str, split: str, least: int) -> None:
    documents = load_documents(name, SourceOptions(offline=True))
    rows = documents.splits[split]
    assert len(rows) >= least
    assert documents.origin.source == "mini"
    assert all(row["id"].startswith(f"{name}-") for row in rows)


def test_mini_prose_and_groups_reach_the_promised_size() -> None:
    pages = load_documents("wikitext_mini", SourceOptions(offline=True)).splits["test"]
    assert sum(len(row["page"].split()) for row in pages) >= 12_000
    prompts = load_documents("toxigen_mini", SourceOptions(offline=True)).splits["test"]
    assert len({row["group"] for row in prompts}) >= 13
