"""Whether a board's numbers agree with each other: within a score, between rows, in summaries.

An interval need not hold its value everywhere: that of the largest group and of the gap between
groups is biased upwards, and calibrated and overall scores are cut before they are drawn.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from unlearn_bench.board.board_file import (
    BoardFile,
    ColumnPart,
    Figure,
    OverallPart,
    RowPart,
    ScorePart,
    to_float,
)
from unlearn_bench.board.entries import VARIANT
from unlearn_bench.board.faults import Fault, place_of
from unlearn_bench.board.table import MEAN
from unlearn_bench.compare.calibrate import OPEN_ENDED, Calibrated
from unlearn_bench.compare.overall import FORMULA, KEEP, overall
from unlearn_bench.protocols.catalog import Metric, list_protocols
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.plan import role_of
from unlearn_bench.schema import SCORED

SHARE = "share"
BIASED = ("group_max", "group_gap")
# Metrics of ours that give every item 0 or 1, beside the verdicts of a judge.
YES_OR_NO = re.compile(r"(.+_)?(choice_acc|efficacy|generalization|mc1|exact_match_\w+)")
CLOSE = 1e-9  # relative and absolute: sums in another order
NEWER = "validate it with the version that wrote it, or merge the run's folder with this one"
ASK = "ask who wrote it for the run's folder, and: unlearn-bench board validate FILE --run RUN"


def check_rows(content: BoardFile) -> Iterator[Fault]:
    """Every row by itself, then against the target, the other seeds, and what summaries are of."""
    if content.overall and content.overall.formula != FORMULA:
        yield Fault(
            "its formula is not this version's: the scores cannot be checked",
            NEWER,
            column="overall",
        )
    counts = Counter((row.method, row.seed) for row in content.rows)
    columns = {column.name: column for column in content.columns}
    biased = _biased(content.columns)
    targets = {row.seed: row for row in content.rows if row.role == "target"}
    asked = {name for row in content.rows for name in row.scores}
    asked -= {name for name in asked if _is_against_exact(columns[name])}
    for row in content.rows:
        place = place_of(row)
        if counts[row.method, row.seed] > 1:
            yield Fault("the row is there twice", ASK, place)
        yield from _status(row)
        yield from _role(row)
        yield from _costs(row)
        if row.scores:
            for name in sorted(asked - row.scores.keys()):
                yield Fault("it has no score there, which others have", ASK, place, name)
        for name, score in row.scores.items():
            for what in _score(score, columns[name], name in biased):
                yield Fault(what, ASK, place, name)
            if row.seed != MEAN:
                yield from _too_sure(row, name, score, _metric(columns[name]))
        yield from _calibrated(row)
        yield from _overall(row, content)
        yield from _traced(row)
        if row.seed == MEAN:
            own = [one for one in content.rows if one.method == row.method and one.seed != MEAN]
            yield from _mean(row, [one for one in own if one.scores])
        else:
            yield from _against_target(row, targets.get(row.seed))


def _metric(column: ColumnPart) -> Metric | None:
    """As the task defines it; None where nobody here does."""
    known = list_protocols().get(column.task)
    return known.metrics.get(column.metric) if known else None


def _is_against_exact(column: ColumnPart) -> bool:
    """Whether it takes the exact model's items: a row that was kept from a board without it has no
    such score.
    """
    known = list_protocols().get(column.task)
    return known is not None and column.metric in known.against_exact


def _status(row: RowPart) -> Iterator[Fault]:
    scored = row.status in SCORED
    if row.scores and not scored:
        yield Fault(f"it is {row.status} and has scores", ASK, place_of(row))
    if not row.scores and scored:
        yield Fault(f"it is {row.status} and has no scores", ASK, place_of(row))
    if row.status != "success" and not row.reason:
        yield Fault(f"it is {row.status}, and no reason says why", ASK, place_of(row))


def _role(row: RowPart) -> Iterator[Fault]:
    """Of a method that is installed here its role is known: the target and the exact model span the
    scale, and controls are nobody's rivals. A merged board's methods may have a mark of options.
    """
    card = list_cards("method").get(row.method.partition(VARIANT)[0])
    if card and role_of(card) != row.role:
        what = f"its role is {row.role}, that of the method {role_of(card)}"
        yield Fault(what, ASK, place_of(row), "role")


def _costs(row: RowPart) -> Iterator[Fault]:
    for name, value in row.costs:
        if to_float(value) < 0:
            yield Fault(f"it is {value}", ASK, place_of(row), name)


def _score(score: ScorePart, column: ColumnPart, biased: bool) -> Iterator[str]:
    value, stderr, low, high = map(to_float, (score.value, score.stderr, score.low, score.high))
    if score.n == 0 and score.value is not None:
        yield f"its value is {score.value}, of no item"
    if stderr < 0:
        yield f"its standard error is {stderr}"
    if math.isnan(low) != math.isnan(high):
        yield "its interval has one end"
    elif low > high:
        yield f"its interval begins at {low} and ends at {high}"
    elif not biased and (value < low - CLOSE or value > high + CLOSE):
        yield f"its value {value} is outside its interval {low} to {high}"
    if column.unit == SHARE and not (math.isnan(value) or 0 <= value <= 1):
        yield f"a share is {value}"


def _too_sure(row: RowPart, name: str, score: ScorePart, metric: Metric | None) -> Iterator[Fault]:
    """No spread where there must be some.

    Most metrics may have none: every item alike, such as the one sentence of a model that refuses
    everything. Two kinds cannot. Where every item is 0 or 1 the interval of one seed is Wilson's,
    which is a point for no number of items. And texts of unlike lengths are not all as likely per
    word or byte, under whatever model; its own texts may be, where it writes the same every time.
    """
    if metric is None or score.low is None or not _same(score.low, to_float(score.high)):
        return
    shares = metric.reduce == "mean" and _says_yes_or_no(name.rpartition(".")[2], metric)
    prose = metric.reduce in OPEN_ENDED and not metric.under_target
    if score.n > 1 and (shares or prose):
        what = (
            f"its interval is the one point {score.low} and its standard error {score.stderr}, "
            f"which {score.n} {'items of 0 or 1' if shares else 'texts'} never give"
        )
        yield Fault(what, ASK, place_of(row), name)


def _says_yes_or_no(name: str, metric: Metric) -> bool:
    verdict = metric.judge in ("any_above", "any_at_least") or bool(metric.guard)
    return verdict or YES_OR_NO.fullmatch(name) is not None


def _biased(columns: Sequence[ColumnPart]) -> set[str]:
    """Also those of a task that nobody here knows: their reduction may be such a one."""
    known = list_protocols()
    metrics = {
        one.name: known[one.task].metrics.get(one.metric) if one.task in known else None
        for one in columns
    }
    return {name for name, metric in metrics.items() if metric is None or metric.reduce in BIASED}


def _against_target(row: RowPart, target: RowPart | None) -> Iterator[Fault]:
    """Deltas are the differences that they say, and all were asked as many items."""
    if row is target:
        return
    if target is None or not target.scores:
        yield from _without_target(row)
        return
    for name, score in row.scores.items():
        there = target.scores.get(name)
        if there is None:
            if score.delta is not None:
                what = f"its delta is {score.delta}, and the target has no score there"
                yield Fault(what, ASK, place_of(row), name)
            continue
        asked = [one.n + one.missing for one in (score, there)]
        if all(asked) and asked[0] != asked[1]:
            what = f"it was asked {asked[0]} items, the target {asked[1]}"
            yield Fault(what, ASK, place_of(row), name)
        change = to_float(score.value) - to_float(there.value)
        whole = score.n == there.n and not (score.missing or there.missing)
        expected = change if whole else math.nan
        if not _same(score.delta, expected):
            what = f"its delta is {score.delta}, its value less the target's is {expected}"
            yield Fault(what, ASK, place_of(row), name)


def _without_target(row: RowPart) -> Iterator[Fault]:
    """The first number of the row that takes a target's, of which the board has no scores."""
    deltas = [name for name, score in row.scores.items() if score.delta is not None]
    scaled = [name for name, one in row.calibrated.items() if one.value is not None]
    traced = [f"trace.{kind}" for kind, value in row.trace.items() if value is not None]
    for name in [*deltas, *scaled, *traced][:1]:
        what = f"it is relative to the target, and no target row of seed {row.seed} has scores"
        yield Fault(what, ASK, place_of(row), name)


