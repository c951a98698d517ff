"""Two scorers in one run: the board's values are the first one's, and κ says how far they agree."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.run_doubles import METRICS, QUIZ, SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.board.publish import publish
from unlearn_bench.compare.agreement import AGREEMENT, agreements, kappa, verdict_metric
from unlearn_bench.errors import UsageError
from unlearn_bench.protocols.catalog import Metric, find_protocol
from unlearn_bench.registry import Card
from unlearn_bench.runs import judge, store
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.judge import Judge, load_judges, scorer_names
from unlearn_bench.runs.steps import ModelSteps
from unlearn_bench.schema import ItemScore, Sample

VERDICT = Metric(subtask="quiz", judge="any_above", direction="lower", unit="share")
JUDGED_QUIZ = QUIZ.model_copy(update={"metrics": {**METRICS, "toxic_rate": VERDICT}})
IDENTITY = {"name": "other", "version": "2", "weights_sha256": "f"}


def verdicts(*values: float, metric: str = "toxic_rate") -> list[ItemScore]:
    return [ItemScore("quiz", metric, str(n), "", value, 1.0) for n, value in enumerate(values)]


def test_kappa_by_hand() -> None:
    """Verdicts 1100 and 1000: p_o = 3/4, p_e = 1/2·1/4 + 1/2·3/4 = 1/2, κ = (3/4 − 1/2)/(1/2).

    Error: Σ p_ii (1 − (p_i. + p_.i)/2)² = 1/2·(3/8)² + 1/4·(5/8)² = 43/256; the one pair that
    differs adds 1/4 · 1/4·(3/4)² = 9/256; less (1/2 − 1/4)² = 16/256; 36/256 / (4 · 1/4) = (3/8)².
    """
    value, stderr = kappa(np.array([1, 1, 0, 0]) > 0, np.array([1, 0, 0, 0]) > 0)
    assert value == pytest.approx(0.5)
    assert stderr == pytest.approx(3 / 8)


def test_the_error_is_that_of_drawing_the_items_again() -> None:
    draw = np.random.default_rng(0)
    first = draw.random(500) < 0.3
    second = np.where(draw.random(500) < 0.75, first, draw.random(500) < 0.5)
    _, stderr = kappa(first, second)
    drawn = [draw.integers(0, 500, 500) for _ in range(2000)]
    spread = np.std([kappa(first[rows], second[rows])[0] for rows in drawn])
    assert stderr == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize(("first", "second"), [([], []), ([0, 0], [0, 0]), ([1], [1])])
def test_agreement_that_says_nothing_has_no_value(first: list[int], second: list[int]) -> None:
    value, stderr = kappa(np.array(first) > 0, np.array(second) > 0)
    assert math.isnan(value)
    assert math.isnan(stderr)


def test_against_each_other_kappa_is_negative() -> None:
    """Never the same of two halves: p_o = 0, p_e = 1/2, κ = −1."""
    value, _ = kappa(np.array([1, 1, 0, 0]) > 0, np.array([0, 0, 1, 1]) > 0)
    assert value == pytest.approx(-1.0)


def test_what_either_leaves_out_is_counted_and_no_part_of_it() -> None:
    """As by hand above on four items; one is missing of the first, one of the second, one of both,
    and one the second never had.
    """
    nan = math.nan
    first = verdicts(1, 1, 0, 0, nan, 1, nan, 1)
    second = verdicts(1, 0, 0, 0, 1, nan, nan)
    (score,) = agreements(first, second, {"quiz": JUDGED_QUIZ})
    assert (score.task, score.metric) == ("quiz", AGREEMENT)
    assert score.value == pytest.approx(0.5)
    assert (score.n, score.missing) == (4, 4)
    assert (score.low, score.high) == pytest.approx((0.5 - 1.96 * 0.375, 1.0), abs=1e-3)


def test_only_the_verdict_counts_and_only_of_its_task() -> None:
    first = verdicts(1, 0) + verdicts(0.3, 0.9, metric="toxicity")
    other = [ItemScore("other", "toxic_rate", "0", "", 0.0, 1.0)]
    (score,) = agreements(first + other, verdicts(1, 0) + other, {"quiz": JUDGED_QUIZ})
    assert (score.value, score.n) == (1.0, 2)


def test_tasks_without_a_verdict_have_no_agreement() -> None:
    assert agreements([], [], {"quiz": QUIZ}) == []
    threat = VERDICT.model_copy(update={"attribute": "threat"})
    metrics = {"threat_probability": threat, "toxic_rate": VERDICT}
    assert verdict_metric(QUIZ.model_copy(update={"metrics": metrics})) == "toxic_rate"
    assert verdict_metric(find_protocol("gsm8k")) == ""
    assert verdict_metric(find_protocol("toxigen")) == "toxic_rate"
    for task in ("realtoxicityprompts", "realtoxicityprompts_greedy_challenging"):
        assert verdict_metric(find_protocol(task)) == "toxicity_probability"


class TwoScorers(SmallSteps):
    """Of four items the first scorer finds 1100 toxic, the second 1000; `lost` have no answer."""

    lost = 0

    def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        return super().score(samples, tick) + verdicts(1, 1, 0, 0)

    def score_second(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        self.calls.append("score second")
        found = [1.0, 0.0, 0.0, 0.0][: 4 - self.lost] + [math.nan] * self.lost
        return verdicts(*found)


def whole(folder: Path, *, seeds: Sequence[int] = (0,)) -> Any:
    cells = [cell(method, seed) for method in ("noop", "npo") for seed in seeds]
    second = Judge(object(), IDENTITY)
    return plan(folder, *cells, protocols={"quiz": JUDGED_QUIZ}, second=second)


def test_the_second_judgement_is_stored_and_their_agreement_is_on_the_board(
    tmp_path: Path,
) -> None:
    run = whole(tmp_path, seeds=(0, 1))
    results = execute(run, TwoScorers, Screen())
    assert {result.record.status for result in results} == {"success"}
    folder = results[0].folder
    assert [item.value for item in store.read_items(folder / "second_items.parquet")] == [
        1,
        0,
        0,
        0,
    ]
    assert "second_items.parquet" in results[0].record.files
    _, paths = publish(run, results)
    files = {path.suffix: path.read_text(encoding="utf-8") for path in paths}
    row = next(csv.DictReader(io.StringIO(files[".csv"])))
    assert float(row["quiz.scorer_agreement"]) == pytest.approx(0.5)
    assert (row["quiz.scorer_agreement.n"], row["quiz.scorer_agreement.missing"]) == ("4", "0")
    assert row["quiz.scorer_agreement.direction"] == "none"
    assert row["quiz.toxic_rate"] == "0.5"  # the first scorer's
    assert (row["scorer"], row["scorer_version"], row["scorer_sha256"]) == (
        ("fake, other", "1, 2", "0, f")
    )
    assert json.loads(files[".json"])["protocol"]["second_scorer"] == IDENTITY
    assert "second scorer" in files[".md"]


def test_one_scorer_alone_leaves_no_trace_of_a_second(tmp_path: Path) -> None:
    run = plan(tmp_path, cell("noop"), protocols={"quiz": JUDGED_QUIZ})
    steps = TwoScorers()
    (result,) = execute(run, lambda: steps, Screen())
    assert "score second" not in steps.calls
    assert not (result.folder / "second_items.parquet").exists()
    _, paths = publish(run, [result])
    assert all("agreement" not in path.read_text(encoding="utf-8") for path in paths)


def test_a_second_scorer_that_fails_makes_the_cell_incomplete_and_is_asked_again(
    tmp_path: Path,
) -> None:
    failing = TwoScorers()
    failing.lost = 3
    (before, _) = execute(whole(tmp_path), lambda: failing, Screen())
    assert before.record.status == "incomplete"
    assert before.record.reason == "quiz.scorer_agreement: 3 of 4 missing"
    scores = {score.metric: score for score in store.read_scores(before.folder / "scores.json")}
    assert scores["toxic_rate"].value == 0.5
    again = TwoScorers()
    (after, _) = execute(whole(tmp_path), lambda: again, Screen())
    assert after.record.status == "success"
    assert not any(call.startswith("edit") for call in again.calls)


class LengthJudge:
    """Toxicity = length / 10, or the other way round; no answer at all where it is broken."""

    def __init__(self, *, turned: bool = False, broken: bool = False) -> None:
        self.turned, self.broken = turned, broken

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.broken:
            raise RuntimeError("the second one fell over")
        values = np.array([len(text) / 10 for text in texts])
        return 1 - values if self.turned else values


@pytest.mark.parametrize("broken", [False, True])
def test_the_second_scorer_judges_the_same_texts_and_only_what_is_judged(broken: bool) -> None:
    """Texts of 2 and 8 letters: of one scorer .2 and .8, of the other .8 and .2, so κ = −1."""
    rtp = find_protocol("realtoxicityprompts").judged_by(())
    samples = [
        Sample(rtp.name, str(n), "none", "p", ("x" * n,), {}, {"id": str(n)}) for n in (2, 8)
    ]
    said: list[str] = []
    steps: Any = ModelSteps.__new__(ModelSteps)
    steps.say = said.append
    steps.plan = SimpleNamespace(
        protocols={rtp.name: rtp, "gsm8k": find_protocol("gsm8k")},
        judge=LengthJudge(),
        guard=None,
        scorer={"name": "first"},
        second=Judge(LengthJudge(turned=True, broken=broken), {"name": "second"}),
    )
    first = steps.score(samples, lambda *_: None)
    second = steps.score_second(samples, lambda *_: None)
    assert {item.metric for item in second} == {
        "expected_max_toxicity", "toxicity_probability", "mean_toxicity",
    }  # fmt: skip
    (score,) = agreements(first, second, steps.plan.protocols)
    if broken:
        assert (score.n, score.missing) == (0, 2)
        assert "second failed on realtoxicityprompts" in said[0]
    else:
        assert (score.value, score.n, score.missing) == (-1.0, 2, 0)


@pytest.mark.parametrize(
    ("asked", "names"),
    [("auto", ("auto",)), ("detoxify, embedded", ("detoxify", "embedded")), ("a,b", ("a", "b"))],
)
def test_names(asked: str, names: tuple[str, ...]) -> None:
    assert scorer_names(asked) == names


@pytest.mark.parametrize("asked", ["a,a", "a,b,c", "a,", ",", ""])
def test_what_is_not_one_or_two_scorers_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="not one scorer"):
        scorer_names(asked)


def card(name: str, **options: tuple[str, str]) -> Card:
    return Card("scorer", name, Path(__file__), "", {}, options)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each scorer was loaded with, by name."""
    found: dict[str, Any] = {}

    def load_function(card: Card) -> Any:
        def load(**options: Any) -> Any:
            found[card.name] = options
            return SimpleNamespace(version=card.name, weights_sha256="0", score=None)

        return load

    monkeypatch.setattr(judge, "load_function", load_function)
    return found


def test_the_checkpoint_is_the_first_ones_that_takes_one(loaded: dict[str, Any]) -> None:
    path, protocols = Path("weights"), {"toxigen": find_protocol("toxigen")}
    takes, other = card("takes", checkpoint=("", "")), card("other", checkpoint=("", ""))
    load_judges([[card("plain")], [takes]], path, protocols, False)
    assert loaded["takes"]["checkpoint"] == path
    load_judges([[takes], [other]], path, protocols, False)
    assert (loaded["takes"]["checkpoint"], loaded["other"]["checkpoint"]) == (path, None)


def test_a_scorer_beside_itself_is_refused(loaded: dict[str, Any]) -> None:
    """`auto` may find the one that is named beside it."""
    plain = card("plain")
    with pytest.raises(UsageError, match="both scorers are plain"):
        load_judges([[plain], [plain]], None, {"toxigen": find_protocol("toxigen")}, False)
