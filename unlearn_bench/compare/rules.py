"""The rules of a gate, read from YAML: which metrics may lose how much."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unlearn_bench.compare.loss import Margin
from unlearn_bench.compare.measures import Measure
from unlearn_bench.config import load_yaml
from unlearn_bench.errors import UsageError

DEFAULT_LEVEL = 0.05
SHOWN = 3  # of the metrics that a rule names in vain
JUDGED = ("higher", "lower")  # directions in which a model can be worse by itself
Size = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Rule(BaseModel):
    """What one metric, or each that a pattern names, may lose against the baseline.

    margin: in the metric's own unit; relative: as a share of the baseline's value; exactly one of
    them. required: a candidate that was not asked the metric does not pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: Size | None = None
    relative: Size | None = None
    required: bool = True

    @model_validator(mode="after")
    def _one_margin(self) -> Rule:
        if (self.margin is None) == (self.relative is None):
            raise ValueError("a rule has exactly one of margin and relative")
        return self

    @property
    def allowed(self) -> Margin:
        """The margin as a comparison takes it."""
        return Margin(self.margin or self.relative or 0.0, relative=self.relative is not None)


class Rules(BaseModel):
    """The whole file. metrics: by `<task>.<metric>`, or a pattern with `*`; where several fit one
    metric, the last counts. level: how often a candidate as good as its baseline may fail.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False, strict=True)] = DEFAULT_LEVEL
    metrics: Annotated[dict[str, Rule], Field(min_length=1)]


@dataclass(frozen=True)
class Chosen:
    """One metric with the rule that counts for it. unjudged: why the gate says nothing of it."""

    measure: Measure
    rule: Rule
    unjudged: str = ""


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML in which a name that stands twice is an error: one of the two would be unread."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def load_rules(file: Path) -> Rules:
    """The rules in `file`; nothing in it runs. Raises UsageError for what is no rules."""
    try:
        content = load_yaml(file.read_text(encoding="utf-8"), _PlainLoader)
        if not isinstance(content, dict):
            raise ValueError("it must hold names with values")
        return Rules.model_validate(content)
    except OSError as error:
        raise UsageError(
            f"the rules cannot be read: {error.strerror or error}",
            where=str(file),
            next_step="unlearn-bench gate init writes rules to start from",
        ) from error
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'rules'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise UsageError(
            f"the rules are wrong: {said}", where=str(file), next_step="see docs/gate.md"
        ) from error
    except ValueError as error:
        raise UsageError(f"the rules are not valid YAML: {error}", where=str(file)) from error


def choose_metrics(
    rules: Rules, measures: Sequence[Measure], testable: Iterable[str]
) -> list[Chosen]:
    """Every metric that a rule names, in the baseline's order.

    measures: what the baseline has. testable: those of which it has enough independent items.
    Raises UsageError for a rule that names no metric the gate can judge: nothing may stay unchecked
    in silence.
    """
    known = {measure.name: measure for measure in measures}
    reasons = {name: _unjudged(measure, set(testable)) for name, measure in known.items()}
    chosen: dict[str, Rule] = {}
    for pattern, rule in rules.metrics.items():
        named = fnmatch.filter(known, pattern)
        if not named:
            raise UsageError(
                f"the rule {pattern!r} names no metric of the baseline{_near(pattern, known)}",
                next_step="correct the name; * stands for any letters",
            )
        if all(reasons[name] for name in named):
            shown = "; ".join(f"{name}: {reasons[name]}" for name in named[:SHOWN])
            more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
            raise UsageError(
                f"the rule {pattern!r} names nothing that can be judged: {shown}{more}",
                next_step="remove the rule, or make a baseline with more items",
            )
        chosen |= dict.fromkeys(named, rule)
    return [
        Chosen(measure, chosen[name], reasons[name])
        for name, measure in known.items()
        if name in chosen
    ]


def _unjudged(measure: Measure, testable: set[str]) -> str:
    if measure.direction not in JUDGED:
        side = "the exact model's value" if measure.direction == "nearer_exact" else "no value"
        return f"{side} is its best"
    if not measure.reduce:
        return "nobody here knows how its items make its value"
    return "" if measure.name in testable else "too few independent items to test"


def _near(pattern: str, known: Mapping[str, Measure]) -> str:
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(known)}"
