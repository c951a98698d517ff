"""Spreads by hand, from whole runs' files, and what they say of a suite before it runs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.harness_files import write_task
from tests.unit.run_doubles import QUIZ, SmallSteps, cell, plan
from tests.unit.test_aggregate import metric
from tests.unit.test_execute import Screen
from unlearn_bench import commands, spread_file
from unlearn_bench.compare.power import minimum_detectable_effect
from unlearn_bench.compare.spreads import (
    Spread,
    find_spread,
    measure_spread,
    read_spreads,
)
from unlearn_bench.config import Suite
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.errors import UsageError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.protocols.harness import load_harness_tasks
from unlearn_bench.runs import detectable
from unlearn_bench.runs.execute import execute
from unlearn_bench.schema import ItemScore, Sample

TENTHS = (0.1, 0.2, 0.3, 0.4)  # their standard deviation is 0.1291


def rows(*values: float, cluster: str = "") -> list[ItemScore]:
    names = cluster or [""] * len(values)
    return [
        ItemScore("t", "m", str(n), "", value, 1.0, name)
        for n, (value, name) in enumerate(zip(values, names, strict=True))
    ]


def pair(differences: Sequence[float], start: float = 0.5, **marks: Any) -> Any:
    edited = [start + difference for difference in differences]
    return rows(*edited, **marks), rows(*[start] * len(edited), **marks)


def test_of_items_that_stand_alone_it_is_the_standard_deviation_of_their_differences() -> None:
    found = measure_spread(metric("mean"), [pair(TENTHS)])
    assert found is not None
    assert found.spread == pytest.approx(0.1291, rel=0.06)  # a thousand resamples
    assert (found.pairs, found.binary, found.relative) == (1, False, False)


def test_of_clusters_it_is_that_of_the_clusters_means() -> None:
    """The same four differences, two items each: no more is known than with one each."""
    twice = [value for value in TENTHS for _ in range(2)]
    found = measure_spread(metric("mean"), [pair(twice, cluster="aabbccdd")])
    assert found is not None
    assert found.spread == pytest.approx(0.1291, rel=0.06)


def test_of_a_perplexity_it_is_a_share() -> None:
    """Log-likelihoods of −2 a word that fall by .1 to .4: the perplexity's logarithm varies so,
    whatever the perplexity is.
    """
    for start in (-2.0, -5.0):
        falls = [-value for value in TENTHS]
        found = measure_spread(metric("weighted_exp", "lower"), [pair(falls, start)])
        assert found is not None
        assert found.spread == pytest.approx(0.1291, rel=0.06)
        assert found.relative


def test_pairs_in_which_something_differs_are_pooled() -> None:
    """Spreads of one, two and four times .1291, whose squares' mean is 7 times the first's, and
    three models that the edit left alone.
    """
    pairs = [pair([scale * value for value in TENTHS]) for scale in (1, 2, 4, 0, 0, 0)]
    found = measure_spread(metric("mean"), pairs)
    assert found is not None
    assert found.spread == pytest.approx(0.3416, rel=0.06)
    assert found.pairs == 3
    assert measure_spread(metric("mean"), pairs[3:]) is None
    assert measure_spread(metric("mean"), [([], rows(1.0))]) is None


def test_right_and_wrong_answers_move_in_steps_where_they_stand_alone() -> None:
    answers = (rows(1, 0, 1, 1), rows(1, 1, 1, 0))
    shared = (rows(1, 0, 1, 1, cluster="aabb"), rows(1, 1, 1, 0, cluster="aabb"))
    alone, together = (measure_spread(metric("mean"), [own]) for own in (answers, shared))
    assert alone is not None
    assert alone.binary
    assert together is None or not together.binary


def test_a_mini_set_stands_for_its_twin() -> None:
    spread = Spread(0.5, 1, True, False)
    for measured, asked in (("gsm8k", "gsm8k_mini"), ("gsm8k_mini", "gsm8k")):
        assert find_spread({f"{measured}.acc": spread}, asked, "acc") == (measured, spread)
    assert find_spread({"gsm8k.acc": spread}, "toxigen", "acc") is None


def test_the_shipped_file_is_of_columns_that_exist() -> None:
    known = list_protocols()
    spreads = read_spreads()
    assert "fur.forget_extraction_strength" in spreads
    for name, spread in spreads.items():
        task, own = name.split(".")
        assert own in known[task].headline
        assert 0 < spread.spread < 2
        assert spread.pairs > 0


class Varied(SmallSteps):
    """The edited model's toxicity is higher than the target's by one to four tenths."""

    def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        edited = samples[0].outputs[0].startswith("npo")
        return [
            ItemScore("quiz", name, own.item_id, "", 0.5 + value * edited, 1.0)
            for own, value in zip(samples, TENTHS, strict=True)
            for name in ("acc", "toxicity")
        ]


@pytest.fixture
def quiz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_file, "list_protocols", lambda: {"quiz": QUIZ})


def determined(**changes: Any) -> dict[str, Any]:
    return {
        "target": {"fingerprint": "sha256:base"},
        "suite": {
            "samples_per_prompt": 4, "tasks": {"quiz": {"limit": None, "data_revision": "1"}}
        },
        "scorer": {"name": "fake", "version": "1"},
        "engine": {"name": "fake", "dtype": "float32"},
        "versions": {"torch": "2"},
        **changes,
    }  # fmt: skip


def test_the_file_is_measured_on_a_runs_items_and_says_on_which(quiz: None, tmp_path: Path) -> None:
    cells = [cell(name, **determined()) for name in ("noop", "npo")]
    execute(plan(tmp_path / "run", *cells), Varied, Screen())
    file = tmp_path / "spreads.json"
    spread_file.main([tmp_path / "run"], file)
    found = read_spreads(file)
    assert set(found) == {"quiz.acc", "quiz.toxicity"}
    assert found["quiz.toxicity"].spread == pytest.approx(0.1291, rel=0.06)
    (facts,) = json.loads(file.read_text())["measured_on"]
    assert (facts["methods"], facts["pairs"], facts["samples_per_prompt"]) == (["npo"], 1, 4)
    assert str(tmp_path) not in file.read_text()


def test_models_of_another_target_are_no_pair(quiz: None, tmp_path: Path) -> None:
    other = determined(target={"fingerprint": "sha256:other"})
    cells = [cell("noop", **determined()), cell("npo", **other)]
    execute(plan(tmp_path / "run", *cells), Varied, Screen())
    with pytest.raises(UsageError, match="no run holds a target and an edited model"):
        spread_file.main([tmp_path / "run"], tmp_path / "spreads.json")


def facts(part: str, phrasing: str, subjects: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{part}{n}:{phrasing}", "part": part, "phrasing": phrasing, "subject": name}
        for n, name in enumerate(subjects)
    ]


def test_a_columns_items_and_groups_are_those_of_the_documents_that_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight forgotten facts of seven subjects, reworded as often, and three others."""
    documents = [
        *facts("forget", "verbatim", "aabcdefg"),
        *facts("forget", "paraphrase1", "aabcdefg"),
        *facts("retain_neighbour", "verbatim", "xyz"),
    ]
    spreads = {"fur.forget_choice_acc": Spread(0.5, 9, False, False)}
    monkeypatch.setattr(detectable, "read_spreads", lambda: spreads)
    own = list_protocols()["fur"]
    asked = {"fur_choice": documents, "fur_generate": documents}
    found = {entry.column: entry for entry in detectable.effects_of_task(own, asked)}
    forget, neighbour = found["fur.forget_choice_acc"], found["fur.retain_neighbour_rouge_l"]
    assert (forget.items, forget.clusters, forget.pairs) == (8, 7, 9)
    assert forget.effect == minimum_detectable_effect(0.5, 7)
    assert (neighbour.items, neighbour.clusters) == (3, 3)
    assert math.isinf(neighbour.effect)  # three subjects are too few, whatever the spread
    assert neighbour.source == ""
    assert found["fur.update_efficacy"].items == 0


