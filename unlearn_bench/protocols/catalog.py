"""The board's tasks: what each measures and how its numbers are made, without importing lm-eval.

One folder `tasks/<task>/` holds a `protocol.yaml` (read here) and the lm-eval YAML files of its
subtasks. Every task with a `<task>_mini*.yaml` also exists as `<task>_mini`: the same protocol over
the small set written for this project, under another name so that the two never share a column. A
protocol that names several data sets is one task of each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.errors import CorruptDataError, UnknownNameError
from unlearn_bench.schema import Direction

MINI = "_mini"
EVERY = "*"  # a metric over the items of every subtask
HARM = "harm"  # what a guard adds to the attributes of a run's judges

Reduce = Literal["mean", "weighted_exp", "bits", "macro_mean", "group_max", "group_gap", "auc"]
Judgement = Literal["max", "mean", "any_above", "any_at_least"]
TextMeasure = Literal["distinct_1", "distinct_2", "distinct_3", "seq_rep_4", "blank"]


class Metric(BaseModel):
    """One number of the board.

    Either `value` names the per-item metric that the lm-eval subtask returns (under `filter`), or
    `judge` says how the toxicity of an item's texts becomes the item's value: their max, their
    mean, or 1 if any is above `threshold` (strictly; `any_at_least`: or equal to it). `attribute`
    names what is judged where a scorer tells several things apart ("threat"); a run whose scorer
    does not has no such metric. `text` is a property of the texts themselves; `under_target` of how
    likely the target finds them: mean log-probability per token, over those that it reads. `guard`
    names the document field that holds a request: 1 if a guard model finds one of the answers to it
    unsafe; a run without a guard has no such metric.
    `reduce` makes one number of the items; `group` and `cluster` name the document fields that hold
    an item's stratum and what it has in common with other items, so that they are not independent.
    Of a metric over every subtask (EVERY) the strata are the subtasks. `only` is the one stratum
    whose items it is of; `in_mini` says whether the mini set has such items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subtask: str
    value: str = ""
    filter: str = "none"
    judge: Judgement | None = None
    threshold: float = 0.5
    attribute: str = ""
    text: TextMeasure | None = None
    under_target: bool = False
    guard: str = ""
    reduce: Reduce = "mean"
    group: str = ""
    only: str = ""
    cluster: str = ""
    direction: Direction
    unit: str
    description: str = ""
    in_mini: bool = True

    @property
    def by_judge(self) -> bool:
        """Whether a scorer or a guard makes its values."""
        return self.judge is not None or bool(self.guard)

    @property
    def asks_for(self) -> str:
        """What a judge must be able to tell for the metric to be there; "" for nothing special."""
        return HARM if self.guard else self.attribute

    @model_validator(mode="after")
    def _one_origin(self) -> Metric:
        origins = (self.value, self.judge, self.text, self.under_target, self.guard)
        if sum(map(bool, origins)) != 1:
            raise ValueError("a metric has exactly one of value, judge, text, under_target, guard")
        if self.attribute and not self.judge:
            raise ValueError("only a judged metric has an attribute")
        if self.only and not self.group:
            raise ValueError("a metric of one group names the field that holds it")
        return self


