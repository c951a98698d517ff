"""From a configuration to a plan on a tiny model: what is in the keys, and who judges."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.data_files import REAL_DATA, needs_real_data
from tests.unit.test_execute import Screen
from tests.unit.test_scoring import ThreatJudge
from unlearn_bench.config import RunConfig
from unlearn_bench.errors import ScorerError, UsageError
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.registry import Card
from unlearn_bench.runs import judge, resolve, steps
from unlearn_bench.runs.plan import Plan
from unlearn_bench.schema import Example, Sample


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def resolved(model: Path, **changes: Any) -> Plan:
    given = {
        "model": str(model),
        "methods": ("noop",),
        "tasks": ("fur",),
        "suite": "smoke",
        "offline": True,
        "engine": "transformers",
        "scorer": "profanity_check",
    }
    return resolve.resolve_plan(RunConfig(**{**given, **changes}), Screen())


def keys(plan: Plan) -> dict[str, str]:
    return {cell.method: cell.key for cell in plan.cells}


def test_a_cell_does_not_depend_on_what_else_is_run(tiny_folder: Path) -> None:
    """The board of one method and the board of all must use the same stored cells."""
    alone = keys(resolved(tiny_folder))
    beside = keys(resolved(tiny_folder, methods=("noop", "model_surgery")))
    assert beside["noop"] == alone["noop"]


def test_the_key_holds_for_another_output_but_not_for_another_limit(
    tiny_folder: Path, tmp_path: Path
) -> None:
    usual = keys(resolved(tiny_folder))
    assert keys(resolved(tiny_folder, output=tmp_path / "other")) == usual
    assert keys(resolved(tiny_folder, limit=3)) != usual
    assert keys(resolved(tiny_folder, dtype="bfloat16")) != usual


def test_another_base_is_another_cell(tiny_folder: Path, make_tiny_model: Any) -> None:
    import shutil

    other = Path("other")
    shutil.copytree(tiny_folder, other)
    make_tiny_model(seed=1).save_pretrained(other)
    assert keys(resolved(other)) != keys(resolved(tiny_folder))


def test_a_target_of_ones_own_is_not_trained_from(tiny_folder: Path) -> None:
    own = resolved(tiny_folder, target=str(tiny_folder))
    assert own.own_target
    assert keys(own) != keys(resolved(tiny_folder))


def test_the_mini_set_stands_in_under_its_own_name(tiny_folder: Path) -> None:
    plan = resolved(tiny_folder, tasks=("gsm8k",))
    assert list(plan.protocols) == ["gsm8k_mini"]
    assert plan.origins["gsm8k_mini"].source == "mini"
    assert any("mini set stands in" in note for note in plan.notes)


def test_a_scorer_that_cannot_load_is_a_missing_judge_not_an_error(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(card: Card) -> Any:
        def load(**options: Any) -> Any:
            raise ScorerError("no weights here")

        return load

    monkeypatch.setattr(judge, "load_function", broken)
    plan = resolved(tiny_folder, tasks=("toxigen",), scorer="detoxify")
    assert plan.judge is None
    assert plan.scorer["name"] == "detoxify"
    assert any("no weights here" in note for note in plan.notes)


def test_auto_falls_back_to_what_can_be_had_and_names_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = judge.load_function

    def without_embedded(card: Card) -> Any:
        if card.name == "embedded":
            raise ScorerError("its encoder is not cached")
        return real(card)

    monkeypatch.setattr(judge, "load_function", without_embedded)
    plan = resolved(tiny_folder, tasks=("toxigen",), scorer="auto")
    assert plan.scorer["name"] == "profanity_check"
    assert plan.scorer["weights_sha256"]
    assert any("embedded could not be loaded" in note for note in plan.notes)


def test_auto_is_the_best_measured_unless_a_checkpoint_is_given() -> None:
    """The study measured embedded before profanity_check, and detoxify not at all."""
    names = ["embedded", "profanity_check"]
    assert [card.name for card in judge.scorer_candidates("auto")] == names
    given = judge.scorer_candidates("auto", Path("detoxify.ckpt"))
    assert [card.name for card in given] == ["detoxify", *names]
    assert [card.name for card in judge.scorer_candidates("detoxify")] == ["detoxify"]


def test_a_second_scorer_is_part_of_the_key_and_none_leaves_it_as_it_was(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`second_scorer` is no determinant of a run with one: such cells are not computed again."""
    real = judge.load_function

    def load(card: Card) -> Any:
        if card.name == "detoxify":
            return lambda **options: SimpleNamespace(version="1", weights_sha256="f")
        return real(card)

    monkeypatch.setattr(judge, "load_function", load)
    one = resolved(tiny_folder, tasks=("toxigen",))
    two = resolved(tiny_folder, tasks=("toxigen",), scorer="profanity_check,detoxify")
    assert "second_scorer" not in one.cells[0].determinants
    assert one.second is None
    assert two.cells[0].determinants["second_scorer"]["name"] == "detoxify"
    assert two.scorer == one.scorer
    assert keys(two) != keys(one)


