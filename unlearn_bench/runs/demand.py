"""What each half of a cell takes of a node: cores, GPUs and main memory, by Ray's names for them.

The bytes of an edit on a GPU (`runs.footprint`) are the GPU's and no demand: a process works on the
GPUs that it is given, and edits on the first of them. Main memory holds what is on its way there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from unlearn_bench.runs.estimate import footprint_of_edit, footprint_of_preparation
from unlearn_bench.runs.footprint import (
    ENGINE_BYTES,
    FP32,
    PROCESS_BYTES,
    measure_texts,
    read_shape,
)
from unlearn_bench.runs.plan import Cell, Plan
from unlearn_bench.runs.speed import this_machine

Task = Literal["prepare", "edit", "ask", "judge"]
Needs = Mapping[str, float]
NOBODY = ""  # in the place of a cell's key: what is prepared is for all


def needs_of(
    plan: Plan, cells: Iterable[Cell], nodes: Iterable[Needs]
) -> dict[tuple[str, Task], Needs]:
    """By a cell's key and what is done for it. nodes: what each has in all.

    Where nodes have GPUs a process has its share of the cores with each GPU, else all cores of the
    smallest node. Whoever prepares the models goes on with the largest edit.
    """
    nodes = list(nodes)
    with_gpu = [node for node in nodes if node.get("GPU")]
    cores = (node.get("CPU", 1) // node.get("GPU", 1) for node in with_gpu or nodes)
    share = max(1.0, min(cores, default=1))
    found: dict[tuple[str, Task], Needs] = {}
    for (key, task), memory in _memory(plan, cells, on_gpu=bool(with_gpu)).items():
        devices = _devices(plan.engine_args) if task == "ask" else 1
        own = {"CPU": share * devices, "GPU": float(devices)} if with_gpu else {"CPU": share}
        found[key, task] = {**own, "memory": float(math.ceil(memory))}
    return found


def _memory(plan: Plan, cells: Iterable[Cell], *, on_gpu: bool) -> dict[tuple[str, Task], float]:
    """Bytes of main memory.

    On a GPU an edit keeps θ₀ to compare with and reads or writes one more model; questions read
    theirs. On a CPU an edit has its footprint; likelihoods are read from the model in float32.
    """
    shape, texts = read_shape(plan.model.folder), measure_texts(vars(plan.data))
    machine = this_machine() if on_gpu else replace(this_machine(), card=None)
    weights = FP32 * shape.parameters
    engine = ENGINE_BYTES if plan.engine == "vllm" and not on_gpu else 0.0
    moved = PROCESS_BYTES + 2 * weights
    asking = PROCESS_BYTES + weights + engine
    prepare = moved if on_gpu else footprint_of_preparation(plan, shape, machine).total
    found: dict[tuple[str, Task], float] = {(NOBODY, "prepare"): prepare}
    for cell in cells:
        on_cpu = footprint_of_edit(plan, cell, shape, texts, machine).total + engine
        found[cell.key, "edit"] = moved if on_gpu else on_cpu
        found[NOBODY, "prepare"] = max(found[NOBODY, "prepare"], found[cell.key, "edit"])
        found[cell.key, "ask"] = found[cell.key, "judge"] = asking
    return found


def _devices(engine_args: Mapping[str, Any]) -> int:
    """GPUs over which vLLM spreads a model that is asked, unless it asks Ray for them itself."""
    from unlearn_bench.engine.spread import SPREADING

    if engine_args.get("distributed_executor_backend") == "ray":
        return 1
    return math.prod(int(engine_args.get(name, 1)) for name in SPREADING)


def together(*needs: Needs) -> Needs:
    """What serves each of these, one after another."""
    names = dict.fromkeys(name for need in needs for name in need)
    return {name: max(need.get(name, 0.0) for need in needs) for name in names}


def covers(room: Needs, need: Needs) -> bool:
    """Whether there is enough of everything."""
    return all(room.get(name, 0.0) >= amount for name, amount in need.items())


def less(room: Needs, taken: Needs) -> Needs:
    """What is left of a node."""
    return {name: amount - taken.get(name, 0.0) for name, amount in room.items()}


def tightness(room: Needs) -> tuple[float, float]:
    """Sorts what has more behind what has less, so that the rest stays in large pieces."""
    return room.get("GPU", 0.0), room.get("memory", 0.0)
