"""Choose options for every method with the same budget, on items that no test suite asks.

A trial is a cell like any other, so it has its record and is never computed twice. The draws of a
method follow from the seed, its name and the objectives so far: a run that was interrupted repeats
them from the records and goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unlearn_bench.compare.objective import metrics_read, objective
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.methods.options import resolve_options
from unlearn_bench.methods.search import Choice, Range, Space, search_space
from unlearn_bench.registry import Card
from unlearn_bench.runs.contract import CellResult, Steps
from unlearn_bench.runs.execute import Session, open_session
from unlearn_bench.runs.plan import EXACT, TARGET, Cell, Plan
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.store import read_scores
from unlearn_bench.runs.tuned import Budget, Winner
from unlearn_bench.schema import FAILED, SCORED

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5  # drawn at random, the defaults among them, before the sampler learns from them
REDRAWS = 20  # of a setting that was tried before
DIGITS = 4  # of a drawn number: what is written down is what was run


@dataclass(frozen=True)
class Trial:
    """One setting and what came of it. `options` are the drawn ones.

    objective: a failed trial's is 0; None where a value is missing. seconds: of all steps of the
    cell. scores: of the metrics that the objective reads, None where missing.
    """

    number: int
    options: Mapping[str, Any]
    status: str
    reason: str
    objective: float | None
    gain: float | None
    keep: float | None
    gains: Mapping[str, float | None]
    scores: Mapping[str, float | None]
    seconds: float
    cell_key: str

    @property
    def valid(self) -> bool:
        """Whether the trial can win."""
        return self.status not in FAILED and self.objective is not None


@dataclass
class MethodTuning:
    """One method's trials in their order, and why they ended ("" while they go on)."""

    method: str
    goals: tuple[str, ...]
    space: Space
    fixed: Mapping[str, Any]
    trials: list[Trial] = field(default_factory=list)
    ended: str = ""

    @property
    def best(self) -> Trial | None:
        """The valid trial with the highest objective, the earliest of equals: defaults come first.

        None where no trial is valid.
        """
        valid = [trial for trial in self.trials if trial.valid]
        return max(valid, key=lambda trial: trial.objective or 0.0, default=None)

    @property
    def objectives(self) -> list[float]:
        """Those of all trials that have one, in their order."""
        return [trial.objective for trial in self.trials if trial.objective is not None]

    @property
    def seconds(self) -> float:
        """What all trials took together."""
        return sum(trial.seconds for trial in self.trials)

    def winner(self) -> Winner:
        """What tuned.yaml says of the method."""
        found = self.objectives
        return Winner(
            options={**self.fixed, **self.best.options} if self.best else None,
            best=max(found, default=None),
            median=statistics.median(found) if found else None,
            trials=len(self.trials),
        )


@dataclass(frozen=True)
class Reference:
    """One of the two models that every trial is measured by."""

    method: str
    scores: Mapping[str, float]
    weights_fingerprint: str
    cell_key: str


@dataclass(frozen=True)
class Recorded:
    """What an earlier run wrote down, by cell key: no such cell is computed again.

    A key holds everything that determines a cell's numbers, so the cells' own folders need not be
    kept for a tuning to go on, on this machine or another.
    """

    references: Mapping[str, Reference] = field(default_factory=dict)
    trials: Mapping[str, Trial] = field(default_factory=dict)


@dataclass
class Tuning:
    """A whole run. references: the target and, unless it is the user's own, the exact model."""

    plan: Plan
    budget: Budget
    seed: int
    methods: dict[str, MethodTuning]
    references: dict[str, Reference] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every method has spent its budget."""
        return all(own.ended for own in self.methods.values())


def plan_tuning(plan: Plan, budget: Budget, settings: Mapping[str, Mapping[str, Any]]) -> Tuning:
    """What will be tuned; the plan's notes then say what will not. settings: fixed options.

    Raises UsageError when nothing is to be tuned, for a search space that does not fit, and for a
    suite or scorer that cannot measure a method's goals.
    """
    methods, left = {}, []
    for name, card in plan.cards.items():
        fixed = settings.get(name, {})
        space = search_space(card, fixed)
        if card.facts.get("goals") and space:
            goals = tuple(card.facts["goals"])
            methods[name] = MethodTuning(name, goals, space, dict(fixed))
            check_measured(plan, card)
        elif name not in (TARGET, EXACT):
            left.append(f"not tuned: {name}, {_why_not(card)}")
    if not methods:
        raise UsageError(
            "; ".join(["there is nothing to tune", *left]),
            next_step="name a method whose decorator has goals and a search space",
        )
    (seed,) = {cell.seed for cell in plan.cells}
    noted = dataclasses.replace(plan, notes=(*plan.notes, *left))
    return Tuning(noted, budget, seed, methods)


def _why_not(card: Card) -> str:
    if not card.facts.get("goals"):
        return "a control" if card.facts.get("control") else "which declares no goals"
    if card.facts.get("search"):
        return "whose options are all set"
    return "which declares no search space"


def check_measured(plan: Plan, card: Card) -> None:
    """Raise UsageError when a value that the method's objective needs cannot be had."""
    measured = {
        f"{protocol.base}.{name}": metric
        for protocol in plan.protocols.values()
        for name, metric in protocol.metrics.items()
    }
    for name in metrics_read(card.facts["goals"]):
        if name not in measured:
            raise UsageError(
                f"suite {plan.suite.name!r} does not measure {name}, by which {card.name} is tuned",
                next_step="add its task to the suite",
            )
        if measured[name].judge and plan.judge is None:
            raise UsageError(
                f"{card.name} is tuned by {name}, and no scorer could be loaded",
                next_step="unlearn-bench doctor says why; or leave the method out",
            )


