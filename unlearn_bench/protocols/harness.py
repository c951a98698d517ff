"""Tasks that are not ours: any that the installed lm-eval knows, and task files of the user's.

They run exactly as lm-eval defines them, on data that lm-eval loads itself. A group stands for all
its tasks, and its own aggregate is a task of the board as well.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
import lm_eval.utils
from huggingface_hub import constants
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api import metrics as lm_eval_metrics
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from unlearn_bench.cache import write_atomically
from unlearn_bench.data.hub import going_online_is_off
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.errors import (
    MissingDataError,
    UnknownNameError,
    UnlearnBenchError,
    UnsafeArtefactError,
    UsageError,
)
from unlearn_bench.protocols.catalog import EVERY, Metric, Protocol, Reduce
from unlearn_bench.protocols.metric_scripts import refuse_scripts
from unlearn_bench.protocols.task_files import (
    FLAG,
    check_task_file,
    definition_files,
    definition_sha256,
    is_task_file,
)
from unlearn_bench.schema import Origin

LM_EVAL_TASKS = Path(lm_eval.tasks.__file__).parent
LOCAL_BUILDERS = ("json", "csv", "parquet", "text", "arrow")
REDUCES: dict[Any, Reduce] = {  # of lm-eval's aggregations those that are sums over items
    lm_eval_metrics.mean: "mean",
    lm_eval_metrics.perplexity: "weighted_exp",
    lm_eval_metrics.weighted_perplexity: "weighted_exp",
    lm_eval_metrics.bits_per_byte: "bits",
}


@dataclass(frozen=True)
class HarnessTasks:
    """Loaded tasks by name, with what they and their groups are on the board.

    notes: what the reader should know, such as metrics that have no value per item.
    """

    tasks: Mapping[str, Any]
    protocols: Mapping[str, Protocol]
    origins: Mapping[str, Origin]
    notes: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        """Every text that stands in a document: what methods read may not repeat it."""
        for task in self.tasks.values():
            for document in task.eval_docs:
                for value in document.values():
                    parts = value if isinstance(value, list) else [value]
                    yield from (text for text in parts if isinstance(text, str))


def check_task_names(names: Iterable[str], ours: Iterable[str], cache: Path) -> None:
    """Raise UnknownNameError, with near matches, for a name that neither we nor lm-eval know."""
    own = set(ours)
    for name in names:
        if name in own or is_task_file(name):
            continue
        known = _index(cache)
        if name not in known:
            near = difflib.get_close_matches(name, [*own, *known], n=3, cutoff=0.5)
            raise UnknownNameError("task", name, near or own)


def load_harness_tasks(
    names: Sequence[str], sources: SourceOptions, *, allow_code: bool
) -> HarnessTasks:
    """The tasks and groups called `names` (lm-eval's, or paths of task files), with their data.

    allow_code: of task files; lm-eval's own tasks run the code that is installed with it, no other.
    Raises UnsafeArtefactError for code that nobody allowed, MissingDataError where lm-eval does not
    get the data, UsageError for a task that cannot run here or has no metric for the board.
    """
    tasks: dict[str, Any] = {}
    protocols: dict[str, Protocol] = {}
    notes: list[str] = []
    for name in names:
        files = check_task_file(name, allow_code=allow_code) if is_task_file(name) else ()
        allowed = allow_code and bool(files)
        loaded = _load(name, sources, allow_scripts=allowed)
        groups = loaded.get("groups", {})
        for task_name, task in loaded["tasks"].items():
            _check_runnable(task_name, task)
            own = files or definition_files(Path(task.config.metadata["config_source"]))
            metrics = _task_metrics(task_name, task, notes)
            shown = () if groups else tuple(metrics)
            tasks[task_name] = task
            protocols[task_name] = _protocol(
                name, task_name, (task_name,), metrics, shown, own, allowed
            )
        for group_name, group in groups.items():
            leaves = tuple(task.task_name for task in group.get_all_tasks())
            metrics = _group_metrics(group, [protocols[leaf] for leaf in leaves])
            if metrics:
                own = protocols[leaves[0]].definition
                protocols[group_name] = _protocol(
                    name, group_name, leaves, metrics, tuple(metrics), own, allowed
                )
    digests = {name: _data_sha256(task) for name, task in tasks.items()}
    origins = {name: _origin(own, tasks, digests) for name, own in protocols.items()}
    return HarnessTasks(tasks, protocols, origins, tuple(notes))


def asked_positions(
    protocols: Iterable[Protocol], limits: Mapping[str, int | None], tasks: Mapping[str, Any]
) -> dict[str, list[int]]:
    """Which documents of each of lm-eval's own tasks are asked: the first, as many as `limits`.

    Few-shot examples are still drawn from all, as lm-eval draws them.
    """
    return {
        name: list(range(len(tasks[name].eval_docs)))[: limits.get(protocol.base)]
        for protocol in protocols
        if protocol.harness
        for name in protocol.subtasks
    }


def _load(name: str, sources: SourceOptions, *, allow_scripts: bool) -> dict[str, Any]:
    """lm-eval's task and group objects, which run no script of a metric that nobody allowed."""
    next_step = "leave the task out"
    if is_task_file(name):
        next_step = f"name one of lm-eval's own; or read the script, then add {FLAG}"
    with nullcontext() if allow_scripts else refuse_scripts(name, next_step):
        found = _find(name, sources)
    return found


def _find(name: str, sources: SourceOptions) -> dict[str, Any]:
    """lm-eval's task and group objects; data from the cache first, then from the network."""
    if is_task_file(name):
        _sandbox_templates()
    try:
        with _offline():
            return _build(name, sources.cache)
    except Exception as error:
        if going_online_is_off(sources.offline) or not _lacks_data(error):
            raise _explain(name, error) from error
    try:
        return _build(name, sources.cache)
    except Exception as error:
        raise _explain(name, error) from error


def _build(name: str, cache: Path) -> dict[str, Any]:
    manager = TaskManager(include_defaults=False)
    spec = name
    if is_task_file(name):
        spec = str(Path(name).expanduser().resolve())
        if "group" not in load_yaml(spec, resolve_func=False):
            return dict(manager.load([spec]))
    manager._index.update(_index(cache))
    return dict(manager.load([spec]))


def _explain(name: str, error: Exception) -> UnlearnBenchError:
    """The error for whatever lm-eval, `datasets` or the task's own code raised."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnlearnBenchError):
        return error
    if isinstance(error, SecurityError):
        return UnsafeArtefactError(f"a template of {name!r} reaches into Python: {why}")
    if _lacks_data(error):
        return MissingDataError(
            f"lm-eval has no data for the task {name!r}: {why}",
            next_step="run once with network access, so that the data set is in the cache; "
            "or leave the task out",
        )
    return UsageError(f"lm-eval cannot load the task {name!r}: {why}")


def _lacks_data(error: Exception) -> bool:
    """Whether `datasets` found nothing: not on the hub, not in its cache, no such file."""
    return isinstance(error, OSError) or "find cache for" in str(error)


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` and the hub's client read these at import; within, neither asks the network."""
    places = ((constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE"))
    before = [getattr(place, name) for place, name in places]
    for place, name in places:
        setattr(place, name, True)
    try:
        yield
    finally:
        for (place, name), value in zip(places, before, strict=True):
            setattr(place, name, value)


def _sandbox_templates() -> None:
    """Let no template of a task file reach Python's internals: lm-eval renders them unguarded."""
    plain = lm_eval.utils.env
    if not isinstance(plain, SandboxedEnvironment):
        guarded = SandboxedEnvironment(
            loader=plain.loader, undefined=plain.undefined, keep_trailing_newline=True
        )
        guarded.filters.update(plain.filters)
        lm_eval.utils.env = guarded


@functools.cache
def _index(cache: Path) -> dict[str, Entry]:
    """lm-eval's tasks, groups and tags by name.

    Reading its thousands of files takes most of a minute, so what was found is kept per version.
    """
    file = cache / "lm-eval" / f"tasks-{metadata.version('lm-eval')}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = TaskManager().task_index
        kept = {
            name: [
                entry.kind.name,
                entry.yaml_path.relative_to(LM_EVAL_TASKS).as_posix() if entry.yaml_path else "",
                sorted(entry.tags),
            ]
            for name, entry in found.items()
        }
        write_atomically(file, json.dumps(kept).encode())
    return {
        name: Entry(name, Kind[kind], LM_EVAL_TASKS / path if path else None, tags=set(tags))
        for name, (kind, path, tags) in kept.items()
    }


def _check_runnable(name: str, task: Any) -> None:
    obstacles = {"MULTIMODAL": "shows images or plays sound", "UNSAFE_CODE": "runs generated code"}
    for mark, obstacle in obstacles.items():
        if getattr(task, mark, False):
            raise UsageError(
                f"the task {name!r} {obstacle}, which nothing here does",
                next_step="leave the task out",
            )


def _task_metrics(name: str, task: Any, notes: list[str]) -> dict[str, Metric]:
    """One metric per lm-eval metric and filter, as far as lm-eval aggregates it over items."""
    filters = [ensemble.name for ensemble in task._filters]
    metrics: dict[str, Metric] = {}
    for metric, higher in task.higher_is_better().items():
        reduce = REDUCES.get(task.aggregation().get(metric))
        if reduce is None:
            notes.append(f"{name}.{metric} left out: lm-eval's aggregate is of no value per item")
            continue
        for own in filters:
            metrics[metric + _suffix(own, filters)] = Metric(
                subtask=name,
                value=metric,
                filter=own,
                reduce=reduce,
                direction="higher" if higher else "lower",
                unit=metric,
            )
    if not metrics:
        raise UsageError(
            f"the task {name!r} has no metric with a value per item, which every comparison needs",
            next_step="leave the task out",
        )
    return metrics


def _suffix(name: str, filters: Sequence[str]) -> str:
    """Nothing for a task's only filter; else its first word if that tells it apart, else all."""
    if len(filters) == 1:
        return ""
    words = [other.split("-")[0] for other in filters]
    short = name.split("-")[0]
    return "_" + re.sub(r"\W", "_", short if words.count(short) == 1 else name)


def _group_metrics(group: Any, leaves: Sequence[Protocol]) -> dict[str, Metric]:
    """The group's aggregates: over all items, or the unweighted mean of its tasks' means."""
    metrics: dict[str, Metric] = {}
    for rule in group.aggregate_metric_list or ():
        for leaf in leaves:
            for name, metric in leaf.metrics.items():
                wanted = rule.filter_list is None or metric.filter in rule.filter_list
                if metric.value == rule.metric and metric.reduce == "mean" and wanted:
                    reduce: Reduce = "mean" if rule.weight_by_size else "macro_mean"
                    metrics[name] = metric.model_copy(update={"subtask": EVERY, "reduce": reduce})
    return metrics


def _protocol(
    harness: str,
    name: str,
    subtasks: tuple[str, ...],
    metrics: dict[str, Metric],
    headline: tuple[str, ...],
    definition: tuple[Path, ...],
    code_allowed: bool,
) -> Protocol:
    return Protocol(
        name=name,
        title=f"lm-eval's {name}",
        description="",
        dataset=name,
        subtasks=subtasks,
        metrics=metrics,
        headline=headline,
        folder=definition[0].parent,
        harness=harness,
        definition=definition,
        code_allowed=code_allowed,
    )


def _data_sha256(task: Any) -> str:
    """Of every document that can be asked, and of those that few-shot examples are drawn from."""
    digest = hashlib.sha256()
    shots = list(task.fewshot_docs() or ()) if task.config.num_fewshot else []
    for document in (*task.eval_docs, *shots):
        digest.update(json.dumps(document, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def _origin(protocol: Protocol, tasks: Mapping[str, Any], digests: Mapping[str, str]) -> Origin:
    """`revision` is of the definition: lm-eval itself pins no revision of the data."""
    parts = [digests[name] for name in protocol.subtasks]
    digest = parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
    path = str(tasks[protocol.subtasks[0]].config.dataset_path)
    local = path in LOCAL_BUILDERS or Path(path).is_absolute()
    return Origin(
        dataset=protocol.name,
        source="folder" if local else "hub",
        location=Path(path).name if local else path,
        revision=f"task {definition_sha256(protocol.definition)[:12]}",
        sha256=digest,
    )
