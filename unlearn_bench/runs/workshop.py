"""What a run was measured with, found again: its tasks, its data and its scorer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents, load_validation
from unlearn_bench.engine.evaluate import load_tasks
from unlearn_bench.errors import UnknownNameError, UnlearnBenchError
from unlearn_bench.protocols.catalog import Protocol, find_protocol
from unlearn_bench.protocols.harness import HarnessTasks, load_harness_tasks
from unlearn_bench.runs.judge import (
    NONE,
    Judge,
    load_guard,
    load_judge,
    scorer_candidates,
    with_guard,
    without_guard,
)
from unlearn_bench.runs.resolve import definition_facts, protocol_digest
from unlearn_bench.runs.store import canonical_json


def is_aggregate(protocol: Protocol) -> bool:
    """Whether it is a group of lm-eval's, whose items are those of its tasks."""
    return bool(protocol.harness) and protocol.subtasks != (protocol.name,)


class Workshop:
    """Tasks, data and scorers of the cells seen so far: the cells of one run share them."""

    def __init__(
        self,
        sources: SourceOptions,
        scorer_checkpoint: Path | None,
        *,
        allow_code: bool,
        guard: str | None = None,
    ) -> None:
        self.sources, self.scorer_checkpoint = sources, scorer_checkpoint
        self.guard = guard
        self.allow_code = allow_code
        self._tasks: dict[bytes, dict[str, Any] | str] = {}
        self._judges: dict[bytes, Judge | None] = {}
        self._harness: dict[str, HarnessTasks | str] = {}

    def protocols(self, plan: Mapping[str, Any]) -> tuple[dict[str, Protocol], list[str]]:
        """Those of a cell's tasks that are here as they were, and why the others are not.

        plan: the content of the cell's plan.json.
        """
        facts, harness = plan["determinants"], plan.get("harness", {})
        attributes = facts["scorer"].get("attributes", "").split()
        found: dict[str, Protocol] = {}
        unknown = []
        for name, task in facts["suite"]["tasks"].items():
            own = self._protocol(name, harness.get(name, ""), attributes)
            if isinstance(own, str):
                unknown.append(f"{name}: {own}")
            elif protocol_digest(own) != task["protocol_sha256"]:
                unknown.append(f"{name}: scored under another version of its protocol")
            elif definition_facts(own).get("definition_sha256") != task.get("definition_sha256"):
                unknown.append(f"{name}: lm-eval's definition, or the task file, is another here")
            else:
                found[name] = own
        return found, unknown

    def _protocol(self, name: str, harness: str, attributes: list[str]) -> Protocol | str:
        if harness:
            loaded = self._load_harness(harness)
            return loaded if isinstance(loaded, str) else loaded.protocols[name]
        try:
            return find_protocol(name).judged_by(attributes)
        except UnknownNameError:
            return "no task of ours here"

    def _load_harness(self, name: str) -> HarnessTasks | str:
        if name not in self._harness:
            try:
                self._harness[name] = load_harness_tasks(
                    [name], self.sources, allow_code=self.allow_code
                )
            except UnlearnBenchError as error:
                self._harness[name] = error.what
        return self._harness[name]

    def tasks(self, protocol: Protocol, suite: Mapping[str, Any]) -> dict[str, Any] | str:
        """The lm-eval tasks of one of the run's with the cell's limits, or why there are none."""
        facts = {**suite, "tasks": suite["tasks"][protocol.name]}
        key = canonical_json([protocol.name, protocol.harness, facts])
        if key not in self._tasks:
            try:
                self._tasks[key] = self._load(protocol, suite)
            except UnlearnBenchError as error:
                self._tasks[key] = error.what
        return self._tasks[key]

    def _load(self, protocol: Protocol, suite: Mapping[str, Any]) -> dict[str, Any] | str:
        facts, part = suite["tasks"][protocol.name], suite.get("part", "test")
        if self._data_sha256(protocol, part) != facts["data_sha256"]:
            return "the data here are not those of the run"
        loaded = load_tasks(
            [protocol],
            limits={protocol.name: facts["limit"]},
            samples_per_prompt=suite["samples_per_prompt"],
            paraphrases=suite["paraphrases"],
            sources=self.sources,
            part=part,
        )
        return {name: loaded[name] for name in protocol.subtasks}

    def _data_sha256(self, protocol: Protocol, part: str) -> str:
        if protocol.harness:
            loaded = self._load_harness(protocol.harness)
            return "" if isinstance(loaded, str) else loaded.origins[protocol.name].sha256
        load = load_validation if part == "validation" else load_documents
        return load(protocol.dataset, self.sources).origin.sha256

    def judge(self, identity: Mapping[str, str], protocols: Mapping[str, Protocol]) -> Judge | None:
        """The scorer, and the guard, with exactly this identity, else None."""
        key = canonical_json(identity)
        if key not in self._judges:
            found = self._load_judge(identity["name"], protocols)
            same = found is not None and canonical_json(found.identity) == key
            self._judges[key] = found if same else None
        return self._judges[key]

    def _load_judge(self, name: str, protocols: Mapping[str, Protocol]) -> Judge | None:
        own, offline = without_guard(name), self.sources.offline
        cards = scorer_candidates(own) if own != NONE else []
        judge = load_judge(cards, self.scorer_checkpoint, protocols, offline)
        if own == name or self.guard is None:
            return judge if own == name else None
        try:
            return with_guard(judge, load_guard(self.guard, offline=offline))
        except UnlearnBenchError:
            return None
