"""A board's JSON as a model: the one description that files are read by and whose JSON Schema ships
as `board.schema.json`.

`format` is the version of this structure. A field that comes, goes or changes its meaning raises
it; a file with a number or a field that is not known here is refused, never half read.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
)

from unlearn_bench.board.files import FORMAT, ProvenanceName
from unlearn_bench.board.table import Board, Column, Role, Row
from unlearn_bench.compare.calibrate import Calibrated, Form
from unlearn_bench.compare.overall import FORMULA, Overall
from unlearn_bench.compare.trace import Kind, TraceError
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.runs.store import CellStatus
from unlearn_bench.schema import Direction, Score

SCHEMA = Path(__file__).parent / "board.schema.json"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SHOWN_ERRORS = 5
OTHERWISE_MADE = Overall(math.nan, reason="made by another formula than this version's")

Figure = StrictInt | StrictFloat | Literal["inf", "-inf"] | None  # null is missing
TaskHash = Literal["data_sha256", "data_revision", "protocol_sha256", "definition_sha256"]
Seed = Annotated[str, StringConstraints(pattern=r"^([0-9]+|mean)$")]
Slug = Annotated[
    str, StringConstraints(pattern=r"^[^/\\.][^/\\]*$")
]  # a file or folder is called so
Name = Annotated[str, StringConstraints(min_length=1)]


class Part(BaseModel):
    """Of a board: what is not named here is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ColumnPart(Part):
    """One metric of one task; `name` is `<task>.<metric>`."""

    name: Name
    task: Name
    metric: Name
    direction: Direction
    unit: str
    headline: bool


class ScorePart(Part):
    """One value with its standard error and 95 % interval; delta: to the target of its seed."""

    value: Figure
    stderr: Figure
    low: Figure = None
    high: Figure = None
    n: NonNegativeInt
    missing: NonNegativeInt
    delta: Figure = None


class CostPart(Part):
    """What the edit and its evaluation took."""

    edit_seconds: Figure = None
    evaluate_seconds: Figure = None
    peak_memory_bytes: Figure = None
    parameters_touched: Figure = None
    delta_norm: Figure = None
    forward_passes: Figure = None
    backward_passes: Figure = None


class TuningPart(Part):
    """Objectives of the method's trials on validation items, and how many there were."""

    tuning_best: Figure = None
    tuning_median: Figure = None
    tuning_trials: Figure = None


class OverallPart(Part):
    """The score that boards are sorted by; `reason` where the value is null."""

    value: Figure
    low: Figure
    high: Figure
    gain: Figure
    keep: Figure
    gains: dict[str, Figure]
    reason: str


class CalibratedPart(Part):
    """One value on the scale that target and exact model span; `reason` where it is null."""

    form: Form
    value: Figure
    low: Figure
    high: Figure
    reason: str


class TraceErrorPart(Part):
    """How sure one of TRACE's deltas is: standard error and 95 % interval."""

    stderr: Figure
    low: Figure
    high: Figure


class RowPart(Part):
    """One cell, or with the seed `mean` the mean over a method's seeds."""

    method: Name
    seed: Seed
    role: Role
    status: CellStatus
    reason: str
    scores: dict[str, ScorePart]
    costs: CostPart
    tuning: TuningPart = Field(default_factory=TuningPart)
    provenance: dict[ProvenanceName, str]
    overall: OverallPart | None = None
    calibrated: dict[str, CalibratedPart] = Field(default_factory=dict)
    trace: dict[Kind, Figure] = Field(default_factory=dict)
    trace_errors: dict[Kind, TraceErrorPart] = Field(default_factory=dict)

    def told(self, name: str) -> str:
        """What its provenance says by this name; "" where it says nothing."""
        return {str(known): text for known, text in self.provenance.items()}.get(name, "")


class TaskPart(Part):
    """items: the limit, null for all; source: where the data came from, its revision and hash."""

    items: NonNegativeInt | None
    source: str


class AskedPart(Part):
    """Hashes and settings that rows of one column share; docs/board.md."""

    part: Literal["test", "validation"]
    paraphrases: NonNegativeInt | None
    tasks: dict[str, dict[TaskHash, str]]
    evaluation_code_sha256: str
    decoding: dict[str, dict[str, Any]]


class ProtocolPart(Part):
    """What all rows have in common. Boards from before `asked` do not have it."""

    model: str
    base_fingerprint: str
    suite: Name
    edit_set: str = ""
    tasks: dict[str, TaskPart]
    samples_per_prompt: NonNegativeInt | None
    scorer: dict[str, str]
    second_scorer: dict[str, str] | None = None
    engine: str
    dtype: str
    versions: dict[str, str]
    asked: AskedPart | None = None
    tuning: dict[str, Any] | None = None
    notes: list[str]


class SummaryPart(Part):
    """How `overall` is made: by goal and for `keep` the columns, and those left out, with why."""

    formula: str
    note: str
    columns: dict[str, list[str]]
    left_out: dict[str, dict[Form, str]]


class BoardFile(Part):
    """One leaderboard: a model and a suite."""

    format: Literal[1]
    model: Slug
    suite: Slug
    protocol: ProtocolPart
    columns: list[ColumnPart]
    overall: SummaryPart | None = None
    trace: dict[Kind, list[str]] = Field(default_factory=dict)
    rows: list[RowPart] = Field(min_length=1)


