"""Open what a configuration names (data, model, scorer) and put the plan together.

Cheap refusals come first: names, options and paths before data, data before the model.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.config import RunConfig, Suite
from unlearn_bench.data.behaviour import load_behaviour
from unlearn_bench.data.fur import FurSets, Part
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.public import EditSet
from unlearn_bench.data.sources import (
    FUR,
    PUBLIC_SETS,
    load_documents,
    load_edit_set,
    load_validation,
    resolve_task_dataset,
    tasks_folder,
)
from unlearn_bench.engine.base import check_engine_args, resolve_dtype, resolve_engine
from unlearn_bench.errors import UsageError
from unlearn_bench.methods.contract import EditData
from unlearn_bench.methods.needs import check_names, check_sets, missing_sets
from unlearn_bench.methods.options import resolve_options
from unlearn_bench.models.fingerprint import (
    config_hash,
    stored_tensors,
    template_hash,
    tokenizer_hash,
)
from unlearn_bench.models.open import open_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.protocols.catalog import MINI, Protocol, list_protocols
from unlearn_bench.protocols.task_files import check_task_file, definition_sha256, is_task_file
from unlearn_bench.registry import Card, load_function
from unlearn_bench.runs.held_out import check_held_out, prompts_of
from unlearn_bench.runs.judge import (
    load_guard,
    load_judges,
    scorer_candidates,
    scorer_names,
    with_guard,
)
from unlearn_bench.runs.plan import (
    CHECKPOINT_BYTES,
    Plan,
    build_cells,
    check_disk,
    check_output,
    check_settings,
    choose_methods,
    choose_suite,
    leaderboard_folder,
)
from unlearn_bench.runs.progress import Reporter
from unlearn_bench.runs.provenance import PACKAGE, code_sha256, file_sha256, versions
from unlearn_bench.runs.store import digest
from unlearn_bench.runs.tuned import load_tuned
from unlearn_bench.schema import Origin
from unlearn_bench.training.parallel import processes
from unlearn_bench.training.prepare import Recipe

if TYPE_CHECKING:
    from unlearn_bench.protocols.harness import HarnessTasks

WORDING: Any = {  # parts of a protocol that move no number of a cell
    "against_exact": True,
    "folder": True,
    "harness": True,
    "definition": True,  # by its hash, below
    "code_allowed": True,
    "title": True,
    "description": True,
    "headline": True,
    "metrics": {"__all__": {"description", "in_mini"}},
}
FUR_SETS = tuple(field.name for field in dataclasses.fields(FurSets))
BEHAVIOUR_NEEDS = frozenset({"toxic", "clean", "pairs", "benign", "refusals"})
BEHAVIOUR_COMMENTS = 2000  # per class; no built-in method reads more
DATA_SEED = 0  # which comments are drawn is part of the data, not of a cell's seed
EVALUATION_CODE = (
    "engine/evaluate.py",
    "engine/lm.py",
    "engine/under_target.py",
    "protocols/scoring.py",
    "protocols/documents.py",
    "protocols/stock.py",
    "protocols/refusal.py",
    "compare/aggregate.py",
)


def resolve_plan(config: RunConfig, reporter: Reporter, *, part: Part = "test") -> Plan:
    """Everything `config` asks for, opened and checked; nothing is trained and no engine starts.

    part: which items the suite must ask; "validation" is for tuning. Raises the UnlearnBenchError
    of the first thing that cannot be done.
    """
    output = check_output(config.output)
    cards, notes = choose_methods(config.methods, own_target=config.target is not None)
    suite = choose_suite(config, part, (FUR, *PUBLIC_SETS))
    sources = SourceOptions(data_folder=data_folder(config.data), offline=config.offline)
    _check_tasks(suite, sources, allow_code=config.allow_task_code)
    _check_guard(config.guard, suite)
    check_settings(config.set, cards)
    scorer_cards = [
        scorer_candidates(name, config.scorer_checkpoint) for name in scorer_names(config.scorer)
    ]
    engine = resolve_engine(config.engine)
    dtype = resolve_dtype(config.dtype, engine)
    check_engine_args(engine, config.engine_args)
    for card in cards.values():
        check_names(card)
    cards, broken = _importable(cards, config.methods)
    tuned = load_tuned(config.tuned, cards)
    options = {
        name: resolve_options(card, tuned.options.get(name, {}) | config.set.get(name, {}))
        for name, card in cards.items()
    }
    with reporter.step("find the data"):
        protocols, origins, data_notes = _find_tasks(suite, sources)
        ours = protocols
        others = _find_others(suite, sources, ours, allow_code=config.allow_task_code)
        if others is not None:
            protocols, origins = {**ours, **others.protocols}, {**origins, **others.origins}
            data_notes += others.notes

        def texts() -> list[str]:
            return [*prompts_of(suite, ours, sources), *(others.texts() if others else ())]

        fur = load_edit_set(config.edit_set, sources)
        own_target = config.target is not None
        data, anchors = _edit_data(cards, fur, suite, texts, sources, own_target=own_target)
        cards, left_out = _serve(cards, config.methods, data)
        for name, card in cards.items():
            check_sets(card, options[name], data)
    with reporter.step("open the model"):
        model = open_model(config.target or config.model, offline=config.offline)
    tuned.check_model(model.fingerprint, model.label)
    parameters = count_parameters(model.folder)
    kept = config.keep_checkpoints or processes() > 1  # several edit all before any is evaluated
    check_disk(output, parameters * CHECKPOINT_BYTES, len(cards), keep=kept)
    with reporter.step("load the scorer"):
        judge, second = load_judges(
            scorer_cards, config.scorer_checkpoint, protocols, config.offline
        )
        if config.guard:
            judge = with_guard(judge, load_guard(config.guard, offline=config.offline))
        known = judge.identity["attributes"].split()
        protocols = {name: protocol.judged_by(known) for name, protocol in protocols.items()}
    common = {
        "target": _target_facts(model, fur, anchors, own_target=own_target),
        "suite": _suite_facts(suite, protocols, origins),
        "scorer": judge.identity,
        **({"second_scorer": second.identity} if second else {}),
        "engine": {
            "name": engine,
            "dtype": dtype,
            **({"args": config.engine_args} if config.engine_args else {}),
        },
        "versions": versions(engine),
        "evaluation_code_sha256": _evaluation_code(engine, protocols),
        **({"processes": processes()} if processes() > 1 else {}),
    }
    winners = tuned.winners(cards, options)
    judge_notes = (*judge.notes, *(second.notes if second else ()))
    return Plan(
        model=model,
        own_target=own_target,
        suite=suite,
        protocols=protocols,
        origins=origins,
        parameters=parameters,
        cards=cards,
        cells=build_cells(cards, options, _made_of(cards, data), config.seeds, common),
        data=data,
        fur=fur,
        anchors=anchors,
        sources=sources,
        engine=engine,
        dtype=dtype,
        engine_args=config.engine_args,
        judge=judge.scorer,
        guard=judge.guard,
        scorer=judge.identity,
        output=output,
        leaderboards=leaderboard_folder(config, model.name),
        keep_checkpoints=config.keep_checkpoints,
        second=second,
        tuned=winners,
        tuning=tuned.facts(),
        notes=(
            *notes,
            *broken,
            *data_notes,
            *left_out,
            *judge_notes,
            *tuned.notes(cards, options, winners),
        ),
    )


def _importable(cards: dict[str, Card], asked: Sequence[str]) -> tuple[dict[str, Card], list[str]]:
    """Without the plugins of `all` that fail at import, and notes. Raises UsageError for one that
    was asked for by name.
    """
    kept, notes = {}, []
    for name, card in cards.items():
        try:
            load_function(card)
        except UsageError as error:
            if name in asked or str(card.file) in asked:
                raise
            notes.append(f"{name} left out: {error.what}")
            continue
        kept[name] = card
    return kept, notes


def _serve(
    cards: dict[str, Card], asked: Sequence[str], data: EditData
) -> tuple[dict[str, Card], list[str]]:
    """Without the methods of `all` that need a set which the edit set does not have, and notes."""
    missing = {
        name: [need for need in missing_sets(card, data) if need in FUR_SETS]
        for name, card in cards.items()
        if name not in asked
    }
    lacking = {name: sets for name, sets in missing.items() if sets}
    notes = [
        f"{name} left out: it needs {', '.join(sets)}, which the edit set does not have"
        for name, sets in lacking.items()
    ]
    return {name: card for name, card in cards.items() if name not in lacking}, notes


def data_folder(folder: Path | None) -> Path | None:
    """The user's folder of data sets. Raises UsageError when there is none of that name."""
    if folder is not None and not os.path.isdir(folder.expanduser()):
        raise UsageError(f"there is no data folder {folder}", next_step="check the path of --data")
    return folder.expanduser() if folder is not None else None


