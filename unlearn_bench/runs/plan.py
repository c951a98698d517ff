"""Resolve a configuration into cells, refusing everything impossible before any expensive work.

A cell's key is the hash of everything that determines its numbers. What is not in the key (folders,
machine, time) may not move them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearn_bench.config import NAME, OWN_SET, RunConfig, Suite, list_suites, load_suite
from unlearn_bench.errors import DiskFullError, UnknownNameError, UsageError
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs.judge import Judge
from unlearn_bench.runs.store import canonical_json, inside, require_writable
from unlearn_bench.schema import Origin

if TYPE_CHECKING:
    from unlearn_bench.data.fur import Part
    from unlearn_bench.data.options import SourceOptions
    from unlearn_bench.data.public import EditSet
    from unlearn_bench.methods.contract import EditData
    from unlearn_bench.models.opened import OpenedModel
    from unlearn_bench.protocols.catalog import Protocol
    from unlearn_bench.runs.tuned import Winner

Role = Literal["target", "exact", "method", "control"]
TARGET = "noop"  # the row that is θ₀ itself; every delta is taken to it
EXACT = "exact_unlearning"
KEY_FORMAT = 1  # raise it when a cell's files change their meaning
CHECKPOINT_BYTES = 4  # per parameter: edited models are written in float32
CHECKPOINTS_AT_ONCE = 4  # target, exact, the one being written, the one before it


@dataclass(frozen=True)
class Cell:
    """One method with one seed. `determinants` is all that `key` is the sha256 of.

    requested: ids of the subjects that were to be forgotten or updated so far; None means all.
    """

    method: str
    seed: int
    role: Role
    options: Mapping[str, Any]
    determinants: dict[str, Any]
    requested: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """sha256 of the determinants' canonical JSON."""
        return hashlib.sha256(canonical_json(self.determinants)).hexdigest()

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.method} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, resolved: what, on which data, judged by whom, kept where.

    model: the base, or with `own_target` the user's target itself. fur: our own forget, update and
    retain set, or the public one in its place. judge: the loaded scorer, None
    when it could not load (its values will be missing). guard: the model that judges answers to
    requests beside it, if one was asked for; scorer: the identity of both. second: the scorer
    beside the first, if two were asked for. tuned: of the methods that run as they were tuned;
    tuning: how that was done. notes: what the reader should know.
    """

    model: OpenedModel
    own_target: bool
    suite: Suite
    protocols: Mapping[str, Protocol]
    origins: Mapping[str, Origin]
    parameters: int
    cards: Mapping[str, Card]
    cells: tuple[Cell, ...]
    data: EditData
    fur: EditSet | None
    anchors: tuple[str, ...]
    sources: SourceOptions
    engine: str
    dtype: str
    judge: Any
    scorer: Mapping[str, str]
    output: Path
    leaderboards: Path
    keep_checkpoints: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    guard: Any = None
    second: Judge | None = None
    tuned: Mapping[str, Winner] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    @property
    def engine_text(self) -> str:
        """The engine with its arguments, for people and boards."""
        return engine_text(self.engine, self.engine_args)

    @property
    def suite_name(self) -> str:
        """What the suite is called."""
        return self.suite.name

    @property
    def second_scorer(self) -> Mapping[str, str]:
        """Identity of the scorer beside the first; empty without one."""
        return self.second.identity if self.second else {}

    @property
    def edit_set(self) -> str:
        """What the models learned and the methods edited; "" where nothing was."""
        return f"{self.fur.origin.dataset} {version_text(self.fur.origin)}" if self.fur else ""

    @property
    def called(self) -> dict[str, str]:
        """How model and edit set are called: what a cell keeps so that boards can be made of it."""
        return {"slug": self.model.name, "label": self.model.label, "edit_set": self.edit_set}

    @property
    def harness_names(self) -> dict[str, str]:
        """By which name or file lm-eval was asked for each task that is its own."""
        return {name: own.harness for name, own in self.protocols.items() if own.harness}


def engine_text(name: str, args: Mapping[str, Any]) -> str:
    """An engine's name, and behind it what it was given, in the order of their names."""
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(args.items()))])


def version_text(origin: Origin) -> str:
    """Source, revision and the first digits of the data's hash, for people."""
    return f"{origin.source} {origin.revision} {origin.sha256[:12]}"


def choose_methods(names: Sequence[str], *, own_target: bool) -> tuple[dict[str, Card], list[str]]:
    """The cards of `names` (method ids, `all`, `.py` files), the target row first, and notes.

    Raises UnknownNameError with near matches; UsageError for a file without a method, for a name
    that no folder could have, or for a method that needs the exact model when the user brings a
    target of their own.
    """
    files = {name: _method_file(name) for name in names if name.endswith(".py")}
    known = list_cards("method", tuple(files.values()))
    chosen = {TARGET: known[TARGET]} if TARGET in known else {}
    for name in names:
        chosen |= _cards_called(name, known, files)
    _check_names(chosen)
    notes = [] if TARGET in names or "all" in names else [f"{TARGET} added: deltas are taken to it"]
    if own_target:
        needing = [name for name, card in chosen.items() if needs_exact(card) or needs_base(card)]
        if asked := [name for name in needing if name in names]:
            raise UsageError(
                f"{', '.join(asked)} trains a model from the base, "
                "and --target brings no recipe to train it by",
                next_step="leave the method out, or leave out --target",
            )
        if needing:
            notes.append(f"{', '.join(needing)} left out: --target brings no recipe to train by")
        chosen = {name: card for name, card in chosen.items() if name not in needing}
    return chosen, notes