def board_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a board's JSON."""
    return {"$schema": DRAFT, **BoardFile.model_json_schema()}


def read_board_file(path: Path) -> BoardFile:
    """A board's JSON. Raises CorruptDataError, which says where it is not one."""
    try:
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse_constant, parse_int=_parse_whole
        )
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptDataError(
            f"the board cannot be read: {error}",
            where=str(path),
            next_step="name the JSON file that evaluate wrote",
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise CorruptDataError(
            f"its format is {found!r}, and this version reads {FORMAT}",
            where=str(path),
            next_step="use the version of unlearn-bench that wrote it, or write it again",
        )
    try:
        return BoardFile.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise CorruptDataError(
            f"it is no board: {_say(error)}",
            where=str(path),
            next_step="compare it with board.schema.json and docs/schema.md",
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; missing is null, diverged is the word 'inf'")


def _parse_whole(digits: str) -> int:
    """A whole number that is a figure too: beyond all floats nothing can be worked out with it."""
    number = int(digits)
    try:
        float(number)
    except OverflowError:
        raise ValueError(f"a number of {len(digits)} digits is no figure") from None
    return number


def _say(error: ValidationError) -> str:
    """The first few places that are wrong, a union's alternatives told once."""
    places: dict[str, str] = {}
    for one in error.errors(include_url=False, include_input=False):
        steps = [step for step in one["loc"] if step not in ("int", "float") and step is not None]
        place = ".".join(str(step) for step in steps if not str(step).startswith("literal["))
        places.setdefault(place, f"{place or 'the file'}: {one['msg']}")
    shown = "; ".join(list(places.values())[:SHOWN_ERRORS])
    more = len(places) - SHOWN_ERRORS
    return f"{shown}; and {more} more" if more > 0 else shown


def to_board(content: BoardFile) -> Board:
    """The board that the file is of; rendered again it is the same file."""
    columns = {
        one.name: Column(one.task, one.metric, one.direction, one.unit, one.headline)
        for one in content.columns
    }
    told = content.overall
    return Board(
        model=content.model,
        suite=content.suite,
        columns=tuple(columns.values()),
        rows=tuple(_row(row, columns) for row in content.rows),
        protocol=content.protocol.model_dump(mode="json", exclude_unset=True),
        overall=dict(told.columns) if told else {},
        left_out=_left_out(told) if told else {},
        trace=dict(content.trace),
    )


def _left_out(told: SummaryPart) -> dict[str, dict[str, str]]:
    """By column and form the reason."""
    return {
        name: {str(form): reason for form, reason in forms.items()}
        for name, forms in told.left_out.items()
    }


def read_board(path: Path) -> Board:
    """The board of a JSON file, without overall scores that another formula made.

    Raises CorruptDataError, also for scores of no column.
    """
    content = read_board_file(path)
    known = {column.name for column in content.columns}
    for row in content.rows:
        if unknown := [name for name in row.scores if name not in known]:
            raise CorruptDataError(
                f"{row.method} seed {row.seed} has scores of no column: {', '.join(unknown)}",
                where=str(path),
                next_step=f"unlearn-bench board validate {path}",
            )
    board = to_board(content)
    if content.overall is None or content.overall.formula == FORMULA:
        return board
    return replace(board, rows=tuple(replace(row, overall=OTHERWISE_MADE) for row in board.rows))


def _row(row: RowPart, columns: dict[str, Column]) -> Row:
    return Row(
        method=row.method,
        seed=row.seed,
        role=row.role,
        status=row.status,
        reason=row.reason,
        scores={name: _score(score, columns[name]) for name, score in row.scores.items()},
        deltas={
            name: to_float(score.delta)
            for name, score in row.scores.items()
            if score.delta is not None
        },
        costs={name: to_number(value) for name, value in row.costs.model_dump().items()},
        tuning={
            name: to_number(value)
            for name, value in row.tuning.model_dump().items()
            if value is not None
        },
        provenance={str(name): text for name, text in row.provenance.items()},
        calibrated={
            name: Calibrated(
                one.form, to_float(one.value), to_float(one.low), to_float(one.high), one.reason
            )
            for name, one in row.calibrated.items()
        },
        overall=_overall(row.overall) if row.overall else None,
        trace={kind: to_float(value) for kind, value in row.trace.items() if value is not None},
        trace_errors={
            kind: TraceError(to_float(one.stderr), to_float(one.low), to_float(one.high))
            for kind, one in row.trace_errors.items()
        },
    )


def _score(score: ScorePart, column: Column) -> Score:
    return Score(
        task=column.task,
        metric=column.metric,
        value=to_float(score.value),
        stderr=to_float(score.stderr),
        n=score.n,
        missing=score.missing,
        direction=column.direction,
        unit=column.unit,
        low=to_float(score.low),
        high=to_float(score.high),
    )


def _overall(found: OverallPart) -> Overall:
    return Overall(
        value=to_float(found.value),
        gain=to_float(found.gain),
        keep=to_float(found.keep),
        gains={goal: to_float(value) for goal, value in found.gains.items()},
        low=to_float(found.low),
        high=to_float(found.high),
        reason=found.reason,
    )


def to_float(value: Figure) -> float:
    """NaN for missing."""
    return math.nan if value is None else float(value)


def to_number(value: Figure) -> float | int | None:
    """Whole numbers stay whole."""
    return float(value) if isinstance(value, str) else value
