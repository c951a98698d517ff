"""Run lm-eval's evaluator over an engine and turn what it logs into samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as run_lm_eval
from lm_eval.tasks import TaskManager

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.fur import Part
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.base import Engine, Progress
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.lm import EngineLM
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.documents import run_metadata
from unlearn_bench.schema import Sample

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
    own = {
        protocol.name: limits.get(protocol.name, limits.get(protocol.base))
        for protocol in protocols
    }
    by_dataset = {protocol.dataset: own[protocol.name] for protocol in protocols} | own
    manager = TaskManager(
        include_path=str(tasks_folder()),
        include_defaults=False,
        metadata=run_metadata(sources, by_dataset, paraphrases, part),
    )
    subtasks = [subtask for protocol in protocols for subtask in protocol.subtasks]
    tasks: dict[str, Any] = manager.load(subtasks)["tasks"]
    for task in tasks.values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.config.repeats > 1:
            task.set_config("repeats", samples_per_prompt)
    return tasks


def evaluate(
    engine: Engine,
    tasks: Mapping[str, Any],
    *,
    seed: int,
    progress: Progress = lambda done, total: None,
    only: Mapping[str, Collection[str]] | None = None,
) -> list[Sample]:
    """Every task's samples under the checkpoint that the engine holds, in document order.

    only: item ids by task; tasks and items that are not named are not asked. Raises
    WeightSwapError when the weights changed while the tasks ran: nothing is returned then.
    """
    lm = EngineLM(engine, seed=seed, progress=progress, moments=_with_moments(tasks))
    samples = ask(lm, tasks, only, in_chat=bool(engine.tokenizer.chat_template))
    engine.verify()
    return samples


def ask(
    lm: LM,
    tasks: Mapping[str, Any],
    only: Mapping[str, Collection[str]] | None = None,
    *,
    in_chat: bool,
) -> list[Sample]:
    """Put every task's questions to an lm-eval model; the samples in document order.

    only: as for `evaluate`. in_chat: whether the model has a chat template, through which it is
    asked what is a conversation (`metadata: {chat_template: true}`). lm-eval takes it for all tasks
    of a call or for none.
    """
    if only is not None:
        tasks = {name: tasks[name] for name in tasks if name in only}
    chat = {name: task for name, task in tasks.items() if in_chat and _says(task, "chat_template")}
    plain = {name: task for name, task in tasks.items() if name not in chat}
    logged = _run(lm, plain, only, chat=False) | _run(lm, chat, only, chat=True)
    return [
        _read_sample(name, entry, instances)
        for name, task in tasks.items()
        for instances in [_instances_by_item(task)]
        for entry in logged[name]
    ]


def _run(
    lm: LM, tasks: dict[str, Any], only: Mapping[str, Collection[str]] | None, *, chat: bool
) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval logs of each task, by name."""
    if not tasks:
        return {}
    chosen = None
    if only is not None:
        chosen = {name: _places(task, only[name]) for name, task in tasks.items()}
    # Not `simple_evaluate`: it asks the machine for its history, 3 s a time, to print it.
    results = run_lm_eval(
        lm=lm,
        task_dict={"tasks": tasks, "groups": {}, "group_map": {}},
        bootstrap_iters=0,
        samples=chosen,
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


def _places(task: Any, items: Collection[str]) -> list[int]:
    return [n for n, document in enumerate(task.eval_docs) if str(document["id"]) in items]


def _instances_by_item(task: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(str(instance.doc["id"]), []).append(instance)
    return found


def _read_sample(
    task: str, logged: dict[str, Any], instances: Mapping[str, Sequence[Any]]
) -> Sample:
    document = logged["doc"]
    own = instances[str(document["id"])]
    responses = [response for instance in own for response in instance.resps]
    return Sample(
        task=task,
        item_id=str(document["id"]),
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
