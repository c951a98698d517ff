"""Methods and scorers by name: one decorated function in one file each.

Listing reads the files' syntax trees and never imports them, so `unlearn-bench list` needs no
torch. Loading imports the one file that is asked for. Decorator arguments must therefore be
literals. Third parties join through the entry point groups `unlearn_bench.methods` and
`unlearn_bench.scorers` (value: a module), or by naming a `.py` file.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from unlearn_bench.errors import UnknownNameError, UsageError

logger = logging.getLogger(__name__)

Kind = Literal["method", "scorer"]
Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """What can be said of a plugin without importing it.

    `doc` is the function's docstring, its margin removed. `facts` are the decorator's keyword
    arguments (paper, needs, targets, training, ...); `options` maps each keyword-only argument to
    (annotation, default) as source text.
    """

    kind: Kind
    name: str
    file: Path
    doc: str
    facts: dict[str, Any]
    options: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.split("\n", 1)[0]

    @property
    def source_sha256(self) -> str:
        """Hash of the file's bytes: part of a cell's key, so that edited code is a new cell."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def method(name: str, **facts: Any) -> Callable[[Function], Function]:
    """Register an unlearning method. `facts`: see `unlearn_bench.methods.contract.METHOD_FACTS`."""
    return _mark("method", name, facts)


def scorer(name: str, **facts: Any) -> Callable[[Function], Function]:
    """Register a scorer: a function that returns an object with `score(texts)`."""
    return _mark("scorer", name, facts)


def _mark(kind: Kind, name: str, facts: dict[str, Any]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        function.__unlearn_bench__ = (kind, name, facts)  # type: ignore[attr-defined]
        return function

    return decorate


def list_cards(kind: Kind, extra_files: tuple[Path, ...] = ()) -> dict[str, Card]:
    """All plugins of one kind by name: built in, installed (entry points), and `extra_files`."""
    files = [*_built_in_files(kind), *_entry_point_files(kind), *extra_files]
    cards: dict[str, Card] = {}
    for file in files:
        for card in _read_cards(kind, file):
            if card.name in cards and cards[card.name].file != card.file:
                raise UsageError(
                    f"two {kind}s are called {card.name!r}",
                    where=f"{cards[card.name].file} and {card.file}",
                    next_step="rename one of them",
                )
            cards[card.name] = card
    return dict(sorted(cards.items()))


def find_card(kind: Kind, name: str, extra_files: tuple[Path, ...] = ()) -> Card:
    """The card called `name`. Raises UnknownNameError with the near matches."""
    cards = list_cards(kind, extra_files)
    if name not in cards:
        raise UnknownNameError(kind, name, cards)
    return cards[name]


def load_function(card: Card) -> Callable[..., Any]:
    """Import the card's file and return the decorated function."""
    module = _import_file(card.file)
    for value in vars(module).values():
        if getattr(value, "__unlearn_bench__", (None, None))[:2] == (card.kind, card.name):
            if inspect.getmodule(value) is not module:
                continue
            return value  # type: ignore[no-any-return]
    raise UsageError(f"{card.file} does not define {card.kind} {card.name!r} when imported")


def _built_in_files(kind: Kind) -> list[Path]:
    return sorted((PACKAGE / f"{kind}s").glob("[a-z]*.py"))


@cache  # to read what is installed takes 20 ms
def _entry_point_files(kind: Kind) -> tuple[Path, ...]:
    """Files behind the entry points, located without importing their leaf module."""
    entries = metadata.entry_points(group=f"unlearn_bench.{kind}s")
    found = (_entry_point_file(entry.group, entry.name, entry.value) for entry in entries)
    return tuple(file for file in found if file is not None)


def _entry_point_file(group: str, name: str, module: str) -> Path | None:
    """None, and a warning, for a package that is broken: it must not take the others with it."""
    try:
        spec = importlib.util.find_spec(module)  # imports the packages that the module lies in
        why = "there is no such module"
    except Exception as error:
        spec, why = None, f"{type(error).__name__}: {error}"
    if spec is not None and spec.origin is not None:
        return Path(spec.origin)
    logger.warning(
        "the plugin %r (%s in group %s) is left out: %s; reinstall or remove its package",
        *(name, module, group, why),
    )
    return None


def _read_cards(kind: Kind, file: Path) -> list[Card]:
    return list(_read_cards_at(kind, file, file.stat().st_mtime_ns))


@cache
def _read_cards_at(kind: Kind, file: Path, _mtime: int) -> tuple[Card, ...]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise UsageError(
            f"{file} is not valid Python: {error.msg}", where=f"line {error.lineno}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not in UTF-8: {error}") from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return tuple(
        _read_card(kind, file, function, decorator)
        for function in functions
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and _called_name(decorator) == kind
    )


def _called_name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _read_card(kind: Kind, file: Path, function: ast.FunctionDef, call: ast.Call) -> Card:
    try:
        name = ast.literal_eval(call.args[0])
        facts = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"@{kind} in {file} needs literal arguments, the name first",
            where=f"line {call.lineno}",
        ) from error
    options = {
        argument.arg: (
            ast.unparse(argument.annotation) if argument.annotation else "Any",
            ast.unparse(default) if default else "",
        )
        for argument, default in zip(
            function.args.kwonlyargs, function.args.kw_defaults, strict=True
        )
    }
    return Card(kind, name, file, ast.get_docstring(function) or "", facts, options)


def _import_file(file: Path) -> ModuleType:
    if PACKAGE in file.parents:
        dotted = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        return importlib.import_module(dotted)
    name = f"unlearn_bench_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UsageError(f"{file} cannot be imported as a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]  # half of a module would hide why the whole one is not there
            raise UsageError(
                f"{file} fails at import: {type(error).__name__}: {error}",
                next_step="mend it or leave it out; reinstall or remove the package it is of",
            ) from error
    return sys.modules[name]
