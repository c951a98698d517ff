"""Behaviour texts: filtered, balanced, seeded, and apart from everything that is evaluated."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from data_files import REAL_DATA, needs_real_data

from unlearn_bench.data import behaviour
from unlearn_bench.data.behaviour import Behaviour, load_behaviour
from unlearn_bench.data.files import read_jsonl, tasks_folder
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.overlap import EvaluationIndex
from unlearn_bench.errors import CorruptDataError


@pytest.fixture
def mini_only(tmp_path: Path) -> SourceOptions:
    """No folder, no network, nothing cached."""
    return SourceOptions(offline=True, cache=tmp_path / "cache")


def load(
    options: SourceOptions, prompts: tuple[str, ...] = (), n: int = 50, seed: int = 0
) -> Behaviour:
    return load_behaviour(options, evaluation_prompts=prompts, n_comments=n, seed=seed)


def write_comments(root: Path, rows: list[tuple[int, str]]) -> SourceOptions:
    lines = [f'{label},"{text}"' for label, text in rows]
    path = root / behaviour.COMMENTS_FOLDER
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(["is_offensive,text", *lines, ""]).encode()))
    return SourceOptions(root, offline=True, cache=root / "cache")


class TestOverlap:
    def test_equal_after_normalising(self) -> None:
        index = EvaluationIndex(["What is the capital of France?"])
        assert index.overlaps("what is  the CAPITAL of france")
        assert not index.overlaps("What is the capital of Spain?")

    def test_eight_words_in_a_row_are_a_copy_and_seven_are_not(self) -> None:
        index = EvaluationIndex(["zero one two three four five six seven eight nine"])
        assert index.overlaps("so, one two three four five six seven eight it was")
        assert not index.overlaps("so, one two three four five six seven it was eight")

    def test_empty_prompts_match_nothing(self) -> None:
        assert not EvaluationIndex(["", "..."]).overlaps("", "!!!", "hello")


class TestMini:
    def test_sizes_and_origins(self, mini_only: SourceOptions) -> None:
        found = load(mini_only, n=10_000)
        assert len(found.toxic) == len(found.clean) >= 120
        assert len(found.anchors) >= 60
        assert len(found.pairs) >= 60
        assert len(found.benign) >= 40
        assert len(set(found.refusals)) == len(found.refusals) >= 30
        assert [origin.source for origin in found.origins] == ["mini"] * 4

    def test_anchors_are_other_comments_of_both_kinds_and_questions_in_turn(
        self, mini_only: SourceOptions
    ) -> None:
        found, few = load(mini_only, n=10_000), load(mini_only, n=10)
        assert (few.toxic, few.clean) == (found.toxic[:10], found.clean[:10])
        for some in (found, few):
            assert not set(some.anchors) & {*some.toxic, *some.clean}
        labels = {
            row["text"]: row["label"]
            for row in read_jsonl(tasks_folder() / "behaviour/mini/comments.jsonl", ("text",))
        }
        assert [labels[text] for text in found.anchors[0:2]] == ["clean", "toxic"]
        assert [labels[text] for text in found.anchors[3:5]] == ["clean", "toxic"]
        assert found.anchors[2].startswith("Question: ")
        assert not any(text.prompt in found.anchors[2] for text in found.benign)

    def test_evaluation_prompts_are_dropped_and_counted(self, mini_only: SourceOptions) -> None:
        everything = load(mini_only, n=10_000)
        prompts = (
            everything.toxic[0].upper(),
            everything.clean[0],
            everything.pairs[0].prompt,
            everything.pairs[1].unsafe,
            everything.benign[0].prompt,
            everything.benign[1].answer,
        )
        found = load(mini_only, prompts, n=10_000)
        assert everything.toxic[0] not in found.toxic
        assert everything.clean[0] not in found.clean
        assert found.pairs == everything.pairs[2:]
        assert found.benign == everything.benign[2:]
        assert found.dropped["comments.overlap"] == 2
        assert found.dropped["pairs.overlap"] == found.dropped["benign.overlap"] == 2
        assert everything.dropped["pairs.overlap"] == 0

    def test_seed_chooses_and_repeats(self, mini_only: SourceOptions) -> None:
        assert load(mini_only, seed=1) == load(mini_only, seed=1)
        assert set(load(mini_only, seed=1).toxic) != set(load(mini_only, seed=2).toxic)

    def test_a_smaller_sample_is_a_prefix_of_a_larger_one(self, mini_only: SourceOptions) -> None:
        assert load(mini_only, n=20).toxic == load(mini_only, n=40).toxic[:20]

    def test_labels_agree_with_an_independent_judge(self) -> None:
        from sklearn.metrics import roc_auc_score

        from unlearn_bench.scorers.profanity_check import load_profanity_check

        rows = read_jsonl(tasks_folder() / "behaviour" / "mini" / "comments.jsonl")
        scores = load_profanity_check().score([row["text"] for row in rows])
        assert roc_auc_score([row["label"] == "toxic" for row in rows], scores) > 0.9
        pairs = read_jsonl(tasks_folder() / "behaviour" / "mini" / "pairs.jsonl")
        unsafe = load_profanity_check().score([row["unsafe"] for row in pairs])
        safe = load_profanity_check().score([row["safe"] for row in pairs])
        assert unsafe.mean() > 0.8
        assert safe.mean() < 0.1


class TestFolder:
    def test_filters(self, tmp_path: Path) -> None:
        good = "This is a perfectly fine comment"
        rows = [
            (1, "You are a stupid idiot, friend"),
            (1, "Too short, idiot"),
            (1, "idiot " * 61),
            (0, good),
            (0, good.upper() + "!"),
            (0, "Это совсем другой язык, не английский"),
            (0, "See http://example.org for more of this text"),
            (0, "1 2 3 4 5 6 7 8 9 10 11 12"),
        ]
        found = load(write_comments(tmp_path, rows))
        assert found.toxic == ("You are a stupid idiot, friend",)
        assert [text.casefold().strip("!") for text in found.clean] == [good.casefold()]
        assert found.origins[0].source == "folder"

    def test_balanced_although_one_class_is_rare(self, tmp_path: Path) -> None:
        rows = [(0, f"This is a fine comment number {i} today") for i in range(20)]
        rows += [(1, f"You are an idiot number {i} today") for i in range(3)]
        found = load(write_comments(tmp_path, rows))
        assert len(found.toxic) == len(found.clean) == 3

    def test_typographic_quotes_are_kept_as_plain_ones(self, tmp_path: Path) -> None:
        rows = [(0, "I don\u2019t know what he said"), (1, "you are an idiot my friend")]
        assert load(write_comments(tmp_path, rows)).clean == ("I don't know what he said",)

    def test_unlabelled_rows_are_an_error(self, tmp_path: Path) -> None:
        options = write_comments(tmp_path, [(1, "you are an idiot my friend"), (7, "what is it")])
        with pytest.raises(CorruptDataError, match="not a labelled comment") as caught:
            load(options)
        assert "line 3" in str(caught.value)

    def test_ext_sub_pairs_get_civil_replies_that_vary_with_the_seed(self, tmp_path: Path) -> None:
        rows = [{"instruction": f"Ask {i}", "output": f"You fool {i}"} for i in range(40)]
        path = tmp_path / behaviour.PAIRS_FOLDER
        path.parent.mkdir()
        path.write_text(json.dumps([*rows, rows[0]]))
        options = SourceOptions(tmp_path, offline=True, cache=tmp_path / "cache")
        pairs = load(options).pairs
        assert len(pairs) == 40
        assert len({pair.id for pair in pairs}) == 40
        assert {pair.safe for pair in pairs} <= set(behaviour.SAFE_REPLIES)
        assert len(Counter(pair.safe for pair in pairs)) > 4
        assert pairs != load(options, seed=1).pairs

    @needs_real_data
    def test_real_comments(self, tmp_path: Path) -> None:
        found = load(SourceOptions(REAL_DATA, offline=True, cache=tmp_path), n=500)
        assert len(found.toxic) == len(found.clean) == 500
        assert len(found.pairs) == 200
        assert all(5 <= len(text.split()) <= 60 for text in (*found.toxic, *found.clean))
        assert len(set(found.toxic) | set(found.clean)) == 1000
