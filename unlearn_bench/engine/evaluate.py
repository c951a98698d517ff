"""Run lm-eval's evaluator over an engine and turn what it logs into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.evaluator import evaluate as run_lm_eval
from lm_eval.tasks import TaskManager

from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.fur import Part
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import FUR, PUBLIC_SETS
from unlearn_bench.engine.base import Engine, Progress
from unlearn_bench.engine.likelihood import Likelihood
from unlearn_bench.engine.lm import EngineLM
from unlearn_bench.protocols.catalog import Protocol
from unlearn_bench.protocols.documents import run_metadata
from unlearn_bench.protocols.harness import load_harness_tasks
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
    by_dataset = {
        protocol.dataset: limits.get(protocol.name, limits.get(protocol.base))
        for protocol in protocols
        if not protocol.harness
    }
    edit_set = next((name for name in by_dataset if name in PUBLIC_SETS), FUR)  # a run has one
    manager = TaskManager(
        include_path=str(tasks_folder()),
        include_defaults=False,
        metadata=run_metadata(sources, by_dataset, paraphrases, part, edit_set),
    )
    subtasks = [name for own in protocols if not own.harness for name in own.subtasks]
    tasks: dict[str, Any] = manager.load(subtasks)["tasks"]
    for task in tasks.values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.config.repeats > 1:
            task.set_config("repeats", samples_per_prompt)
    for task in (others := _load_others(protocols, sources)).values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.config.num_fewshot is None:  # as lm-eval's own command does
            task.set_config("num_fewshot", 0)
    return {**tasks, **others}


def _load_others(protocols: Sequence[Protocol], sources: SourceOptions) -> dict[str, Any]:
    """lm-eval's own tasks. Code in task files was allowed when the run was planned, or refused."""
    names = list(dict.fromkeys(own.harness for own in protocols if own.harness))
    return dict(load_harness_tasks(names, sources, allow_code=True).tasks)


def evaluate(
    engine: Engine,
    tasks: Mapping[str, Any],
    *,
    seed: int,
    others: Mapping[str, list[int]] | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Sample]:
    """Every task's samples under the checkpoint that the engine holds, in document order.

    others: of lm-eval's own tasks the positions of the documents to ask, which are also their
    items' names: their documents have no ids. Raises WeightSwapError when the weights changed while
    the tasks ran: nothing is returned then.
    """
    # Not `simple_evaluate`: it asks the machine for its history, 3 s a time, to print it.
    results = run_lm_eval(
        lm=EngineLM(engine, seed=seed, progress=progress),
        task_dict={"tasks": dict(tasks), "groups": {}, "group_map": {}},
        samples=dict(others or {}),
        bootstrap_iters=0,
        log_samples=True,
    )
    assert results is not None  # None only on other ranks, and there are none
    samples = [
        _read_sample(name, logged, instances, named=name not in (others or {}))
        for name, task in tasks.items()
        for instances in [_instances_by_document(task)]
        for logged in results["samples"][name]
    ]
    engine.verify()
    return samples


def _instances_by_document(task: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for instance in sorted(task.instances, key=lambda instance: instance.idx):
        found.setdefault(instance.doc_id, []).append(instance)
    return found


def _read_sample(
    task: str, logged: dict[str, Any], instances: Mapping[int, Sequence[Any]], *, named: bool
) -> Sample:
    document = logged["doc"]
    own = instances[logged["doc_id"]]
    responses = [response for instance in own for response in instance.resps]
    return Sample(
        task=task,
        item_id=str(document["id"]) if named else f"{task}:{logged['doc_id']}",
        filter=logged["filter"],
        prompt=str(own[0].args[0]),
        outputs=tuple(response for response in responses if isinstance(response, str)),
        values={name: logged[name] for name in logged["metrics"] if _is_number(logged[name])},
        document=dict(document),
        likelihoods=tuple(
            (float(response[0]), bool(response[1]))
            for response in responses
            if isinstance(response, Likelihood)
        ),
    )


def _is_number(value: object) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, (int, float)) for part in parts)
