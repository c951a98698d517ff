"""lm-eval task files of the user's: read as text, judged, and hashed before anything is loaded.

lm-eval imports what `!function` names as soon as it loads a file. So a file is first composed into
YAML nodes, which constructs nothing, and refused if it would run code that nobody allowed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from unlearn_bench.data.packages import sha256_of
from unlearn_bench.errors import UnsafeArtefactError, UsageError
from unlearn_bench.schema import TASK_FILES

FLAG = "--allow-task-code"
PYTHON_TAG = "tag:yaml.org,2002:python/"
FUNCTION_TAG = "!function"
CODE_KEYS = ("class",)
TRUE_CODE_KEYS = ("unsafe_code", "hf_evaluate", "trust_remote_code")  # fetched or generated code

NEXT_STEPS = {  # for a file outside the task file's folder
    "include": "copy what it includes into its folder",
    "use_prompt": "copy the prompt into its folder; lm-eval looks for a relative path in the "
    "working directory, so name the whole path or run from that folder",
}


def is_task_file(name: str) -> bool:
    """Whether a task is named by its file."""
    return name.endswith(TASK_FILES)


def check_task_file(name: str, *, allow_code: bool) -> tuple[Path, ...]:
    """The file, what it includes and the code that it names, in the order met; nothing runs.

    Raises UsageError for a file that is not there or not YAML, and for a prompt of promptsource;
    UnsafeArtefactError for an include or a prompt outside the file's folder, a Python object, or
    code without `allow_code`.
    """
    path = Path(name).expanduser()
    if not os.path.isfile(path):  # nor is there one of a name that no file can have
        raise UsageError(f"there is no task file {name}", next_step="check the path")
    path = path.resolve()
    return tuple(_check(path, path.parent, allow_code, []))


def definition_files(path: Path) -> tuple[Path, ...]:
    """The same of a task that the installed lm-eval defines, whose code is trusted as it is."""
    return tuple(_check(path.resolve(), None, True, []))


def definition_sha256(files: Sequence[Path]) -> str:
    """One hash of a task's files in their order, whatever folder they lie in."""
    return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()


def _check(path: Path, folder: Path | None, allow_code: bool, seen: list[Path]) -> list[Path]:
    """folder: which includes may not leave; None: they may."""
    if path in seen:
        return seen
    seen.append(path)
    for node, key in _nodes(_compose(path)):
        _refuse_tags(path, node)
        if node.tag == FUNCTION_TAG or key in CODE_KEYS or _switches_code_on(key, node):
            if not allow_code:
                raise UnsafeArtefactError(
                    f"the task file runs code ({key or node.tag})",
                    where=_where(path, node),
                    next_step=f"read that code, then add {FLAG}",
                )
            code = _code_file(path, node)
            if code is not None and code not in seen:
                seen.append(code)
        for use, there in _read_besides(path, key, node):
            if folder is not None and folder not in there.parents:
                raise UnsafeArtefactError(
                    f"the task file {use}, outside its own folder",
                    where=_where(path, node),
                    next_step=NEXT_STEPS[key],
                )
            _check(there, folder, allow_code, seen)
    return seen


def _refuse_tags(path: Path, node: yaml.Node) -> None:
    if node.tag.startswith(PYTHON_TAG):
        raise UnsafeArtefactError(
            "a task file that makes Python objects is never loaded",
            where=_where(path, node),
            next_step="write the value as plain YAML",
        )
    if node.tag.startswith("!") and node.tag != FUNCTION_TAG:
        raise UnsafeArtefactError(
            f"the task file has the unknown tag {node.tag}",
            where=_where(path, node),
            next_step="remove the tag",
        )


def _compose(path: Path) -> yaml.Node:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            f"{path.name} cannot be read: {error.strerror}", where=str(path)
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path.name} is not valid YAML: {error}", where=str(path)) from error
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path.name} must hold names with values", where=str(path))
    return node


def _nodes(root: yaml.Node) -> Iterator[tuple[yaml.Node, str]]:
    """Every node once, aliases included, with the key that it is the value of ("" for others)."""
    waiting, met = [(root, "")], set[tuple[int, str]]()
    while waiting:
        node, key = waiting.pop()
        if (id(node), key) in met:
            continue
        met.add((id(node), key))
        yield node, key
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting.append((name, ""))
                waiting.append((value, str(name.value) if name.id == "scalar" else ""))
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, "") for item in node.value]


def _switches_code_on(key: str, node: yaml.Node) -> bool:
    off = isinstance(node, yaml.ScalarNode) and node.value.lower() in ("false", "no", "off", "null")
    return key in TRUE_CODE_KEYS and not off


def _scalars(node: yaml.Node) -> list[str]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [item.value for item in nodes if isinstance(item, yaml.ScalarNode)]


def _read_besides(path: Path, key: str, node: yaml.Node) -> Iterator[tuple[str, Path]]:
    """The other YAML files that lm-eval reads for this value, with how the task file uses them.

    lm-eval takes a prompt's relative path from the working directory, not from the task file: so
    does this, that the file which is judged and hashed is the one which is read.
    """
    for name in _scalars(node):
        if key == "include":
            yield f"includes {name!r}", _beside(path, name, node)
        elif key == "use_prompt":
            file = name.partition(":")[0]
            if file == "promptsource":
                raise UsageError(
                    "the task file takes its prompt from promptsource, which nothing here reads",
                    where=_where(path, node),
                    next_step="write the prompt itself into the file, as doc_to_text",
                )
            if ".yaml" in file:  # by which lm-eval tells a file from a prompt of its own
                there = _beside(Path.cwd() / path.name, file, node)
                yield f"takes its prompt from {there}", there


def _code_file(path: Path, node: yaml.Node) -> Path | None:
    """The file beside `path` that `!function module.name` is read from; None for a package's."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    module, _, _ = node.value.rpartition(".")
    there = _beside(path, f"{module.replace('.', '/')}.py", node)
    return there if module and there.is_file() else None


def _beside(path: Path, name: str, node: yaml.Node) -> Path:
    try:
        return (path.parent / name).resolve()
    except ValueError as error:  # a NUL, half a surrogate pair
        raise UsageError(
            f"the task file names {name!r}, which no file can be called", where=_where(path, node)
        ) from error


def _where(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