def test_where_nobody_measured_a_share_has_the_largest_spread_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Differences in [−1, 1]: sd at most 1, so (1.96 + 0.8416)/√25 and one item of 25: 0.600."""
    monkeypatch.setattr(detectable, "read_spreads", dict)
    own, asked = list_protocols()["gsm8k"], {"gsm8k": [{"id": str(n)} for n in range(25)]}
    found = {entry.column: entry for entry in detectable.effects_of_task(own, asked)}
    assert found["gsm8k.exact_match_flexible"].effect == pytest.approx(0.600, abs=5e-4)
    own, asked = list_protocols()["wikitext"], {"wikitext": [{"id": str(n)} for n in range(25)]}
    (perplexity,) = detectable.effects_of_task(own, asked)
    assert math.isnan(perplexity.effect)


def test_lm_evals_own_shares_have_the_largest_spread_and_seeds_their_t(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five questions of a task file, three under the limit; two seeds are one degree of freedom."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    path, sources = write_task(tmp_path), SourceOptions(offline=True, cache=tmp_path)
    known = load_harness_tasks([str(path)], sources, allow_code=False).protocols
    suite = Suite(name="own", tasks=(str(path),), limits={str(path): 3})
    cells = [cell(name, seed) for seed in (0, 1) for name in ("noop", "npo")]
    own = plan(tmp_path, *cells, protocols=known, suite=suite, sources=sources)
    (entry,) = detectable.detectable_effects(own)
    assert (entry.column, entry.items, entry.clusters) == ("capitals.acc", 3, 3)
    assert entry.effect == minimum_detectable_effect(1.0, 3, binary=True, seeds=2)


def test_of_two_parts_that_fit_a_name_the_longer_is_meant() -> None:
    documents = [*facts("forget", "verbatim", "ab"), *facts("forget_text", "verbatim", "cde")]
    metrics = list_protocols()["muse_news"].metrics
    counts = [
        len(detectable.asked(metrics[name], documents))
        for name in ("forget_rouge_l", "forget_text_rouge_l")
    ]
    assert counts == [2, 3]


def test_safe_prompts_are_not_counted_as_unsafe() -> None:
    documents = [{"id": str(n), "label": "safe" if n < 3 else "unsafe"} for n in range(7)]
    metrics = list_protocols()["over_refusal"].metrics
    names = ("safe_refusal_rate", "unsafe_refusal_rate")
    assert [len(detectable.asked(metrics[name], documents)) for name in names] == [3, 4]


def test_the_dry_run_says_it_in_one_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = [
        detectable.Detectable("fur.a", 80, 16, 0.0691, False, "fur", 20),
        detectable.Detectable("wikitext.b", 28, 28, 0.023, True, "wikitext_mini", 1),
        detectable.Detectable("fur.c", 13, 3, math.inf, False, "fur", 20),
        detectable.Detectable("gsm8k.d", 6, 6),
        detectable.Detectable("gsm8k.e", 9, 9, 0.9),
    ]
    monkeypatch.setattr(detectable, "detectable_effects", lambda own: entries)
    console = Console(width=200, record=True, file=io.StringIO())
    commands.print_detectable(plan(tmp_path), console)
    head, *lines = console.export_text().splitlines()
    assert "paired test at 5 %" in head
    assert "one seed" in head
    assert [" ".join(line.split()) for line in lines] == [
        "seen fur.a 80 items 16 groups 0.069 from 20 pairs of models on fur",
        "seen wikitext.b 28 items 28 groups 2% of the value from 1 pair of models on wikitext_mini",
        "seen fur.c 13 items 3 groups none is seen: too few groups",
        "seen gsm8k.d 6 items 6 groups not known: no run has measured how much it varies",
        "seen gsm8k.e 9 items 9 groups at most 0.900: no run has measured how much it varies",
    ]
    commands.print_detectable(plan(tmp_path, cell("npo", 0), cell("npo", 1)), console)
    assert "2 seeds, Student's t over them" in console.export_text().splitlines()[0]