def _same(told: Figure, expected: float) -> bool:
    found = to_float(told)
    if math.isnan(found) or math.isnan(expected):
        return math.isnan(found) and math.isnan(expected)
    return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=CLOSE)


def _mean(row: RowPart, scored: Sequence[RowPart]) -> Iterator[Fault]:
    """The mean over the seeds that have a value, with its standard error, and of their deltas where
    all have one; it names the seeds with scores.
    """
    if row.provenance.get("seeds", "") != " ".join(one.seed for one in scored):
        yield Fault("it names other seeds than those with scores", ASK, place_of(row), "seeds")
    for name, score in row.scores.items():
        values = [to_float(one.scores[name].value) for one in scored if name in one.scores]
        known = [value for value in values if not math.isnan(value)]
        if not _same(score.value, sum(known) / len(known) if known else math.nan):
            what = f"its value {score.value} is not the mean of its seeds' values"
            yield Fault(what, ASK, place_of(row), name)
        errors = [to_float(one.scores[name].stderr) for one in scored if name in one.scores]
        expected = _error_of_mean(values, errors)
        if not _same(score.stderr, expected):
            what = f"its standard error is {score.stderr}, its seeds give {expected}"
            yield Fault(what, ASK, place_of(row), name)
        told = [one.scores[name].delta if name in one.scores else None for one in scored]
        if not _same(score.delta, sum(map(to_float, told)) / len(told) if told else math.nan):
            what = f"its delta {score.delta} is not the mean of its seeds' deltas"
            yield Fault(what, ASK, place_of(row), name)