def _find_tasks(
    suite: Suite, sources: SourceOptions
) -> tuple[dict[str, Protocol], dict[str, Origin], list[str]]:
    """The protocols that will run, with real data or the mini set's, and where the data are from.

    Raises MissingDataError when neither answers, and for a validation suite CorruptDataError when
    it would ask a test item.
    """
    known = list_protocols()
    protocols, origins, notes = {}, {}, []
    load = load_validation if suite.part == "validation" else load_documents
    for task in filter(known.__contains__, suite.tasks):
        protocol = known[task]
        dataset = resolve_task_dataset(protocol.dataset, sources, suite.part)
        if dataset != protocol.dataset:
            protocol = known[f"{task}{MINI}"]
            notes.append(f"{task}: no source has the real data, our mini set stands in")
        protocols[protocol.name] = protocol
        origins[protocol.name] = load(dataset, sources).origin
    if suite.part == "validation":
        check_held_out(suite, protocols, sources)
    return protocols, origins, notes


def _check_tasks(suite: Suite, sources: SourceOptions, *, allow_code: bool) -> None:
    """Raise for a task that nobody knows, and for a task file that would run code not allowed."""
    known = list_protocols()
    if all(task in known for task in suite.tasks):
        return
    from unlearn_bench.protocols.harness import check_task_names  # lm-eval takes seconds to import

    for task in filter(is_task_file, suite.tasks):
        check_task_file(task, allow_code=allow_code)
    check_task_names(suite.tasks, known, sources.cache)
    if suite.part == "validation":
        raise UsageError(
            "lm-eval's own tasks keep no items for choosing options",
            next_step="leave them out of the suite",
        )