def _cards_called(
    name: str, known: Mapping[str, Card], files: Mapping[str, Path]
) -> dict[str, Card]:
    if name == "all":
        return {other: card for other, card in known.items() if card.file not in files.values()}
    if name in files:
        own = {other: card for other, card in known.items() if card.file == files[name]}
        if not own:
            raise UsageError(
                f"{name} holds no function decorated with @method",
                next_step="see docs/adding.md: add a method in five minutes",
            )
        return own
    if name not in known:
        raise UnknownNameError("method", name, known)
    return {name: known[name]}


def _check_names(chosen: Mapping[str, Card]) -> None:
    """Raise UsageError for a method whose name cannot be part of its cells' folder."""
    for name, card in chosen.items():
        if not re.fullmatch(NAME, name):
            raise UsageError(
                f"a method cannot be called {name!r}",
                where=str(card.file),
                next_step="name it with at most 128 letters, digits, dots, dashes and underscores",
            )


def _method_file(name: str) -> Path:
    path = Path(name).expanduser()
    if not os.path.isfile(path):  # nor is there one of a name that no file can have
        raise UsageError(f"there is no method file {name}", next_step="check the path")
    return path.resolve()


def needs_exact(card: Card) -> bool:
    """Whether a method cannot do without the model trained without the forget set."""
    return card.name == EXACT or "exact" in card.facts.get("needs", ())


def needs_base(card: Card) -> bool:
    """Whether a method trains from the base again."""
    return "base" in card.facts.get("needs", ())


def role_of(card: Card) -> Role:
    """Where a method's row stands on the board."""
    if card.name == TARGET:
        return "target"
    if card.name == EXACT:
        return "exact"
    return "control" if card.facts.get("control") else "method"


def choose_suite(
    config: RunConfig,
    part: Part = "test",
    edit_sets: Collection[str] = (OWN_SET,),
) -> Suite:
    """The configured suite, narrowed to --tasks and --limit, with the edit set's task in it.

    Whether its tasks exist is not asked here. Raises UnknownNameError for the edit set; UsageError
    for a task about another edit set, and for a suite of the other part: a board of the items that
    options were chosen on would flatter whoever was tuned, and options chosen on test items would
    have seen the answers.
    """
    suite = load_suite(config.suite).narrowed(config.tasks, config.limit).over(config.edit_set)
    if config.edit_set not in edit_sets:
        raise UnknownNameError("edit set", config.edit_set, edit_sets)
    if suite.part != part:
        asks = "test items" if part == "validation" else "the items on which options are chosen"
        fitting = ", ".join(name for name, other in list_suites().items() if other.part == part)
        raise UsageError(
            f"suite {suite.name!r} asks {asks}",
            next_step=f"choose a suite that asks the others: {fitting}",
        )
    for task in suite.tasks:
        if task in edit_sets and task != config.edit_set:
            raise UsageError(
                f"the task {task!r} asks about texts that the models of this run never learn",
                next_step=f"add --edit-set {task}, or leave the task out",
            )
    return suite


def check_settings(settings: Mapping[str, Any], cards: Mapping[str, Card]) -> None:
    """Refuse `--set` for a method that this run does not have: it would silently do nothing."""
    for name in settings:
        if name not in cards:
            raise UnknownNameError("method", name, cards)


def check_output(path: Path) -> Path:
    """The output folder, which need not exist yet.

    Raises UsageError for a relative path that climbs out of the current folder, for a file in its
    place and for a folder that cannot be written.
    """
    wanted = path.expanduser()
    require_writable(wanted)
    here = Path.cwd().resolve()
    there = (here / wanted).resolve()
    if not wanted.is_absolute() and here not in (there, *there.parents):
        raise UsageError(
            f"the output folder {str(path)!r} leaves the current folder",
            next_step="give an absolute path if you mean it",
        )
    return wanted


def check_disk(output: Path, checkpoint_bytes: int, cells: int, *, keep: bool) -> None:
    """Raises DiskFullError when the checkpoints cannot fit, before the first is made."""
    needed = checkpoint_bytes * (CHECKPOINTS_AT_ONCE + (cells if keep else 0))
    place = next(folder for folder in (output, *output.resolve().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFullError(
            f"checkpoints need about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            where=str(output),
            next_step="free some space, or choose another disk with --output",
        )


def leaderboard_folder(config: RunConfig, model: str) -> Path:
    """`<leaderboards>/<model>`, by default below the output folder."""
    root = config.leaderboards or config.output / "leaderboards"
    return inside(root.expanduser(), model)


def build_cells(
    cards: Mapping[str, Card],
    options: Mapping[str, Mapping[str, Any]],
    made_of: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    common: Mapping[str, Any],
) -> tuple[Cell, ...]:
    """Methods × seeds, seeds innermost. Every seed also seeds the sampling of continuations, so
    `noop` over seeds shows the noise floor, and deterministic methods run per seed as well.

    common: the determinants that all cells share. made_of: further ones by method (code, data).
    """
    return tuple(
        Cell(
            method=name,
            seed=seed,
            role=role_of(card),
            options=options[name],
            determinants={
                **common,
                "format": KEY_FORMAT,
                "method": {
                    "name": name,
                    "file_sha256": card.source_sha256,
                    "options": dict(options[name]),
                    **made_of[name],
                },
                "seed": seed,
            },
        )
        for name, card in cards.items()
        for seed in seeds
    )
