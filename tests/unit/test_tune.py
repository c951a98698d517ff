"""Equal budgets: which settings are tried, when a method stops, and what stays of every trial."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.tuning_doubles import TuningSteps, method_cards, run_tuning, tuning_plan
from unlearn_bench.board.tuning import read_recorded
from unlearn_bench.errors import CancelledError, CorruptDataError, UnlearnBenchError, UsageError
from unlearn_bench.registry import list_cards
from unlearn_bench.runs import execute
from unlearn_bench.runs.tune import Trial, Tuning, plan_tuning
from unlearn_bench.runs.tuned import Budget


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here holds memory, and looking for it takes half of a small trial's time."""
    monkeypatch.setattr(execute, "return_memory", lambda: None)


def drawn(tuning: Tuning, method: str) -> list[dict[str, Any]]:
    return [dict(trial.options) for trial in tuning.methods[method].trials]


def edits(steps: TuningSteps, method: str) -> int:
    return sum(call.startswith(f"edit {method} ") for call in steps.calls)


def test_every_method_gets_as_many_trials_and_starts_from_its_defaults(tmp_path: Path) -> None:
    steps = TuningSteps()
    cards = method_cards(tmp_path / "methods", "first", "second")
    tuning = run_tuning(tmp_path / "out", cards, steps, trials=6)
    for method in ("first", "second"):
        settings = drawn(tuning, method)
        assert len(settings) == edits(steps, method) == 6
        assert settings[0] == {"strength": 1.0, "steps": 2}
        assert len({json.dumps(setting) for setting in settings}) > 4
        assert all(0.1 <= setting["strength"] <= 10 for setting in settings)
        assert tuning.methods[method].ended == "trials"
    assert drawn(tuning, "first")[1:] != drawn(tuning, "second")[1:]
    assert steps.calls[:2] == ["prepare", "edit noop 0"]  # measured first, outside any budget
    assert tuning.complete


def test_no_setting_is_tried_twice_while_others_are_left(tmp_path: Path) -> None:
    """Three settings, the default one of them: three trials see all; a fourth repeats one."""
    facts = 'goals=("forget",), search={"steps": [1, 2, 3]}'
    cards = method_cards(tmp_path / "methods", "mine", "other", facts=facts)
    tuning = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=4)
    for own in tuning.methods.values():
        tried = [trial.options["steps"] for trial in own.trials]
        assert tried[0] == 2
        assert sorted(tried[:3]) == [1, 2, 3]
        assert tried[3] in (1, 2, 3)


def test_no_method_is_ever_two_trials_ahead_of_another(tmp_path: Path) -> None:
    steps = TuningSteps()
    cards = method_cards(tmp_path / "methods", "first", "second", "third")
    run_tuning(tmp_path / "out", cards, steps, trials=3)
    turns = [call.split()[1] for call in steps.calls if call.startswith("edit ")]
    assert turns[-9:] == ["first", "second", "third"] * 3


def test_the_objective_is_that_of_the_stored_scores(tmp_path: Path) -> None:
    """Strength 1 forgets 0.15 of 0.6: gain 0.25. It keeps 0.95 of the facts and all of the two
    other shares: keep 3 / (1/0.95 + 2) = 2.85 / 2.9. 2·0.25·keep / (0.25 + keep) = 1.425 / 3.575.
    """
    cards = method_cards(tmp_path / "methods", "mine")
    tuning = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=1)
    (trial,) = tuning.methods["mine"].trials
    assert (trial.gain, trial.keep) == (pytest.approx(0.25), pytest.approx(2.85 / 2.9))
    assert trial.objective == pytest.approx(1.425 / 3.575)
    assert trial.scores["wikitext.word_perplexity"] == pytest.approx(80.0)