def _check_guard(guard: str | None, suite: Suite) -> None:
    """Raise UsageError for a guard that nothing would be shown to."""
    known = list_protocols()
    if guard and not any(known[task].guarded for task in suite.tasks if task in known):
        guarded = (name for name, own in known.items() if own.guarded and not own.mini)
        raise UsageError(
            f"--guard {guard!r} would judge nothing: the suite {suite.name} has no task for it",
            next_step=f"add one: --tasks {','.join(guarded)}",
        )


def _find_others(
    suite: Suite, sources: SourceOptions, ours: Mapping[str, Protocol], *, allow_code: bool
) -> HarnessTasks | None:
    """lm-eval's own tasks of the suite, None without any. Raises UsageError for a name of ours."""
    names = [task for task in suite.tasks if task not in list_protocols()]
    if not names:
        return None
    from unlearn_bench.protocols.harness import load_harness_tasks

    others = load_harness_tasks(names, sources, allow_code=allow_code)
    taken = {*list_protocols(), *(name for own in ours.values() for name in own.subtasks)}
    if clash := taken & others.protocols.keys():
        raise UsageError(
            f"{', '.join(sorted(clash))} is the name of a task of ours as well",
            next_step="leave out one of the two; give a task file another name",
        )
    return others


def _edit_data(
    cards: Mapping[str, Card],
    fur: EditSet,
    suite: Suite,
    texts: Callable[[], Sequence[str]],
    sources: SourceOptions,
    *,
    own_target: bool,
) -> tuple[EditData, tuple[str, ...]]:
    """What the methods may read, and the comments on which the target is held to its base.

    texts: what models are asked, which no behaviour text may repeat. Behaviour texts only where a
    method of this run, or the target's training, reads them. Tuning edits the subjects of both
    parts: docs/design/tuning.md says why.
    """
    parts: tuple[Part, ...] = ("test", "validation") if suite.part == "validation" else ("test",)
    sets = {
        name: tuple(text for part in parts for text in getattr(fur.edit_sets(part), name))
        for name in FUR_SETS
    }
    needed = any(BEHAVIOUR_NEEDS & set(card.facts.get("needs", ())) for card in cards.values())
    if own_target and not needed:
        return EditData(**sets, origins=(fur.origin,)), ()
    behaviour = load_behaviour(
        sources,
        evaluation_prompts=texts(),
        n_comments=BEHAVIOUR_COMMENTS,
        seed=DATA_SEED,
    )
    data = EditData(
        **sets,
        toxic=behaviour.toxic,
        clean=behaviour.clean,
        pairs=behaviour.pairs,
        benign=behaviour.benign,
        refusals=behaviour.refusals,
        origins=(fur.origin, *behaviour.origins),
    )
    return data, behaviour.anchors