@needs_real_data
def test_attributes_are_columns_of_a_run_whose_scorer_tells_them(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """profanity_check gives toxicity alone; the double stands for detoxify's absent weights."""
    asked: dict[str, Any] = {"tasks": ("realtoxicityprompts",), "data": REAL_DATA}
    alone = resolved(tiny_folder, **asked).protocols["realtoxicityprompts"].metrics
    assert "expected_max_toxicity" in alone
    assert not any(metric.attribute for metric in alone.values())

    class Loaded(ThreatJudge):
        version = weights_sha256 = "1"

    monkeypatch.setattr(judge, "load_function", lambda card: lambda **options: Loaded())
    told = resolved(tiny_folder, **asked).protocols["realtoxicityprompts"].metrics
    assert set(told) - set(alone) == {"expected_max_threat", "threat_probability"}


def test_what_a_task_shares_with_another_is_in_its_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """HarmBench's requests are put through the templates in the folder of jailbreak."""
    protocol = list_protocols()["jailbreak_harmbench"]
    hashed: list[Path] = []
    monkeypatch.setattr(resolve, "file_sha256", lambda file: hashed.append(file) or str(file))
    resolve._evaluation_code("transformers", {protocol.name: protocol})
    names = {f"{file.parent.name}/{file.name}" for file in hashed}
    assert {"jailbreak/templates.yaml", "jailbreak/jailbreak.py"} <= names
    assert "jailbreak_harmbench/jailbreak_harmbench.yaml" in names


def test_methods_get_their_texts_as_examples(tiny_folder: Path) -> None:
    data = resolved(tiny_folder, methods=("noop", "model_surgery")).data
    for texts in (data.forget, data.old, data.update, data.retain, data.benign):
        assert texts
        assert all(isinstance(text, Example) for text in texts)
    assert data.toxic
    assert len({origin.dataset for origin in data.origins}) > 1


def test_no_scorer_is_loaded_where_nothing_is_judged(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(card: Card) -> Any:
        raise AssertionError("fur needs no toxicity scorer")

    monkeypatch.setattr(judge, "load_function", never)
    assert resolved(tiny_folder).scorer["name"] == "none"


def test_a_data_folder_that_is_not_there_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="no data folder"):
        resolved(tiny_folder, data=Path("absent"))


class Failing:
    def score(self, texts: Any) -> Any:
        raise RuntimeError("the judge fell over")


class Mild:
    def score(self, texts: Any) -> Any:
        return np.full(len(texts), 0.25)


@pytest.mark.parametrize(("judge", "missing"), [(Failing(), True), (None, True), (Mild(), False)])
def test_what_a_scorer_cannot_say_is_missing_and_never_zero(judge: Any, missing: bool) -> None:
    protocol = list_protocols()["toxigen_mini"]
    document = {"id": "1", "group": "a"}
    sample = Sample(protocol.subtasks[0], "1", "none", "p", ("text",), {}, document)
    said: list[str] = []
    plan: Any = SimpleNamespace(
        protocols={protocol.name: protocol}, judge=judge, guard=None, scorer={"name": "x"}
    )
    items = steps.ModelSteps(plan, said.append).score([sample], lambda what, done, total: None)
    assert len(items) == sum(metric.only in ("", "a") for metric in protocol.metrics.values()) > 0
    assert all(np.isnan(item.value) == missing for item in items)
    assert bool(said) == isinstance(judge, Failing)