def test_a_method_stops_after_its_seconds_and_what_has_begun_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three steps takes 10 s. With 50 s two trials begin, with 60 s two, with 61 three;
    preparing and the two models for comparison cost no method anything.
    """
    ticks = itertools.count(step=10.0)
    monkeypatch.setattr(execute, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    cards = method_cards(tmp_path / "methods", "first", "second")
    for seconds, expected in ((50, 2), (60, 2), (61, 3)):
        tuning = run_tuning(
            tmp_path / str(seconds), cards, TuningSteps(), trials=9, seconds=seconds
        )
        for own in tuning.methods.values():
            assert len(own.trials) == expected
            assert own.seconds == 30.0 * expected
            assert own.ended == "seconds"
        assert tuning.complete


def test_a_larger_budget_goes_on_with_the_same_draws(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    short = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=6)
    steps = TuningSteps()
    long = run_tuning(tmp_path / "out", cards, steps, trials=9)
    assert long.methods["mine"].trials[:6] == short.methods["mine"].trials  # seconds too
    assert edits(steps, "mine") == 3
    whole = run_tuning(tmp_path / "afresh", cards, TuningSteps(), trials=9)
    assert drawn(whole, "mine") == drawn(long, "mine")


def test_tuning_json_alone_is_enough_to_go_on(tmp_path: Path) -> None:
    """On another machine, or with the cells thrown away: nothing that is written down runs again,
    not even the target, and an interruption loses nothing of the methods that were not reached.
    """
    cards = method_cards(tmp_path / "methods", "first", "second")
    short = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=3)
    shutil.rmtree(tmp_path / "out" / "cells")

    class Stopped(TuningSteps):
        def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(CancelledError):
        run_tuning(tmp_path / "out", cards, Stopped(), trials=5)
    written = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert [len(written["methods"][name]["trials"]) for name in ("first", "second")] == [3, 3]
    steps = TuningSteps()
    resumed = run_tuning(tmp_path / "out", cards, steps, trials=5)
    assert steps.calls[:2] == ["prepare", f"edit first {0}"]
    assert [edits(steps, name) for name in ("first", "second")] == [2, 2]
    assert repr(resumed.references) == repr(short.references)  # NaN is not equal to itself
    whole = run_tuning(tmp_path / "afresh", cards, TuningSteps(), trials=5)
    for name in ("first", "second"):
        assert resumed.methods[name].trials[:3] == short.methods[name].trials
        assert drawn(resumed, name) == drawn(whole, name)
    assert resumed.complete


def test_an_older_objective_is_worked_out_again_from_the_scores_that_were_kept(
    tmp_path: Path,
) -> None:
    """What was written under another formula: no trial runs again, and none keeps the old number.
    Where a metric that is read now was not kept, the trial's cell is read again.
    """
    cards = method_cards(tmp_path / "methods", "mine")
    right = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=4).methods["mine"]
    file = tmp_path / "out" / "tuning.json"
    content = json.loads(file.read_text())
    trials = content["methods"]["mine"]["trials"]
    for old in trials:
        old |= {"objective": 0.9, "gain": 0.9, "keep": 0.9, "gains": {"forget": 0.9}}
    del trials[2]["scores"]["fur.retain_gibberish"]
    file.write_text(json.dumps(content))
    steps = TuningSteps()
    again = run_tuning(tmp_path / "out", cards, steps, trials=4).methods["mine"]
    assert again.trials == right.trials
    assert not steps.calls


@pytest.mark.parametrize("content", ["", "[]", '{"format": 7}', '{"format": 1, "methods": 3}'])
def test_a_broken_tuning_json_is_not_overwritten(content: str, tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text(content)
    with pytest.raises(CorruptDataError, match="earlier tuning cannot be read"):
        read_recorded(tmp_path)
    assert (tmp_path / "tuning.json").read_text() == content


def test_draws_do_not_depend_on_which_other_methods_are_tuned(tmp_path: Path) -> None:
    alone = run_tuning(
        tmp_path / "a", method_cards(tmp_path / "m", "mine"), TuningSteps(), trials=7
    )
    cards = method_cards(tmp_path / "m", "other", "mine")
    beside = run_tuning(tmp_path / "b", cards, TuningSteps(), trials=7)
    assert drawn(beside, "mine") == drawn(alone, "mine")


class Interrupted(TuningSteps):
    """Ctrl-C while the fourth trial is being edited."""

    def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        if edits(self, "mine") == 3:
            raise KeyboardInterrupt
        return super().edit(cell, checkpoint, tick)


def test_ctrl_c_keeps_every_finished_trial_and_the_next_run_makes_the_same_decisions(
    tmp_path: Path,
) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    with pytest.raises(CancelledError):
        run_tuning(tmp_path / "out", cards, Interrupted(), trials=7)
    written = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert len(written["methods"]["mine"]["trials"]) == 3
    assert not written["complete"]
    steps = TuningSteps()
    resumed = run_tuning(tmp_path / "out", cards, steps, trials=7)
    assert edits(steps, "mine") == 4
    whole = run_tuning(tmp_path / "afresh", cards, TuningSteps(), trials=7)
    assert drawn(resumed, "mine") == drawn(whole, "mine")


def test_a_failing_trial_is_kept_counts_as_0_and_is_not_tried_again(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    tuning = run_tuning(tmp_path / "out", cards, TuningSteps(broken=2.0), trials=8)
    own = tuning.methods["mine"]
    failed = [trial for trial in own.trials if trial.status == "diverged"]
    assert 0 < len(failed) < 8
    for trial in failed:
        assert trial.options["strength"] > 2
        assert (trial.objective, trial.gain, trial.keep) == (0.0, None, None)
        assert "not finite" in trial.reason
        assert trial.seconds > 0  # the edit that failed was paid for
    assert own.best is not None
    assert own.best.options["strength"] <= 2
    assert len(own.objectives) == 8
    steps = TuningSteps(broken=2.0)
    again = run_tuning(tmp_path / "out", cards, steps, trials=8)
    assert not steps.calls  # not even an engine
    assert again.methods["mine"].trials == own.trials


def test_a_method_that_only_fails_has_no_winner(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    tuning = run_tuning(tmp_path / "out", cards, TuningSteps(broken=0.01), trials=3)
    winner = tuning.methods["mine"].winner()
    assert (winner.options, winner.best, winner.median, winner.trials) == (None, 0.0, 0.0, 3)


class Unjudged(TuningSteps):
    """The judge answers for the first two edits and for none afterwards."""

    def score(self, samples: Any, tick: Any) -> Any:
        self.target["toxicity"] = 0.4 if edits(self, "mine") < 3 else math.nan
        return super().score(samples, tick)


def test_a_missing_value_is_no_objective_and_not_0(tmp_path: Path) -> None:
    facts = (
        'goals=("forget", "detoxify"), search={"strength": (0.1, 10.0, "log"), "steps": [1, 2, 3]}'
    )
    cards = method_cards(tmp_path / "methods", "mine", facts=facts)
    tuning = run_tuning(tmp_path / "out", cards, Unjudged(), trials=5)
    own = tuning.methods["mine"]
    assert [trial.status for trial in own.trials] == ["success"] * 2 + ["incomplete"] * 3
    assert [trial.objective is None for trial in own.trials] == [False] * 2 + [True] * 3
    assert own.winner().trials == 5
    assert own.winner().median == pytest.approx(sum(own.objectives) / 2)
    assert own.best in own.trials[:2]


def test_a_judge_that_works_again_is_asked_again(tmp_path: Path) -> None:
    facts = (
        'goals=("forget", "detoxify"), search={"strength": (0.1, 10.0, "log"), "steps": [1, 2, 3]}'
    )
    cards = method_cards(tmp_path / "methods", "mine", facts=facts)
    before = run_tuning(tmp_path / "out", cards, Unjudged(), trials=5)
    steps = TuningSteps()
    after = run_tuning(tmp_path / "out", cards, steps, trials=5)
    assert drawn(after, "mine") == drawn(before, "mine")
    assert [trial.status for trial in after.methods["mine"].trials] == ["success"] * 5
    assert steps.calls.count("score") == 3
    assert not edits(steps, "mine")  # the answers were kept


def test_nothing_is_tuned_against_a_target_that_could_not_be_measured(tmp_path: Path) -> None:
    class Broken(TuningSteps):
        def evaluate(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
            raise RuntimeError("the engine fell over")

    steps = Broken()
    cards = method_cards(tmp_path / "methods", "mine")
    with pytest.raises(UnlearnBenchError, match="noop failed"):
        run_tuning(tmp_path / "out", cards, steps)
    assert not edits(steps, "mine")


@pytest.mark.parametrize(
    ("changed", "goals"),
    [
        ({"forget": 0.2}, "forget"),
        ({"toxicity": math.nan}, "detoxify"),
        ({"known": math.nan}, "utility"),
    ],
)
def test_a_method_that_could_have_no_objective_is_refused_before_its_first_trial(
    tmp_path: Path, changed: dict[str, float], goals: str
) -> None:
    """The exact model's forgotten facts are at 0.2: a target that is there has nothing to gain."""
    goal = goals if goals != "utility" else "forget"
    facts = f'goals=("{goal}",), search={{"steps": [1, 2, 3]}}'
    cards = method_cards(tmp_path / "methods", "mine", facts=facts)
    steps = TuningSteps()
    steps.target |= changed
    with pytest.raises(UnlearnBenchError, match=f"mine cannot be tuned: the target's {goals}"):
        run_tuning(tmp_path / "out", cards, steps)
    assert not edits(steps, "mine")