def _made_of(cards: Mapping[str, Card], data: EditData) -> dict[str, dict[str, Any]]:
    """What each method's edit is made of beside its options: code, and the sets that it reads.

    A method's key must not depend on which other methods run beside it.
    """
    facts = {}
    for name, card in cards.items():
        read = sorted(BEHAVIOUR_NEEDS & set(card.facts.get("needs", ())))
        facts[name] = {
            "code_sha256": code_sha256([card.file, PACKAGE / "methods" / "run.py"]),
            "data_sha256": {part: digest(getattr(data, part)) for part in read},
        }
    return facts


def _target_facts(
    model: OpenedModel, fur: EditSet, anchors: Sequence[str], *, own_target: bool
) -> dict[str, Any]:
    """What θ₀ is made of: the user's weights, or the base with the recipe and its texts."""
    facts: dict[str, Any] = {
        "fingerprint": model.fingerprint,
        "config": config_hash(model.folder),
        "tokenizer": tokenizer_hash(model.folder),
        "template": template_hash(model.folder),
        "edit_set": {"name": fur.origin.dataset, "sha256": fur.origin.sha256},
    }
    if own_target:
        return facts | {"own": True}
    code = code_sha256([PACKAGE / "training" / "prepare.py"])
    facts |= {"recipe": dataclasses.asdict(Recipe()), "code_sha256": code}
    return facts | {"anchors_sha256": digest(anchors)}


def _suite_facts(
    suite: Suite, protocols: Mapping[str, Protocol], origins: Mapping[str, Origin]
) -> dict[str, Any]:
    part = {"part": suite.part} if suite.part != "test" else {}
    return {
        **part,
        "samples_per_prompt": suite.samples_per_prompt,
        "paraphrases": suite.paraphrases,
        "tasks": {
            name: {
                "limit": suite.limits.get(name, suite.limits.get(protocol.base)),
                "data_sha256": origins[name].sha256,
                "data_revision": origins[name].revision,
                "protocol_sha256": protocol_digest(protocol),
                **definition_facts(protocol),
            }
            for name, protocol in protocols.items()
        },
    }


def protocol_digest(protocol: Protocol) -> str:
    """Hash of all that can move a number of the task's.

    A metric's `guard` and `only` count where there is one: they came after boards were published,
    and a field that says nothing must not part old rows from new.
    """
    facts = protocol.model_dump(mode="json", exclude=WORDING)
    for metric in facts["metrics"].values():
        for field in ("guard", "only"):
            if not metric[field]:
                del metric[field]
    return digest(facts)


def definition_facts(protocol: Protocol) -> dict[str, str]:
    """Hash of the files that define a task of lm-eval's own; nothing for ours."""
    files = protocol.definition
    return {"definition_sha256": definition_sha256(files)} if files else {}


def _evaluation_code(engine: str, protocols: Mapping[str, Protocol]) -> str:
    """Hash of all code and task definitions that stand between a checkpoint and its scores."""
    own = [PACKAGE / name for name in (*EVALUATION_CODE, f"engine/{engine}_engine.py")]
    ours = [protocol for protocol in protocols.values() if not protocol.harness]
    folders = {folder for protocol in ours for folder in protocol.folders}
    if any(protocol.dataset in PUBLIC_SETS for protocol in protocols.values()):
        folders.add(tasks_folder() / FUR)  # whose definitions theirs include
    tasks = {
        file
        for folder in folders
        for pattern in ("*.yaml", "*.py")
        for file in folder.glob(pattern)
        if file.name != "protocol.yaml"  # its wording may change; the rest is hashed as read
    }
    definitions = sorted(file_sha256(file) for file in tasks)
    return digest([code_sha256(own), definitions])


def count_parameters(folder: Path) -> int:
    """Number of stored scalars, from the headers alone; tied tensors are stored once."""
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(folder))