def tune(
    tuning: Tuning,
    open_steps: Callable[[], Steps],
    reporter: Reporter,
    keep: Callable[[Tuning], object],
    recorded: Recorded | None = None,
) -> None:
    """Run what is missing of every method's trials, adding to `tuning` as they end.

    keep: writes everything down, called after every new trial. recorded: what was written down
    before; all of it is in `tuning` before the first trial is run. Raises as `execute.execute`
    does, and UnlearnBenchError when the target or the exact model could not be measured.
    """
    before = recorded or Recorded()
    with open_session(tuning.plan, open_steps, reporter) as session:
        for cell in tuning.plan.cells:
            if cell.method in (TARGET, EXACT):
                known = before.references.get(cell.key)
                found = known or _measure_reference(session, tuning, cell)
                tuning.references[cell.method] = found
        check_references(tuning)
        cells = [cell for cell in tuning.plan.cells if cell.method in tuning.methods]
        searches = [_Search(tuning, cell, before.trials) for cell in cells]
        keep(tuning)
        while open_ := [search for search in searches if not search.own.ended]:
            # Turn by turn: wherever the run is interrupted, no method is a trial ahead of another.
            min(open_, key=lambda search: len(search.own.trials)).run(session)
            keep(tuning)


def _measure_reference(session: Session, tuning: Tuning, cell: Cell) -> Reference:
    result = session.finish(cell, title=f"{cell.method}, for comparison")
    if result.record.status in FAILED:
        raise UnlearnBenchError(
            f"{cell.method} failed, and every trial is measured by it: {result.record.reason}",
            where=str(result.folder),
            next_step="run the same command again once the cause is gone",
        )
    provenance = json.loads((result.folder / "provenance.json").read_bytes())
    return Reference(
        method=cell.method,
        scores=_read_values(tuning.plan, result),
        weights_fingerprint=str(provenance["weights_fingerprint"]),
        cell_key=cell.key,
    )


def check_references(tuning: Tuning) -> None:
    """Raise UnlearnBenchError for a method of which no trial could have an objective: a value of
    the target or of the exact model is missing, or the two leave nothing to gain.
    """
    target, exact = tuning.references[TARGET], tuning.references.get(EXACT)
    for own in tuning.methods.values():
        found = objective(own.goals, target.scores, target.scores, exact.scores if exact else None)
        if math.isnan(found.value):
            lost = [goal for goal, value in found.gains.items() if math.isnan(value)]
            raise UnlearnBenchError(
                f"{own.method} cannot be tuned: the target's {', '.join(lost or ['utility'])} is "
                "missing, or no worse than what could be reached",
                where=str(tuning.plan.output),
                next_step="leave the method out, or choose a suite that shows a difference",
            )