def test_a_judge_that_fails_does_not_touch_a_method_that_is_not_judged(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    steps = TuningSteps()
    steps.target["toxicity"] = math.nan
    own = run_tuning(tmp_path / "out", cards, steps, trials=2, judge=None).methods["mine"]
    assert [trial.status for trial in own.trials] == ["incomplete"] * 2
    assert own.best is not None


def test_a_fixed_option_is_in_every_trial_and_in_the_winner(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine")
    settings = {"mine": {"steps": 9}}
    tuning = run_tuning(tmp_path / "out", cards, TuningSteps(), trials=3, settings=settings)
    assert all(setting.keys() == {"strength"} for setting in drawn(tuning, "mine"))
    plans = [
        json.loads(path.read_text()) for path in (tmp_path / "out").glob("cells/*mine*/plan.json")
    ]
    assert {plan["determinants"]["method"]["options"]["steps"] for plan in plans} == {9}
    winner = tuning.methods["mine"].winner()
    assert winner.options is not None
    assert winner.options["steps"] == 9


def trial(number: int, objective: float | None, status: str = "success") -> Trial:
    return Trial(number, {"n": number}, status, "", objective, None, None, {}, {}, 1.0, "")


def test_the_earliest_of_equals_wins_and_the_median_is_of_those_that_have_one(
    tmp_path: Path,
) -> None:
    plan = tuning_plan(tmp_path, method_cards(tmp_path / "methods", "mine"))
    own = plan_tuning(plan, Budget(trials=1, seconds=1), {}).methods["mine"]
    own.trials = [
        trial(0, 0.3),
        trial(1, 0.5),
        trial(2, None),
        trial(3, 0.5),
        trial(4, 0.0, "failed"),
    ]
    assert own.best == own.trials[1]
    winner = own.winner()
    assert (winner.best, winner.median, winner.trials) == (0.5, 0.4, 5)  # of 0, 0.3, 0.5, 0.5


def test_controls_and_methods_without_a_space_are_left_out_and_said(tmp_path: Path) -> None:
    cards = method_cards(tmp_path / "methods", "mine") | {
        "random_noise": list_cards("method")["random_noise"]
    }
    notes = plan_tuning(tuning_plan(tmp_path, cards), Budget(trials=1, seconds=1), {}).plan.notes
    assert list(notes) == ["not tuned: random_noise, a control"]


@pytest.mark.parametrize(
    ("facts", "settings", "changes", "message"),
    [
        ('goals=("forget",)', {}, {}, "nothing to tune"),
        ("goals=(), control=True", {}, {}, "nothing to tune"),
        ('goals=("forget",), search={"steps": [1, 2]}', {"mine": {"steps": 1}}, {}, "all set"),
        ('goals=("forget",), search={"steps": [1, 3]}', {}, {}, "does not hold the default"),
        ('goals=("detoxify",), search={"steps": [1, 2]}', {}, {"judge": None}, "no scorer"),
        ('goals=("forget",), search={"steps": [1, 2]}', {}, {"protocols": {}}, "does not measure"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_refused_before_anything_runs(
    tmp_path: Path, facts: str, settings: Any, changes: Any, message: str
) -> None:
    plan = tuning_plan(tmp_path, method_cards(tmp_path / "methods", "mine", facts=facts), **changes)
    with pytest.raises(UsageError, match=message):
        plan_tuning(plan, Budget(trials=1, seconds=1), settings)


def test_a_diverged_perplexity_is_written_down_as_a_word(tmp_path: Path) -> None:
    class Diverged(TuningSteps):
        def score(self, samples: Any, tick: Any) -> Any:
            *items, page = super().score(samples, tick)
            if edits(self, "mine"):
                page = type(page)(**{**vars(page), "value": -math.inf})
            return [*items, page]

    cards = method_cards(tmp_path / "methods", "mine")
    tuning = run_tuning(tmp_path / "out", cards, Diverged(), trials=1)
    (found,) = tuning.methods["mine"].trials
    assert (found.keep, found.objective) == (0.0, 0.0)
    content = json.loads((tmp_path / "out" / "tuning.json").read_text(), parse_constant=pytest.fail)
    (stored,) = content["methods"]["mine"]["trials"]
    assert stored["scores"]["wikitext.word_perplexity"] == "inf"