def _error_of_mean(values: Sequence[float], errors: Sequence[float]) -> float:
    """As docs/schema.md has it, over the seeds that have a value."""
    known = [(v, e) for v, e in zip(values, errors, strict=True) if not math.isnan(v)]
    if not known or not all(math.isfinite(value) for value, _ in known):
        return math.nan
    spread = statistics.variance([v for v, _ in known]) / len(known) if len(known) > 1 else 0.0
    return math.sqrt(sum(error**2 for _, error in known) / len(known) + spread)


def _calibrated(row: RowPart) -> Iterator[Fault]:
    for name, score in row.calibrated.items():
        if score.value is None and not score.reason:
            yield Fault(
                "its calibrated score is missing without a reason", ASK, place_of(row), name
            )
        if to_float(score.low) > to_float(score.high):
            yield Fault("its calibrated interval is turned round", ASK, place_of(row), name)


def _traced(row: RowPart) -> Iterator[Fault]:
    """TRACE's deltas lie within their intervals, which only deltas have."""
    for kind, error in row.trace_errors.items():
        value, low, high = map(to_float, (row.trace.get(kind), error.low, error.high))
        if math.isnan(value):
            what = "it has an interval and no value"
        elif (
            to_float(error.stderr) < 0 or low > high or value < low - CLOSE or value > high + CLOSE
        ):
            what = f"its value {value} ± {error.stderr} is not within {low} to {high}"
        else:
            continue
        yield Fault(what, ASK, place_of(row), f"trace.{kind}")


def _overall(row: RowPart, content: BoardFile) -> Iterator[Fault]:
    """The overall score follows from the calibrated columns, as far as they are there."""
    found = row.overall
    if found is None:
        return
    place = place_of(row)
    if found.value is None:
        if not found.reason:
            yield Fault("it is missing without a reason", ASK, place, "overall")
        return
    if to_float(found.low) > to_float(found.high):
        yield Fault("its interval is turned round", ASK, place, "overall")
    if row.seed == MEAN:
        whole = [one.overall for one in content.rows if one.method == row.method]
        values = [to_float(one.value) for one in whole if one and one is not found]
        known = [value for value in values if not math.isnan(value)]
        if not _same(found.value, sum(known) / len(known) if known else math.nan):
            yield Fault("it is not the mean of its seeds'", ASK, place, "overall")
        return
    yield from _derived(row, found, content)


def _derived(row: RowPart, found: OverallPart, content: BoardFile) -> Iterator[Fault]:
    tasks = {column.name: column.task for column in content.columns}
    told = content.overall.columns if content.overall else {}
    parts: dict[str, dict[str, list[str]]] = {part: {} for part in (*found.gains, KEEP)}
    for part, columns in parts.items():
        for name in told.get(part, ()):
            form = row.calibrated[name].form if name in row.calibrated else ""
            if part != KEEP or form == "kept":
                columns.setdefault(tasks[name], []).append(name)
    scores = {
        name: Calibrated(one.form, to_float(one.value)) for name, one in row.calibrated.items()
    }
    derived = overall(tuple(found.gains), parts, scores)
    for name in ("value", "gain", "keep"):
        if not _same(getattr(found, name), getattr(derived, name)):
            what = (
                f"its {name} is {getattr(found, name)}, its columns give {getattr(derived, name)}"
            )
            yield Fault(what, ASK, place_of(row), "overall")
