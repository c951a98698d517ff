"""Metrics that are scripts: `evaluate` fetches one from the hub, or takes a file, and imports it.

lm-eval turns to it for every metric that it does not know itself, and some of its own tasks do so
in their code. What the installed packages bring is trusted; a script from elsewhere is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, NoReturn

import lm_eval.api.task
from lm_eval.api.registry import get_metric, metric_registry

from unlearn_bench.errors import UnsafeArtefactError

SCRIPTS = "evaluate_modules."  # the package from which `evaluate` imports every script


@contextmanager
def refuse_scripts(tasks: str, next_step: str) -> Iterator[None]:
    """Within, lm-eval has its own metrics alone, and no script of another is imported.

    Raises UnsafeArtefactError where one was asked for, whatever the task's code made of that.
    """
    refused: list[UnsafeArtefactError] = []

    def refuse(metric: str) -> NoReturn:
        what = f"{metric} of {tasks} is a script, from the hub or a file: it is not run"
        refused.append(UnsafeArtefactError(what, next_step=next_step))
        raise refused[0]

    def own_metric(name: str, hf_evaluate_metric: bool = False) -> Any:
        if hf_evaluate_metric or name not in metric_registry:
            refuse(f"the metric {name!r}")
        return get_metric(name)

    class NoScripts(MetaPathFinder):
        def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
            if fullname.startswith(SCRIPTS):
                refuse("a metric")

    finder = NoScripts()
    lm_eval.api.task.get_metric = own_metric
    sys.meta_path.insert(0, finder)
    try:
        yield
    except Exception:
        if not refused:
            raise
    finally:
        sys.meta_path.remove(finder)
        lm_eval.api.task.get_metric = get_metric
    if refused:
        raise refused[0]
