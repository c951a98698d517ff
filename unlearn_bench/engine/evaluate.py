"""Run lm-eval's evaluator over an engine and turn what it logs into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as run_lm_eval
from lm_eval.tasks import TaskManager

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.fur import Part
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import FUR, PUBLIC_SETS
from unlearn_bench.engine.base import Engine, Progress
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.lm import EngineLM
from unlearn_bench.models.chat import require_shown
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.documents import run_metadata
from unlearn_bench.protocols.harness import load_harness_tasks
from unlearn_bench.protocols.metric_scripts import refuse_scripts
from unlearn_bench.schema import Sample

BY_POSITION = "by_position"  # in a task's metadata: its documents have no ids
CODE_ALLOWED = "code_allowed"  # likewise: the user let its file run code
FEWSHOT_SEED = 1234  # lm-eval's own default, so that few-shot examples are stock's


def load_tasks(
    protocols: Sequence[Protocol],
    *,
    limits: Mapping[str, int | None],
    samples_per_prompt: int,
    paraphrases: int | None,
    sources: SourceOptions,
    part: Part = "test",
) -> dict[str, Any]:
    """lm-eval's task objects by subtask name, with documents from `sources`.

    limits: items per task, by the protocol's name or that of its real twin; absent means all.
    part: see `run_metadata`.
    """
    ours = [protocol for protocol in protocols if not protocol.harness]
    by_task = {own.name: limits.get(own.name, limits.get(own.base)) for own in ours}
    by_dataset = {own.dataset: by_task[own.name] for own in ours}
    edit_set = next((name for name in by_dataset if name in PUBLIC_SETS), FUR)  # a run has one
    manager = TaskManager(
        include_path=str(tasks_folder()),
        include_defaults=False,
        metadata=run_metadata(sources, by_dataset | by_task, paraphrases, part, edit_set),
    )
    subtasks = [name for own in ours for name in own.subtasks]
    tasks: dict[str, Any] = manager.load(subtasks)["tasks"]
    for task in tasks.values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.config.repeats > 1:
            task.set_config("repeats", samples_per_prompt)
    for task in (others := _load_others(protocols, sources)).values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        task.config.metadata = {**task.config.metadata, BY_POSITION: True}
        if task.config.num_fewshot is None:  # as lm-eval's own command does
            task.set_config("num_fewshot", 0)
    return {**tasks, **others}


def _load_others(protocols: Sequence[Protocol], sources: SourceOptions) -> dict[str, Any]:
    """lm-eval's own tasks, and task files with the code that the plan allowed them, or none."""
    allowed = {own.harness: own.code_allowed for own in protocols if own.harness}
    tasks: dict[str, Any] = {}
    for name, allow_code in allowed.items():
        found = load_harness_tasks([name], sources, allow_code=allow_code).tasks
        for task in found.values():
            task.config.metadata = {**(task.config.metadata or {}), CODE_ALLOWED: allow_code}
        tasks |= found
    return tasks


def evaluate(
    engine: Engine,
    tasks: Mapping[str, Any],
    *,
    seed: int,
    positions: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Sample]:
    """Every task's samples under the checkpoint that the engine holds, in document order.

    positions: which of a task's documents to ask; of a task that is not named, all. Raises
    WeightSwapError when the weights changed while the tasks ran: nothing is returned then; and
    CorruptDataError where a task asks in conversation through a template that does not show it.
    """
    in_chat = bool(engine.tokenizer.chat_template)
    if in_chat and any(_says(task, "chat_template") for task in tasks.values()):
        require_shown(engine.tokenizer)
    lm = EngineLM(engine, seed=seed, progress=progress, moments=_with_moments(tasks))
    samples = ask(lm, tasks, positions, in_chat=in_chat)
    engine.verify()
    return samples


def ask(
    lm: LM,
    tasks: Mapping[str, Any],
    positions: Mapping[str, Sequence[int]] | None = None,
    *,
    in_chat: bool,
) -> list[Sample]:
    """Put every task's questions to an lm-eval model; the samples in document order.

    positions: as for `evaluate`. in_chat: whether the model has a chat template, through which it
    is asked what is a conversation (`metadata: {chat_template: true}`). lm-eval takes it for all
    tasks of a call or for none.
    """
    chosen = {name: list(own) for name, own in (positions or {}).items()}
    chat = {name: task for name, task in tasks.items() if in_chat and _says(task, "chat_template")}
    plain = {name: task for name, task in tasks.items() if name not in chat}
    logged = _run(lm, plain, chosen, chat=False) | _run(lm, chat, chosen, chat=True)
    return [
        _read_sample(name, task, entry, instances)
        for name, task in tasks.items()
        for instances in [_instances_by_item(name, task, chosen.get(name))]
        for entry in logged[name]
    ]


def _run(
    lm: LM, tasks: dict[str, Any], chosen: dict[str, list[int]], *, chat: bool
) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval logs of each task, by name."""
    if not tasks:
        return {}
    allowed = any(_says(task, CODE_ALLOWED) for task in tasks.values())
    # Not `simple_evaluate`: it asks the machine for its history, 3 s a time, to print it.
    with nullcontext() if allowed else refuse_scripts(", ".join(tasks), "leave the task out"):
        results = run_lm_eval(
            lm=lm,
            task_dict={"tasks": tasks, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            samples={name: chosen[name] for name in tasks if name in chosen},
            log_samples=True,
            apply_chat_template=chat,
        )
    assert results is not None  # None only on other ranks, and there are none
    return dict(results["samples"])


def _with_moments(tasks: Mapping[str, Any]) -> frozenset[str]:
    """Tasks whose YAML says `metadata: {moments: true}`."""
    return frozenset(name for name, task in tasks.items() if _says(task, "moments"))


def _says(task: Any, what: str) -> bool:
    return bool((task.config.metadata or {}).get(what))


def item_name(name: str, task: Any, position: int, document: Mapping[str, Any]) -> str:
    """An item's id: its document's, or of lm-eval's own tasks, which have none, its position."""
    return f"{name}:{position}" if _says(task, BY_POSITION) else str(document["id"])


def item_of(name: str, task: Any, chosen: Sequence[int] | None, instance: Any) -> str:
    """The id of the item that a request is part of. chosen: as in `positions` of `evaluate`.

    lm-eval numbers the documents that it asks, not those that there are.
    """
    position = instance.doc_id if chosen is None else chosen[instance.doc_id]
    return item_name(name, task, position, instance.doc)


def _instances_by_item(name: str, task: Any, chosen: Sequence[int] | None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(item_of(name, task, chosen, instance), []).append(instance)
    return found


def _read_sample(
    name: str, task: Any, logged: dict[str, Any], instances: Mapping[str, Sequence[Any]]
) -> Sample:
    document = logged["doc"]
    item = item_name(name, task, logged["doc_id"], document)
    own = instances[item]
    responses = [response for instance in own for response in instance.resps]
    return Sample(
        task=name,
        item_id=item,
        filter=logged["filter"],
        prompt=str(own[0].args[0]),
        outputs=tuple(response for response in responses if isinstance(response, str)),
        values={name: logged[name] for name in logged["metrics"] if _is_number(logged[name])},
        document=dict(document),
        likelihoods=tuple(
            (float(response[0]), bool(response[1]))
            if isinstance(response, Likelihood)
            else (float(response), False)  # a text's rolling total
            for response in responses
            if not isinstance(response, str)
        ),
        tokens=tuple(
            response.tokens() for response in responses if isinstance(response, Likelihood)
        ),
    )


def _is_number(value: object) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, (int, float)) for part in parts)
