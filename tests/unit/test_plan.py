"""Which cells a configuration means, and what is refused before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_doubles

from unlearn_bench.config import RunConfig, load_config
from unlearn_bench.data.fur import load_fur
from unlearn_bench.errors import DiskFullError, UnknownNameError, UsageError
from unlearn_bench.registry import Card, list_cards
from unlearn_bench.runs import estimate, plan, store
from unlearn_bench.runs.speed import CARDS, GPU_OVERHEAD, Machine

METHOD = '''
from unlearn_bench.registry import method

@method("{name}", kind="edit", needs=(), targets=("*",), {facts})
def {name}(context, *, strength: float = 1.0):
    """A method of a user's own."""
    return {{}}
'''


def card(name: str, file: Path, **facts: Any) -> Card:
    return Card("method", name, file, "", facts)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built-in folder of four methods, so that these tests do not hang on the real ones."""
    import unlearn_bench.registry as real

    folder = tmp_path / "methods"
    folder.mkdir()
    facts = {"noop": "control=True", "random_noise": "control=True"}
    for name in ("noop", "random_noise", "npo", "exact_unlearning"):
        text = METHOD.format(name=name, facts=facts.get(name, ""))
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(real, "_built_in_files", lambda kind: sorted(folder.glob("*.py")))
    monkeypatch.setattr(real, "_entry_point_files", lambda kind: [])
    return tmp_path


def choose(*names: str, own_target: bool = False) -> tuple[list[str], list[str]]:
    cards, notes = plan.choose_methods(names, own_target=own_target)
    return list(cards), notes


def test_all_means_all_with_the_target_first(registry: Path) -> None:
    names, notes = choose("all")
    assert names == ["noop", "exact_unlearning", "npo", "random_noise"]
    assert notes == []


def test_the_target_row_is_added_and_said(registry: Path) -> None:
    names, notes = choose("npo")
    assert names == ["noop", "npo"]
    assert "noop added" in notes[0]


def test_a_file_joins_without_an_edit_here(registry: Path) -> None:
    mine = registry / "mine.py"
    mine.write_text(METHOD.format(name="mine", facts=""))
    assert choose("npo", str(mine))[0] == ["noop", "npo", "mine"]
    assert choose("all", str(mine))[0][-1] == "mine"


def test_an_unknown_method_gets_the_near_match(registry: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        choose("npoo")
    assert "npo" in caught.value.near


@pytest.mark.parametrize("text", [None, "x = 1\n", "def broken(:\n"])
def test_a_file_without_a_method_is_refused(registry: Path, text: str | None) -> None:
    file = registry / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError):
        choose(str(file))


def test_nothing_of_a_method_file_runs_while_planning(registry: Path) -> None:
    file, trace = registry / "mine.py", registry / "ran"
    file.write_text(f"open({str(trace)!r}, 'w')\n" + METHOD.format(name="mine", facts=""))
    choose(str(file))
    assert not trace.exists()


def test_own_target_leaves_the_exact_model_out(registry: Path) -> None:
    names, notes = choose("all", own_target=True)
    assert "exact_unlearning" not in names
    assert any("exact_unlearning left out" in note for note in notes)
    with pytest.raises(UsageError, match="exact_unlearning"):
        choose("exact_unlearning", own_target=True)


def test_roles(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    assert plan.role_of(card("noop", file, control=True)) == "target"
    assert plan.role_of(card("exact_unlearning", file)) == "exact"
    assert plan.role_of(card("random_noise", file, control=True)) == "control"
    assert plan.role_of(card("npo", file)) == "method"


def test_settings_for_a_method_that_does_not_run_are_refused(tmp_path: Path) -> None:
    cards = {"npo": card("npo", tmp_path / "npo.py")}
    plan.check_settings({"npo": {"beta": 1}}, cards)
    with pytest.raises(UnknownNameError, match="npo"):
        plan.check_settings({"npoo": {"beta": 1}}, cards)


def test_another_edit_set_takes_the_place_of_fur_in_every_suite() -> None:
    """With its limit, under a name of its own also where nothing asks about it."""
    sets = ("fur", "tofu_forget10")
    config = load_config({"suite": "quick", "edit_set": "tofu_forget10"})
    suite = plan.choose_suite(config, edit_sets=sets)
    assert suite.name == "quick-tofu_forget10"
    assert suite.tasks[0] == "tofu_forget10"
    assert "fur" not in suite.tasks
    assert suite.limits["tofu_forget10"] == 52
    alone = config.model_copy(update={"tasks": ("wikitext",)})
    assert plan.choose_suite(alone, edit_sets=sets).name == "quick-wikitext-tofu_forget10"
    with pytest.raises(UnknownNameError) as caught:
        plan.choose_suite(config.model_copy(update={"edit_set": "tofu_forget1"}), edit_sets=sets)
    assert caught.value.near == ["tofu_forget10"]


def test_a_task_about_texts_that_nobody_learns_is_refused() -> None:
    config = load_config({"tasks": "tofu_forget10", "suite": "quick"})
    with pytest.raises(UsageError, match="never learn") as caught:
        plan.choose_suite(config, edit_sets=("fur", "tofu_forget10"))
    assert "--edit-set tofu_forget10" in caught.value.next_step
    config = load_config({"tasks": "fur", "suite": "quick", "edit_set": "tofu_forget10"})
    assert plan.choose_suite(config, edit_sets=("fur", "tofu_forget10")).tasks == ("tofu_forget10",)


@pytest.mark.parametrize("path", ["../elsewhere", "a/../../b", ".."])
def test_a_relative_output_that_climbs_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="leaves"):
        plan.check_output(Path(path))


def test_a_link_that_leads_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "out").symlink_to(tmp_path)
    monkeypatch.chdir(inner)
    with pytest.raises(UsageError, match="leaves"):
        plan.check_output(Path("out/cells"))


@pytest.mark.parametrize("path", ["runs", ".", "a/b/c"])
def test_outputs_below_the_current_folder_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan.check_output(Path(path)) == Path(path)
    assert list(tmp_path.iterdir()) == []  # checking makes nothing


def test_a_file_in_place_of_the_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for path in (tmp_path / "runs", tmp_path / "runs" / "below"):
        with pytest.raises(UsageError, match="cannot be written"):
            plan.check_output(path)


@pytest.mark.parametrize("model", ["../x", "a/../../b"])
def test_leaderboards_stay_in_their_folder(tmp_path: Path, model: str) -> None:
    config = RunConfig(output=tmp_path / "runs")
    with pytest.raises(UsageError):
        plan.leaderboard_folder(config, model)


def test_too_little_disk_is_said_before_the_first_checkpoint(tmp_path: Path) -> None:
    plan.check_disk(tmp_path / "runs", 1000, 3, keep=True)
    with pytest.raises(DiskFullError, match="GB are free"):
        plan.check_disk(tmp_path / "runs", 10**15, 3, keep=False)


def cells(tmp_path: Path, **changes: Any) -> tuple[plan.Cell, ...]:
    file = tmp_path / "npo.py"
    if not file.exists():
        file.write_text("x = 1\n")
    given: dict[str, Any] = {
        "cards": {"npo": card("npo", file)},
        "options": {"npo": {"beta": 0.1}},
        "made_of": {"npo": {"code_sha256": "c0de"}},
        "seeds": (0,),
        "common": {"target": "w", "suite": {"tasks": {"fur": {"limit": 5}}}, "engine": "vllm"},
    }
    return plan.build_cells(**{**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"npo": {"beta": 0.2}}},
        {"made_of": {"npo": {"code_sha256": "other"}}},
        {"seeds": (1,)},
        {"common": {"target": "v", "suite": {"tasks": {"fur": {"limit": 5}}}, "engine": "vllm"}},
        {"common": {"target": "w", "suite": {"tasks": {"fur": {"limit": 6}}}, "engine": "vllm"}},
        {"common": {"target": "w", "suite": {"tasks": {"fur": {"limit": 5}}}, "engine": "hf"}},
    ],
)
def test_every_determinant_is_in_the_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert cells(tmp_path, **changes)[0].key != cells(tmp_path)[0].key


def test_edited_method_code_is_another_cell(tmp_path: Path) -> None:
    before = cells(tmp_path)[0].key
    (tmp_path / "npo.py").write_text("x = 2\n")
    assert cells(tmp_path)[0].key != before


def test_the_key_is_stable_and_the_plan_names_what_it_hashes(tmp_path: Path) -> None:
    one, two = cells(tmp_path)[0], cells(tmp_path)[0]
    assert one.key == two.key
    read_back = json.loads(store.canonical_json(one.determinants))
    assert read_back["method"]["options"] == {"beta": 0.1}


def test_seeds_are_innermost(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("")
    both = cells(
        tmp_path,
        cards={"a": card("a", file), "b": card("b", file)},
        options={"a": {}, "b": {}},
        made_of={"a": {}, "b": {}},
        seeds=(0, 1),
    )
    assert [(cell.method, cell.seed) for cell in both] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip


CPU = Machine(cores=2)


def test_estimates_grow_with_work_parameters_and_shrink_with_speed() -> None:
    def evaluation(limit: int, parameters: float = 1e8, machine: Any = CPU) -> float:
        return estimate.estimate_evaluation({"gsm8k": limit}, 4, parameters, machine, "mixed")

    assert evaluation(20) > evaluation(10)
    assert evaluation(20, parameters=2e8) > evaluation(20)
    assert evaluation(20, machine=Machine(8)) < evaluation(20)
    assert evaluation(20, machine=Machine(2, CARDS[9, 0])) < evaluation(20)


def test_an_edit_without_training_is_cheaper_than_one_with() -> None:
    def edit(facts: dict[str, Any], **options: Any) -> float:
        return estimate.estimate_edit(facts, options, {"forget": 200}, 1e8, CPU)

    noop = edit({"kind": "edit", "needs": ()})
    trained = edit({"kind": "loss", "needs": ("forget",)}, epochs=5, batch_size=16)
    longer = edit({"kind": "loss", "needs": ("forget",)}, epochs=10, batch_size=16)
    few = edit({"kind": "loss", "needs": ("forget",), "layers": 3}, epochs=10, batch_size=16)
    assert noop < trained < longer
    assert noop < few < longer


def test_a_method_that_trains_from_the_base_costs_what_preparing_the_target_costs() -> None:
    base = estimate.estimate_edit(
        {"kind": "edit", "needs": ("base",)}, {"shards": 2}, {"base": 100}, 134.5e6, CPU
    )
    start = estimate.START_SECONDS + estimate.SAVE_SECONDS * 134.5e6
    assert base == start + CPU.seconds("train", 100 * estimate.PREPARE_TOKENS, 134.5e6)


def test_a_gpu_is_arithmetic_with_its_data_sheet() -> None:
    """8e9 parameters on an H100: compute decides for prompts, weights' bytes for single texts."""
    card = Machine(16, CARDS[9, 0])
    assert card.seconds("read", 1e6, 8e9) == pytest.approx(1e6 * (5e-6 + 16e9 / (0.5 * 989e12)))
    assert card.seconds("score", 1e6, 8e9) > 5 * card.seconds("read", 1e6, 8e9)  # fp32
    assert card.seconds("write", 1e6, 8e9) == pytest.approx(
        1e6 * (1e-4 + 16e9 / (0.6 * 3.35e12) / 128)
    )


def test_a_gpu_is_priced_in_the_format_that_it_computes_in() -> None:
    """By default bf16, in which likelihoods cost what prompts do; `mixed` scores in fp32."""
    card = Machine(16, CARDS[9, 0])

    def seconds(work: Any, dtype: str) -> float:
        own = GPU_OVERHEAD[work] * 1e6
        return card.seconds(work, 1e6, 8e9, dtype) - own

    assert seconds("score", "bfloat16") == pytest.approx(seconds("read", "mixed"))
    assert seconds("score", "mixed") == pytest.approx(1e6 * 16e9 / (0.5 * 67e12))
    assert seconds("read", "float32") == pytest.approx(seconds("score", "mixed"))
    # Twice the bytes per weight; fp32 matrices are slower still.
    assert seconds("write", "float32") == pytest.approx(seconds("read", "float32"))
    assert seconds("train", "float32") == seconds("train", "bfloat16")
    assert CPU.seconds("score", 1e6, 8e9, "bfloat16") == CPU.seconds("score", 1e6, 8e9)


def test_a_round_is_two_epochs() -> None:
    facts = {"kind": "edit", "needs": ("forget",)}
    examples = {"forget": 2000}
    rounds, epochs = (
        estimate.estimate_edit(facts, options, examples, 1e8, CPU)
        for options in ({"rounds": 2}, {"epochs": 4})
    )
    assert rounds == epochs


def test_measured_seconds_come_from_the_newest_good_record(tmp_path: Path) -> None:
    def finished(key: str, when: str, seconds: float, status: Any = "success") -> None:
        folder = store.cell_folder(tmp_path, key * 16, "npo", 0)
        store.write_json(folder / "plan.json", {"suite": "quick"})
        record = store.Record("npo", 0, key * 16, status, finished=when, seconds={"edit": seconds})
        store.write_record(folder, record)

    finished("a", "2026-01-01T00:00:00+00:00", 5.0)
    finished("b", "2026-01-02T00:00:00+00:00", 7.0)
    finished("c", "2026-01-03T00:00:00+00:00", 9.0, "failed")
    broken = tmp_path / "cells" / "broken"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    assert estimate.measured_seconds(tmp_path) == {("npo", "quick"): {"edit": 7.0}}


def test_preparation_is_estimated_for_the_models_that_will_be_trained(tmp_path: Path) -> None:
    fur = load_fur()
    cards = list_cards("method")
    both, target = (
        run_doubles.plan(
            tmp_path, *map(run_doubles.cell, names), fur=fur, parameters=134.5e6, cards=cards
        )
        for names in (["noop", "exact_unlearning"], ["noop"])
    )
    texts = len(fur.target_training())
    exact = len(fur.exact_training())
    each = CPU.seconds("train", estimate.PREPARE_TOKENS, 134.5e6)
    seconds = estimate.estimate_preparation(target, CPU)
    assert seconds == pytest.approx(texts * each)
    assert estimate.estimate_preparation(both, CPU) == pytest.approx(
        seconds * (texts + exact) / texts
    )
    assert estimate.estimate_preparation(replace(both, own_target=True), CPU) == 0
    stage = replace(both.cells[1], requested=(fur.select("test", "forget")[0].id,))
    staged = replace(both, cells=(*both.cells, stage, stage))
    one_more = len(fur.exact_training(stage.requested)) * each
    assert estimate.estimate_preparation(staged, CPU) == pytest.approx(
        seconds * (texts + exact) / texts + one_more
    )
