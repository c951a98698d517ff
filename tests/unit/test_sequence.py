"""Chains of stages: their keys, what is kept and computed again, and what a failure ends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.board.sequence import publish_sequence, render_terminal
from unlearn_bench.data.fur import load_fur
from unlearn_bench.errors import CancelledError, DivergedError, UsageError
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs import store
from unlearn_bench.runs.requests import parse_requests
from unlearn_bench.runs.sequence import (
    SequencePlan,
    SequenceResult,
    StageCell,
    checkpoint_of,
    execute_sequence,
    plan_sequence,
)
from unlearn_bench.runs.store import CHECKPOINT
from unlearn_bench.schema import ItemScore, Sample

FUR = load_fur()
PROTOCOL = find_protocol("fur")
DEFAULT = "forget:1/2,update,forget:2/2"


def sequence(
    output: Path,
    *methods: str,
    requests: str = DEFAULT,
    seeds: Sequence[int] = (0,),
    lenient: bool = False,
    **changes: Any,
) -> SequencePlan:
    cards: dict[str, Card] = {name: list_cards("method")[name] for name in ("noop", *methods)}
    suite = SimpleNamespace(name="requests", limits={}, part="test")
    whole = plan(
        output,
        *(cell(name, seed) for name in cards for seed in seeds),
        **{"protocols": {"fur": PROTOCOL}, "fur": FUR, "cards": cards, "suite": suite, **changes},
    )
    return plan_sequence(whole, parse_requests(requests, FUR), lenient=lenient)


class FurSteps(SmallSteps):
    """The model is the list of requests that its checkpoint was edited by, one after another."""

    def __init__(self, output: Path) -> None:
        super().__init__()
        self.output = output

    def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        report = super().edit(replace_label(cell), checkpoint, tick)
        done = []
        if isinstance(cell, StageCell):
            if cell.origin is not None:
                done = json.loads((checkpoint_of(self.output, cell.origin) / "state").read_text())
            done = [*done, cell.request.name]
        (checkpoint / "state").write_text(json.dumps(done))
        return report

    def evaluate(self, cell: Any, checkpoint: Path, tick: Any) -> tuple[list[Sample], Any]:
        self.calls.append(f"evaluate {getattr(cell, 'label', cell.method)}")
        done = json.loads((checkpoint / "state").read_text())
        forgotten, updated = requested(done, "forget"), requested(done, "update")
        late = requested(done[:1], "forget") if done[-1:] == ["forget:2/2"] else set()
        samples = []
        for subject in FUR.subjects:
            if subject.part == "test" and subject.role in ("forget", "update"):
                for fact in subject.facts:
                    samples.append(
                        Sample("fur_choice", f"{fact.id}:verbatim", "none", fact.question, ("x",),
                               {"forget_extraction_strength": strength(fact.id, forgotten, late),
                                "forget_choice_acc": 1.0}
                               if subject.role == "forget"
                               else {"update_efficacy": float(fact.id in updated)},
                               {"subject": subject.id})
                    )  # fmt: skip
        return samples, {"loaded": "x"}

    def score(self, samples: Sequence[Sample], tick: Any) -> list[ItemScore]:
        return score_samples(PROTOCOL, samples, None)


def replace_label(cell: Any) -> Any:
    """SmallSteps notes the method and the seed; here the stage matters too."""
    return SimpleNamespace(method=getattr(cell, "label", cell.method), seed="")


def requested(names: Sequence[str], kind: str) -> set[str]:
    requests = parse_requests(",".join(names), FUR) if names else ()
    return {fact for request in requests if request.kind == kind for fact in request.facts}


def strength(fact: str, forgotten: set[str], late: set[str]) -> float:
    """0 once forgotten, and a quarter of the first request back when the last one has run."""
    return 1.0 if fact not in forgotten else 0.25 if fact in late else 0.0


def run(
    whole: SequencePlan, steps: SmallSteps | None = None, screen: Screen | None = None
) -> SequenceResult:
    used = steps or FurSteps(whole.plan.output)
    return execute_sequence(whole, lambda: used, screen or Screen())


def keys(whole: SequencePlan) -> list[str]:
    (chain,) = whole.chains
    return [stage.key for stage in chain]


def edits(steps: SmallSteps) -> list[str]:
    return [call.removeprefix("edit ").strip() for call in steps.calls if call.startswith("edit")]


def rows(whole: SequencePlan, result: SequenceResult) -> dict[tuple[str, str, str], dict[str, str]]:
    _, paths = publish_sequence(whole, result)
    table = csv.DictReader(io.StringIO(paths[0].read_text()))
    return {(row["method"], row["seed"], row["stage"]): row for row in table}


def test_a_request_is_in_the_keys_of_its_own_and_all_later_stages(tmp_path: Path) -> None:
    usual = keys(sequence(tmp_path, "llm_surgery"))
    assert len(set(usual)) == 3
    other_third = keys(sequence(tmp_path, "llm_surgery", requests="forget:1/2,update,forget:2/4"))
    assert other_third[:2] == usual[:2]
    assert other_third[2] != usual[2]
    other_first = keys(sequence(tmp_path, "llm_surgery", requests="forget:2/4,update,forget:1/2"))
    assert not set(other_first) & set(usual)
    swapped = keys(sequence(tmp_path, "llm_surgery", requests="update,forget:1/2,forget:2/2"))
    assert not set(swapped) & set(usual)


def test_what_determines_a_plain_cell_determines_every_stage(tmp_path: Path) -> None:
    usual = sequence(tmp_path, "npo", seeds=(0, 1))
    first, second = ([stage.key for stage in chain] for chain in usual.chains)
    assert not set(first) & set(second)
    assert [stage.options for stage in usual.chains[0]] == [{}, {}, {}]


def test_how_a_request_is_written_is_in_no_key(tmp_path: Path) -> None:
    assert keys(sequence(tmp_path, "npo", requests="forget")) == keys(
        sequence(tmp_path, "npo", requests="forget:1/1")
    )


def test_the_exact_models_key_follows_what_it_is_trained_on(tmp_path: Path) -> None:
    (chain,) = sequence(tmp_path, "exact_unlearning").chains
    texts = {stage.determinants["request"]["exact_texts_sha256"] for stage in chain}
    assert len(texts) == 3
    assert store.digest(FUR.exact_training()) in texts  # after the last request, as without stages
    (chain,) = sequence(tmp_path, "npo").chains
    assert "exact_texts_sha256" not in chain[0].determinants["request"]


def test_each_stage_edits_what_the_one_before_left(tmp_path: Path) -> None:
    whole, steps = sequence(tmp_path, "llm_surgery"), FurSteps(tmp_path)
    result = run(whole, steps)
    assert edits(steps) == [
        "noop seed 0",
        "llm_surgery seed 0 stage 1 forget:1/2",
        "llm_surgery seed 0 stage 2 update",
        "llm_surgery seed 0 stage 3 forget:2/2",
    ]
    assert [r.record.status for r in result.computed] == ["success"] * 4
    for done in result.computed:
        names = {path.name for path in done.folder.iterdir()}
        assert {"record.json", "account.json", "items.parquet", "provenance.json"} <= names
    assert not list(tmp_path.rglob(CHECKPOINT))


def test_a_second_run_computes_nothing_and_opens_no_engine(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "npo", "llm_surgery")
    first = run(whole)

    def never() -> SmallSteps:
        raise AssertionError("a finished run must not open the engine")

    again = execute_sequence(whole, never, Screen())
    assert [r.record for r in again.computed] == [r.record for r in first.computed]
    assert rows(whole, again) == rows(whole, first)


def test_checkpoints_stay_when_they_are_asked_for(tmp_path: Path) -> None:
    run(sequence(tmp_path, "llm_surgery", keep_checkpoints=True))
    assert len(list(tmp_path.rglob(CHECKPOINT))) == 4


class Broken(FurSteps):
    """Fails, or is interrupted, in one stage."""

    def __init__(self, output: Path, stage: int, error: BaseException, method: str) -> None:
        super().__init__(output)
        self.stage, self.error, self.method = stage, error, method

    def evaluate(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        if (getattr(cell, "stage", 0), cell.method) == (self.stage, self.method):
            raise self.error
        return super().evaluate(cell, checkpoint, tick)


def test_a_failed_stage_ends_its_chain_and_no_other(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "fine_tuning", "llm_surgery")
    error = DivergedError("the loss is not finite", step=3, last_losses={})
    result = run(whole, Broken(tmp_path, 2, error, "fine_tuning"))
    broken, other = result.chains
    assert [r.record.status for r in broken] == ["success", "diverged", "not_run"]
    assert [r.record.status for r in other] == ["success"] * 3
    stored = store.read_record(broken[2].folder, broken[2].cell.key)
    assert stored is not None
    assert (stored.status, stored.reason) == ("not_run", "stage 2 (update) diverged")
    table = rows(whole, result)
    assert table["fine_tuning", "0", "3"]["status"] == "not_run"
    assert table["fine_tuning", "0", "3"]["forget:1/2.forget_extraction_strength"] == ""
    assert table["fine_tuning", "0", "1"]["forget:1/2.forget_extraction_strength"] == "0.0"


def test_a_chain_goes_on_from_its_last_kept_checkpoint(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "llm_surgery")
    run(whole, Broken(tmp_path, 3, DivergedError("no", step=1, last_losses={}), "llm_surgery"))
    (kept,) = tmp_path.rglob(CHECKPOINT)
    assert kept == checkpoint_of(tmp_path, whole.chains[0][1])  # stage 2 waits for stage 3
    steps = FurSteps(tmp_path)
    result = run(whole, steps)
    assert edits(steps) == ["llm_surgery seed 0 stage 3 forget:2/2"]
    assert [r.record.status for r in result.chains[0]] == ["success"] * 3
    assert not list(tmp_path.rglob(CHECKPOINT))


def test_an_interrupted_chain_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "llm_surgery")
    with pytest.raises(CancelledError):
        run(whole, Broken(tmp_path, 2, KeyboardInterrupt(), "llm_surgery"))
    (kept,) = tmp_path.rglob(CHECKPOINT)
    assert kept == checkpoint_of(tmp_path, whole.chains[0][0])
    steps = FurSteps(tmp_path)
    run(whole, steps)
    assert [name.split("stage ")[1][0] for name in edits(steps)] == ["2", "3"]


def test_a_stage_that_the_method_cannot_serve_is_recorded_and_passed_through(
    tmp_path: Path,
) -> None:
    whole, steps = sequence(tmp_path, "npo"), FurSteps(tmp_path)
    result = run(whole, steps)
    assert [name[-12:] for name in edits(steps)[1:]] == ["1 forget:1/2", "3 forget:2/2"]
    record = store.read_record(result.chains[0][1].folder, whole.chains[0][1].key)
    assert record is not None
    assert record.status == "not_applicable"
    assert "npo needs the set forget, empty in a request to update" in record.reason
    assert any("not applicable" in note for note in whole.plan.notes)
    table = rows(whole, result)
    second = table["npo", "0", "2"]
    assert (second["status"], second["reason"]) == ("not_applicable", record.reason)
    assert second["forget:1/2.forget_extraction_strength"] == "0.0"  # as stage 1 left it
    assert second["forget:1/2.relearned"] == "0.0"
    assert second["update.lost"] == ""
    assert table["npo", "0", "3"]["update.lost"] == ""  # never served: nothing to lose
    assert second["edit_seconds"] == ""


def test_the_table_follows_each_request_through_all_stages(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "llm_surgery")
    result = run(whole)
    table = rows(whole, result)
    assert list(table) == [("noop", "0", "0"), *(("llm_surgery", "0", str(n)) for n in (1, 2, 3))]
    found = {
        name: [row[name] for row in table.values()]
        for name in (
            "forget:1/2.forget_extraction_strength",
            "update.update_efficacy",
            "forget:2/2.forget_extraction_strength",
            "forget:1/2.relearned",
            "update.lost",
            "forget:2/2.relearned",
        )
    }
    assert found == {
        "forget:1/2.forget_extraction_strength": ["1.0", "0.0", "0.0", "0.25"],
        "update.update_efficacy": ["0.0", "0.0", "1.0", "1.0"],
        "forget:2/2.forget_extraction_strength": ["1.0", "1.0", "1.0", "0.0"],
        "forget:1/2.relearned": ["", "", "0.0", "0.25"],
        "update.lost": ["", "", "", "0.0"],
        "forget:2/2.relearned": ["", "", "", ""],
    }
    last = table["llm_surgery", "0", "3"]
    assert last["forget:1/2.forget_extraction_strength.n"] == "40"
    assert last["forget:1/2.forget_extraction_strength.delta"] == "-0.75"
    assert last["cell_key"] == whole.chains[0][2].key
    assert "fur.forget_extraction_strength" not in last
    assert "fur.retain_stranger_extraction_strength" in last


def test_seeds_are_chains_of_their_own_with_a_mean(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "npo", seeds=(0, 1))
    table = rows(whole, run(whole))
    assert [key for key in table if key[0] == "npo"] == [
        ("npo", seed, stage) for seed in ("0", "1", "mean") for stage in ("1", "2", "3")
    ]
    assert table["npo", "mean", "2"]["status"] == "not_applicable"
    assert table["npo", "mean", "3"]["forget:1/2.relearned"] == "0.25"


def test_every_rendering_says_what_was_not_applicable_or_not_run(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "npo", "fine_tuning")
    error = DivergedError("it diverged", step=1, last_losses={})
    result = run(whole, Broken(tmp_path, 2, error, "fine_tuning"))
    board, paths = publish_sequence(whole, result)
    assert [path.name for path in paths] == ["sequence.csv", "sequence.json", "sequence.md"]
    screen = Screen()
    screen.console.print(render_terminal(board, 100))
    for text in (paths[2].read_text().replace("\\", ""), screen.text):
        assert "2 update, n/a" in text
        assert "fine_tuning stage 2 update: diverged" in text
        assert "fine_tuning stage 3 forget:2/2: not_run. stage 2 (update) diverged" in text
    content = json.loads(paths[1].read_text())
    assert [request["name"] for request in content["requests"]] == DEFAULT.split(",")
    assert content["rows"][0]["stage"] == 0
    by_stage = [row for row in content["rows"] if row["method"] == "npo"]
    assert by_stage[2]["scores"]["forget:1/2.relearned"]["value"] == 0.25
    assert all(str(tmp_path) not in path.read_text() for path in paths)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    whole = sequence(tmp_path, "npo")
    first = [path.read_bytes() for path in publish_sequence(whole, run(whole))[1]]
    assert [path.read_bytes() for path in publish_sequence(whole, run(whole))[1]] == first


def test_another_suite_has_files_of_its_own(tmp_path: Path) -> None:
    suite = SimpleNamespace(name="quick", limits={}, part="test")
    whole = sequence(tmp_path, "npo", suite=suite)
    assert publish_sequence(whole, run(whole))[1][0].name == "sequence-quick.csv"


def test_a_method_that_serves_no_request_is_refused_or_left_out_with_a_note(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model_surgery is there to detoxify"):
        sequence(tmp_path, "model_surgery", "npo")
    with pytest.raises(UsageError, match="npo needs the set forget"):
        sequence(tmp_path, "npo", requests="update")
    whole = sequence(tmp_path, "model_surgery", "npo", lenient=True)
    assert [chain[0].method for chain in whole.chains] == ["npo"]
    assert any(note.startswith("left out: model_surgery") for note in whole.plan.notes)


def test_a_suite_that_does_not_ask_a_request_is_refused(tmp_path: Path) -> None:
    few = SimpleNamespace(name="few", limits={"fur": 4}, part="test")
    with pytest.raises(UsageError, match=r"no fact of 'forget:1/2' is among the 4"):
        sequence(tmp_path, "npo", suite=few)
    with pytest.raises(UsageError, match="does not ask fur"):
        sequence(tmp_path, "npo", protocols={})


def test_a_later_stage_that_was_done_before_keeps_its_record(tmp_path: Path) -> None:
    """Stage 1's record is damaged and cannot be computed again: stage 3's numbers stand on disk."""
    whole = sequence(tmp_path, "llm_surgery")
    first = run(whole)
    stage1, _, stage3 = first.chains[0]
    (stage1.folder / "record.json").write_bytes(b"{")
    error = DivergedError("no", step=1, last_losses={})
    result = run(whole, Broken(tmp_path, 1, error, "llm_surgery"))
    assert [r.record.status for r in result.chains[0]] == ["diverged", "not_run", "not_run"]
    assert store.read_record(stage3.folder, stage3.cell.key) == stage3.record