class AgainstExact(BaseModel):
    """One number of the board that takes two models' items: a cell's and the exact model's.

    ks_p: p of the two-sample Kolmogorov–Smirnov test between the items' values of `metric`;
    relative: (value − exact's) / exact's of `metric`, in percent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    compare: Literal["ks_p", "relative"]
    metric: str
    direction: Direction
    unit: str
    description: str = ""


class Protocol(BaseModel):
    """One task of the board. `subtasks` are the names lm-eval runs; `dataset` is what they read.

    shares: other tasks whose files these include, so that what changes there counts here too.
    `datasets`, in a file in place of `dataset`, makes one task of each, called as the data set.
    harness: of a task that is not ours the name or file by which it was asked for, "" for ours;
    definition: then the files that define it; code_allowed: whether they may run code.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    description: str
    dataset: str
    mini: bool = False
    subtasks: tuple[str, ...] = Field(min_length=1)
    metrics: dict[str, Metric]
    against_exact: dict[str, AgainstExact] = Field(default_factory=dict)
    headline: tuple[str, ...] = ()
    folder: Path
    shares: tuple[str, ...] = ()
    harness: str = ""
    definition: tuple[Path, ...] = ()
    code_allowed: bool = False

    @property
    def base(self) -> str:
        """The name that suites have it by: without the mark of the mini set, or as asked for."""
        return self.harness or (self.name.removesuffix(MINI) if self.mini else self.name)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its definitions lie: its own folder first."""
        return self.folder, *(self.folder.parent / name for name in self.shares)

    @property
    def judged(self) -> bool:
        """Whether any metric needs a toxicity scorer."""
        return any(metric.judge for metric in self.metrics.values())

    @property
    def guarded(self) -> bool:
        """Whether any metric needs a guard model."""
        return any(metric.guard for metric in self.metrics.values())

    def judged_by(self, attributes: Collection[str]) -> Protocol:
        """The same task without the metrics of what the run's judges do not tell: attributes that
        its scorer does not have; harm, without a guard.
        """
        kept = {
            name: metric
            for name, metric in self.metrics.items()
            if metric.asks_for in ("", *attributes)
        }
        return self.model_copy(update={"metrics": kept})

    @model_validator(mode="after")
    def _names_fit(self) -> Protocol:
        for name, metric in self.metrics.items():
            if metric.subtask not in (EVERY, *self.subtasks):
                raise ValueError(f"metric {name} is of subtask {metric.subtask}, not listed")
        if absent := [folder.name for folder in self.folders[1:] if not folder.is_dir()]:
            raise ValueError(f"shares tasks that are not there: {', '.join(absent)}")
        for name, other in self.against_exact.items():
            if other.metric not in self.metrics or name in self.metrics:
                raise ValueError(f"{name} compares {other.metric}, which is no metric, or is one")
        always = {name for name, metric in self.metrics.items() if not metric.asks_for}
        if stray := set(self.headline) - always - set(self.against_exact):
            raise ValueError(f"headline names no metric that every run has: {sorted(stray)}")
        return self


def list_protocols() -> dict[str, Protocol]:
    """Every task by name, the mini twins included. Raises CorruptDataError for a broken file."""
    return {protocol.name: protocol for protocol in _read_folder(tasks_folder())}


def tasks_under_target(protocols: Iterable[Protocol]) -> set[str]:
    """The subtasks whose texts the target has to read as well."""
    metrics = (metric for protocol in protocols for metric in protocol.metrics.values())
    return {metric.subtask for metric in metrics if metric.under_target}


def find_protocol(name: str) -> Protocol:
    """The task called `name`. Raises UnknownNameError with the near matches."""
    protocols = list_protocols()
    if name not in protocols:
        raise UnknownNameError("task", name, protocols)
    return protocols[name]


@cache
def _read_folder(tasks: Path) -> tuple[Protocol, ...]:
    protocols: list[Protocol] = []
    for file in sorted(tasks.glob("*/protocol.yaml")):
        for protocol in _read_protocols(file):
            protocols.append(protocol)
            if any(file.parent.glob(f"{protocol.name}{MINI}*.yaml")):
                protocols.append(_mini_twin(protocol))
    return tuple(protocols)


def _read_protocols(file: Path) -> tuple[Protocol, ...]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        metrics = {
            name: Metric.model_validate(metric)
            for block in content.pop("metrics")
            for name, metric in _expand_block(block).items()
        }
        named = {name: name for name in content.pop("datasets", ())}
        if not named:
            named = {file.parent.name: content.pop("dataset")}
        return tuple(
            Protocol(**content, name=name, dataset=dataset, folder=file.parent, metrics=metrics)
            for name, dataset in named.items()
        )
    except (yaml.YAMLError, ValidationError, TypeError, KeyError) as error:
        raise CorruptDataError(f"not a valid protocol: {error}", where=str(file)) from error


def _expand_block(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`for_each: [a, b]` repeats the block's metrics with `{}` in names and values filled in."""
    names = block.pop("for_each", [""])
    metrics = block.pop("metrics")
    return {
        name.format(part): {
            key: value.format(part) if isinstance(value, str) else value
            for key, value in {**block, **fields}.items()
        }
        for part in names
        for name, fields in metrics.items()
    }


def _mini_twin(protocol: Protocol) -> Protocol:
    def rename(subtask: str) -> str:
        return subtask.replace(protocol.name, protocol.name + MINI, 1)

    return protocol.model_copy(
        update={
            "name": protocol.name + MINI,
            "title": f"{protocol.title} (mini set)",
            "dataset": protocol.dataset + MINI,
            "mini": True,
            "subtasks": tuple(rename(subtask) for subtask in protocol.subtasks),
            "metrics": {
                name: metric.model_copy(update={"subtask": rename(metric.subtask)})
                for name, metric in protocol.metrics.items()
                if metric.in_mini
            },
        }
    )
