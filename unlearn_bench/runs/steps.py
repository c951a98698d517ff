"""The real steps of a cell: prepare the target, edit it, evaluate the result, judge the texts."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.engine.base import Engine, LoadProof, open_engine
from unlearn_bench.engine.evaluate import evaluate, item_name, load_tasks
from unlearn_bench.engine.under_target import score_under_target
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.fingerprint import config_hash, fingerprint, template_hash, tokenizer_hash
from unlearn_bench.models.load import load_model, save_model
from unlearn_bench.protocols.catalog import Protocol, tasks_under_target
from unlearn_bench.protocols.harness import asked_positions
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.runs.contract import Half
from unlearn_bench.runs.judge import Judge, judged_items
from unlearn_bench.runs.memory import return_memory, reuse_memory, trimmed
from unlearn_bench.runs.plan import Cell, Plan, needs_exact
from unlearn_bench.runs.progress import Tick
from unlearn_bench.runs.provenance import machine
from unlearn_bench.schema import EditReport, ItemScore, Sample
from unlearn_bench.training.parallel import is_main, loading_device
from unlearn_bench.training.prepare import (
    BaseTraining,
    Prepared,
    Recipe,
    prepare_models,
    read_manifest,
)

RECIPE_SEED = 0  # one target and one exact model per run, whatever the cells' seeds


class ModelSteps:
    """Works on real models. The engine starts with the first evaluation and serves the whole run;
    the lm-eval tasks are built once, so every cell is asked the same items.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        reuse_memory()
        self.plan, self.say = plan, say
        self.device = loading_device()
        self._target: Path | None = None
        self._prepared: Prepared | None = None
        self._engine: Engine | None = None
        self._saved = ""  # fingerprint of the running cell's checkpoint, taken as it was written
        self._tasks: dict[str, Any] | None = None
        self._divisors: dict[tuple[str, Half], int] = {}  # of batches, by cell
        self._loaded_at = self._start_seconds = 0.0

    def prepare(self, tick: Tick) -> None:
        """Train the target, and the exact model of every cell that needs one, unless cached.

        All before the engine starts, which would share the memory with them. The user's own target
        is taken as it is.
        """
        if self.plan.own_target:
            self._target = self.plan.model.folder
            self._require_target(self.plan.model.fingerprint)
            return
        assert self.plan.fur is not None
        self._prepared = prepare_models(
            self.plan.model,
            self.plan.fur,
            Recipe(),
            anchors=self.plan.anchors,
            seed=RECIPE_SEED,
            cache=self.plan.sources.cache,
            progress=trimmed(tick),
        )
        self._target = self._prepared.target
        for cell in self.plan.cells:
            exact = self.exact_of(cell)
            if exact is not None and needs_exact(self.plan.cards[cell.method]):
                exact()

    def start_of(self, cell: Cell, tick: Tick) -> Path:
        """Folder of the model that the cell's edit begins with."""
        return self.target

    def data_of(self, cell: Cell) -> EditData:
        """What the cell's method may read."""
        return self.plan.data

    def exact_of(self, cell: Cell) -> Callable[[], Path] | None:
        """Trains the cell's exact model, unless cached; None where the target is the user's own."""
        if self._prepared is None or cell.requested is None:
            return self._prepared.exact if self._prepared else None
        return functools.partial(self._prepared.exact_after, cell.requested)

    def base_of(self, cell: Cell) -> BaseTraining | None:
        """The base with the recipe and texts of the target; None where that is the user's own."""
        if self._prepared is None or self.plan.fur is None:
            return None
        return BaseTraining(
            self.plan.model,
            Recipe(),
            tuple(Recipe().anchors(self.plan.anchors)),
            before=self.plan.fur.target_training(),
            after=self.plan.fur.exact_training(cell.requested),
        )

    def edit(self, cell: Cell, checkpoint: Path, tick: Tick) -> EditReport:
        """Load the model to begin with, let the method change it, and save what it left."""
        if self._engine is not None:
            self._engine.release()
        return_memory()
        start, exact = self.start_of(cell, tick), self.exact_of(cell)
        if start == self.target:
            self._require_target(self.target_fingerprint)
        model, tokenizer = load_model(start, device=self.device)

        def reference() -> Any:
            frozen, _ = load_model(start, device=self.device)
            return frozen.requires_grad_(False)

        context = EditContext(
            model=model,
            tokenizer=tokenizer,
            data=self.data_of(cell),
            seed=cell.seed,
            reference=reference,
            exact=exact,
            base=self.base_of(cell),
            progress=trimmed(tick),
        )
        card = self.plan.cards[cell.method]
        retrained = exact() if exact and needs_exact(card) else None
        # On CPU a loaded model is its file, mapped: what nobody reads before the end costs nothing.
        before = dict(load_model(start)[0].named_parameters())
        options = in_parts(cell.options, self._divisor(cell, "edit"))
        report = edit_model(card, context, options or cell.options, before=before)
        if is_main():
            save_model(context.model, tokenizer, checkpoint, source=start)
            self._saved = fingerprint(checkpoint)
        return _with_training_cost(report, retrained) if retrained else report

    def divide_batches(self, cell: Cell, half: Half, divisor: int) -> bool:
        """Read only one in `divisor` of a batch's texts at a time in this half of this cell, from
        now on. A training makes as many passes per step more.

        False where there are no batches, or none that can be divided so.
        """
        if half == "edit" and not in_parts(cell.options, divisor):
            return False
        self._divisors[cell.key, half] = divisor
        return True

    def division(self, cell: Cell, half: Half) -> str:
        """How the half's batches were divided, in words; "" where they are whole."""
        divisor = self._divisor(cell, half)
        if divisor == 1:
            return ""
        if half == "evaluate":
            return f"batches of 1/{divisor} of the usual size"
        named = in_parts(cell.options, divisor)
        return f"batch_size={named['batch_size']} accumulate={named['accumulate']}"

    def _divisor(self, cell: Cell, half: Half) -> int:
        return self._divisors.get((cell.key, half), 1)

    def identify(self) -> str:
        """The fingerprint of the checkpoint that `edit` wrote last, taken as it was written."""
        return self._saved

    def adopt(self, checkpoint: Path, identity: str) -> None:
        """Take over what another process has edited. Raises CorruptDataError if it is not that."""
        found = fingerprint(checkpoint)
        if found != identity:
            raise CorruptDataError(
                f"the edited weights are {found}, and {identity} were written",
                where=str(checkpoint),
            )
        self._saved = found

    @property
    def target(self) -> Path:
        """Folder of θ₀. Raises UnlearnBenchError before `prepare`."""
        if self._target is None:
            raise UnlearnBenchError("the target model is not prepared yet")
        return self._target

    @functools.cached_property
    def target_fingerprint(self) -> str:
        """θ₀'s, taken once: what the engine is given later must still be that."""
        return fingerprint(self.target)

    def _require_target(self, expected: str) -> None:
        """Raise CorruptDataError for a θ₀ that is not what the run began with: its cells would be
        of two models under one name.
        """
        if (found := fingerprint(self.target)) != expected:
            raise CorruptDataError(
                f"the target changed since the run began: {found}, and it was {expected}",
                where=str(self.target),
                next_step="run the command again when nothing writes there: what is finished of "
                "the old target stays under its own key",
            )

    def evaluate(self, cell: Cell, checkpoint: Path, tick: Tick) -> tuple[list[Sample], Any]:
        """Swap the checkpoint in, prove it, and ask every item; then θ₀, what it thinks of the
        texts.
        """
        began, cold = time.perf_counter(), self._engine is None
        tasks, protocols = self._items(), self.plan.protocols.values()
        positions = asked_positions(protocols, self.plan.suite.limits, tasks)
        samples, proof = self._ask(cell, checkpoint, tick, tasks, positions)
        self._start_seconds = self._loaded_at - began - proof.seconds if cold else 0.0
        return samples, dataclasses.asdict(proof)

    def start_seconds(self) -> float:
        """Of the last evaluation, until the engine held its first model: what proves that every
        model costs again.
        """
        return self._start_seconds

    def ask_some(
        self, cell: Cell, checkpoint: Path, only: Mapping[str, Collection[str]], tick: Tick
    ) -> list[Sample]:
        """As `evaluate`, some items of some tasks. only: item ids by subtask."""
        tasks = {name: task for name, task in self._items().items() if name in only}
        chosen = {
            name: [
                place
                for place, document in enumerate(task.eval_docs)
                if item_name(name, task, place, document) in only[name]
            ]
            for name, task in tasks.items()
        }
        return self._ask(cell, checkpoint, tick, tasks, chosen)[0]

    def _ask(
        self,
        cell: Cell,
        checkpoint: Path,
        tick: Tick,
        tasks: Mapping[str, Any],
        positions: Mapping[str, Sequence[int]],
    ) -> tuple[list[Sample], LoadProof]:
        if self._engine is None:
            self._engine = open_engine(self.plan.engine, self.plan.dtype, self.plan.engine_args)
        self._engine.batch_divisor = self._divisor(cell, "evaluate")
        tick("load the checkpoint", 0, 0)
        proof = self._engine.load(checkpoint, self._saved)
        self._loaded_at = time.perf_counter()
        samples = evaluate(
            self._engine,
            tasks,
            seed=cell.seed,
            positions=positions,
            progress=lambda done, total: tick("items", done, total),
        )
        return self._under_target(samples, tick), proof

    def _under_target(self, samples: list[Sample], tick: Tick) -> list[Sample]:
        """The samples, with what θ₀ thinks of their texts where a protocol reads that. The engine
        holds θ₀ then.
        """
        assert self._engine is not None
        read = tasks_under_target(self.plan.protocols.values())
        if not any(sample.task in read for sample in samples):
            return samples
        if self._saved != self.target_fingerprint:
            tick("load the target", 0, 0)
            self._engine.load(self.target, self.target_fingerprint)
        return score_under_target(
            self._engine,
            samples,
            read,
            progress=lambda done, total: tick("texts under the target", done, total),
        )

    def _items(self) -> dict[str, Any]:
        if self._tasks is None:
            suite = self.plan.suite
            self._tasks = load_tasks(
                list(self.plan.protocols.values()),
                limits=suite.limits,
                samples_per_prompt=suite.samples_per_prompt,
                paraphrases=suite.paraphrases,
                sources=self.plan.sources,
                part=suite.part,
            )
        return self._tasks

    def score(self, samples: Sequence[Sample], tick: Tick) -> list[ItemScore]:
        """Every protocol's per-item values; the judge's are missing where it fails."""
        items: list[ItemScore] = []
        judge = Judge(self.plan.judge, dict(self.plan.scorer), guard=self.plan.guard)
        for done, protocol in enumerate(self.plan.protocols.values()):
            tick(protocol.name, done, len(self.plan.protocols))
            items += self._judged(protocol, samples, judge)
        return items

    def score_second(self, samples: Sequence[Sample], tick: Tick) -> list[ItemScore]:
        """The judged values of every protocol that has any, by the second scorer."""
        assert self.plan.second is not None
        judged = [protocol for protocol in self.plan.protocols.values() if protocol.judged]
        items: list[ItemScore] = []
        for done, protocol in enumerate(judged):
            tick(f"{protocol.name}, second scorer", done, len(judged))
            items += self._judged(protocol, samples, self.plan.second)
        return judged_items(self.plan.protocols, items)

    def _judged(
        self, protocol: Protocol, samples: Sequence[Sample], judge: Judge
    ) -> list[ItemScore]:
        """Whatever a scorer raises makes its values missing: never zero, and never the whole cell,
        whose other numbers stand.
        """
        try:
            return score_samples(protocol, samples, judge.scorer, judge.guard)
        except Exception as error:
            name = judge.identity["name"]
            self.say(f"{name} failed on {protocol.name}, its values are missing: {error}")
            return score_samples(protocol, samples, None)

    def describe(self, checkpoint: Path) -> dict[str, Any]:
        """Identity of the checkpoint and of everything that answered or judged."""
        assert self._engine is not None
        return {
            "weights_fingerprint": self._saved,
            "config_sha256": config_hash(checkpoint),
            "tokenizer_sha256": tokenizer_hash(checkpoint),
            "template_sha256": template_hash(checkpoint),
            "target_fingerprint": self.target_fingerprint,
            "engine": self._engine.describe(),
            "decoding": {
                name: {**task.config.generation_kwargs, "repeats": task.config.repeats}
                for name, task in self._items().items()
                if task.OUTPUT_TYPE == "generate_until"
            },
            "scorer": dict(self.plan.scorer),
            **({"second_scorer": self.plan.second.identity} if self.plan.second else {}),
            "data": [dataclasses.asdict(origin) for origin in self.plan.origins.values()],
            "machine": machine(),
        }

    def reset(self) -> None:
        """Close the engine; the next evaluation starts a fresh one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def close(self) -> None:
        """Release the engine and the tasks."""
        self.reset()
        self._tasks = None


def in_parts(options: Mapping[str, Any], divisor: int) -> dict[str, Any]:
    """A step of as many texts in `divisor` times as many passes; {} where it has no such batches.

    Other texts of like length then stand together in a batch, so the model is not the same to the
    digit: what was done is in its cell's account and remark.
    """
    size, passes = options.get("batch_size", 0), options.get("accumulate", 0)
    if not size or not passes or size % divisor:
        return {}
    return {**options, "batch_size": size // divisor, "accumulate": passes * divisor}


def _with_training_cost(report: EditReport, exact: Path) -> EditReport:
    """Charge the method with the exact model's training, though it may come from the cache: the
    price of retraining is what every other method is compared with.
    """
    log = (read_manifest(exact) or {}).get("log", {})
    return dataclasses.replace(
        report,
        seconds=report.seconds + log.get("seconds", 0.0),
        forward_passes=report.forward_passes + log.get("forward_passes", 0),
        backward_passes=report.backward_passes + log.get("backward_passes", 0),
    )