class _Search:
    """One method's draws and trials, and where they are. What was recorded is read at once."""

    def __init__(self, tuning: Tuning, defaults: Cell, recorded: Mapping[str, Trial]) -> None:
        self.tuning, self.defaults = tuning, defaults
        self.own = tuning.methods[defaults.method]
        self.study = _open_study(self.own, tuning.seed, defaults)
        self.distributions = {n: _distribution(part) for n, part in self.own.space.items()}
        self._draw()
        while not self.own.ended and (trial := self._known(recorded)):
            self._count(trial)

    def _known(self, recorded: Mapping[str, Trial]) -> Trial | None:
        """The trial drawn last, where it was recorded with all that its objective is made of now;
        which is worked out again, since an older file had another objective.
        """
        trial = recorded.get(self.cell.key)
        read = metrics_read(self.own.goals)
        if trial is None or (trial.status in SCORED and not trial.scores.keys() >= set(read)):
            return None
        numbered = dataclasses.replace(trial, number=len(self.own.trials))
        return _rated(self.tuning, self.own, numbered)

    def run(self, session: Session) -> None:
        """Compute the trial that was drawn last, however long it takes, and draw the next."""
        number, total = len(self.own.trials), self.tuning.budget.trials
        title = f"{self.own.method} trial {number + 1}/{total}"
        result = session.finish(self.cell, title=title, retry=False)
        trial = _assess(self.tuning, self.own, number, self.drawn, result)
        self._count(trial)
        best = _figure(self.own.winner().best)
        session.reporter.say(f"{title}: {_in_words(trial)}; best {best}")

    def _draw(self) -> None:
        """The next setting and its cell. The first is the defaults, as they are.

        A setting that was tried is told to the sampler again and not run: a winner that became the
        default is among the seed's own draws, and small spaces repeat themselves. Where a space is
        used up a method has its trials again, rather than fewer than others.
        """
        self.pending, self.drawn = self._ask()
        for _ in range(REDRAWS):
            tried = [t.objective for t in self.own.trials if t.options == self.drawn]
            if not tried or tried[0] is None:
                break
            self.study.tell(self.pending, tried[0])
            self.pending, self.drawn = self._ask()
        given = {**self.own.fixed, **self.drawn}
        self.cell = with_options(self.tuning.plan, self.defaults, given)

    def _ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        pending = self.study.ask(self.distributions)
        drawn = dict(pending.params)
        if self.own.trials:
            drawn = {n: _shortened(drawn[n], part) for n, part in self.own.space.items()}
        return pending, drawn

    def _count(self, trial: Trial) -> None:
        """Add the trial to its method's, tell the sampler, and draw again if there is budget."""
        import optuna

        if trial.objective is None:
            self.study.tell(self.pending, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.pending, trial.objective)
        self.own.trials.append(trial)
        if len(self.own.trials) == self.tuning.budget.trials:
            self.own.ended = "trials"
        elif self.own.seconds >= self.tuning.budget.seconds:
            self.own.ended = "seconds"
        else:
            self._draw()


def _open_study(own: MethodTuning, seed: int, defaults: Cell) -> optuna.Study:
    """Draws that depend on the seed, the method and its own trials, whatever else is tuned."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digest = hashlib.sha256(f"{seed}\n{own.method}".encode()).digest()
    sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"), n_startup_trials=STARTUP_TRIALS
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: defaults.options[name] for name in own.space})
    return study


def _distribution(part: Choice | Range) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(part, Choice):
        return CategoricalDistribution(part.values)
    if part.whole:
        return IntDistribution(int(part.low), int(part.high), log=part.log)
    return FloatDistribution(part.low, part.high, log=part.log)


def _shortened(value: Any, part: Choice | Range) -> Any:
    if isinstance(part, Choice) or part.whole:
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), part.low), part.high)


def with_options(plan: Plan, defaults: Cell, given: Mapping[str, Any]) -> Cell:
    """The method's cell with other options. given: those that differ from the defaults."""
    options = resolve_options(plan.cards[defaults.method], given)
    method = {**defaults.determinants["method"], "options": options}
    determinants = {**defaults.determinants, "method": method}
    return dataclasses.replace(defaults, options=options, determinants=determinants)


def _assess(
    tuning: Tuning, own: MethodTuning, number: int, drawn: Mapping[str, Any], result: CellResult
) -> Trial:
    """The trial that a finished cell is. One that failed is as bad as can be, and says so."""
    record = result.record
    values = _read_values(tuning.plan, result) if record.status in SCORED else {}
    trial = Trial(
        number=number,
        options=dict(drawn),
        status=record.status,
        reason=record.reason,
        objective=0.0,
        gain=None,
        keep=None,
        gains={},
        scores={name: _known(values.get(name, math.nan)) for name in metrics_read(own.goals)},
        seconds=sum(record.seconds.values()),
        cell_key=record.key,
    )
    return _rated(tuning, own, trial)


def _rated(tuning: Tuning, own: MethodTuning, trial: Trial) -> Trial:
    """The trial with the objective of its scores; one that failed has 0 already."""
    if trial.status not in SCORED:
        return trial
    target, exact = tuning.references[TARGET], tuning.references.get(EXACT)
    scores = {name: value for name, value in trial.scores.items() if value is not None}
    found = objective(own.goals, scores, target.scores, exact.scores if exact else None)
    return dataclasses.replace(
        trial,
        objective=_known(found.value),
        gain=_known(found.gain),
        keep=_known(found.keep),
        gains={goal: _known(value) for goal, value in found.gains.items()},
    )


def _read_values(plan: Plan, result: CellResult) -> dict[str, float]:
    """The cell's metrics by their names without the mini mark; NaN as soon as one item is missing:
    a mean over fewer items is not comparable.
    """
    return {
        f"{plan.protocols[score.task].base}.{score.metric}": (
            math.nan if score.missing else score.value
        )
        for score in read_scores(result.folder / "scores.json")
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _in_words(trial: Trial) -> str:
    if trial.status in FAILED:
        return f"{trial.status}, objective 0"
    if trial.objective is None:
        return "no objective, a value is missing"
    return (
        f"objective {trial.objective:.3f} (gain {_figure(trial.gain)}, keep {_figure(trial.keep)})"
    )


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
