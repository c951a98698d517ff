"""Stored cells read back: which is meant, whether it is whole, whether it says all it seems to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.stored_cells import items, write_cell
from unlearn_bench.errors import CorruptDataError, UsageError
from unlearn_bench.runs.sides import is_stored, read_cell, read_side, read_sides

ACC = items("acc", [1, 0, 1, 1])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for method, seed in (("noop", 0), ("npo", 0), ("npo", 1)):
        write_cell(tmp_path / "run", method, ACC, seed=seed)
    return tmp_path / "run"


def test_a_run_a_method_a_seed_and_a_folder(run: Path) -> None:
    whole = read_sides(str(run))
    assert {name: len(side.cells) for name, side in whole.items()} == {"noop": 1, "npo": 2}
    assert [cell.seed for cell in read_side(f"{run}:npo").cells] == [0, 1]
    (one,) = read_side(f"{run}:npo@1").cells
    folder = next(run.glob("cells/*npo-s1"))
    assert read_side(str(folder)).cells == (one,)
    assert (one.method, one.seed, one.weights) == ("npo", 1, "sha256:npo1")
    assert one.items == tuple(ACC)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (":nope", "no method 'nope'; it has noop, npo"),
        (":npo@7", "no seed '7' there; it has 0, 1"),
        ("", "several methods: noop, npo"),
    ],
)
def test_what_is_not_there_or_not_one_is_a_usage_error(run: Path, choice: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_side(f"{run}{choice}")


def test_no_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run or cell"):
        read_sides(str(tmp_path / "nothing"))
    assert not is_stored("org/name@main")
    assert not is_stored(str(tmp_path))


def test_two_cells_of_one_seed_are_not_chosen_between(run: Path) -> None:
    write_cell(run, "npo", ACC, suite__paraphrases=9)
    with pytest.raises(UsageError, match="several cells are npo with seed 0"):
        read_side(f"{run}:npo")


def test_a_file_with_other_bytes_is_refused(run: Path) -> None:
    folder = next(run.glob("cells/*noop-s0"))
    (folder / "items.parquet").write_bytes(b"x")
    with pytest.raises(CorruptDataError, match=r"items\.parquet is not what the record says"):
        read_side(f"{run}:noop")


def test_a_plan_that_is_not_the_keys_is_refused(run: Path) -> None:
    from unlearn_bench.runs import store

    folder = next(run.glob("cells/*noop-s0"))
    plan = json.loads((folder / "plan.json").read_text())
    plan["determinants"]["suite"]["paraphrases"] = 5
    record = store.read_record(folder, plan["key"])
    assert record is not None
    record.files["plan.json"] = store.write_json(folder / "plan.json", plan)
    store.write_record(folder, record)
    with pytest.raises(CorruptDataError, match="not the hash"):
        read_cell(folder)


def test_a_cell_of_another_make_is_refused(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "noop", ACC, suite__tasks=["quiz"])
    with pytest.raises(CorruptDataError, match="not what a run writes"):
        read_cell(folder)


def test_an_unreadable_record_is_refused(run: Path) -> None:
    (next(run.glob("cells/*noop-s0")) / "record.json").write_text("[" * 100_000)
    with pytest.raises(CorruptDataError):
        read_side(f"{run}:npo")


@pytest.mark.parametrize(
    ("suite", "limited"),
    [("quick", False), ("quick-fur", True), ("quick-limit5", True), ("mine", False),
     ("quick-tofu_forget10", True), ("mine-limit2", True), ("smoke", False)],
)  # fmt: skip
def test_a_narrowed_suite_is_marked(tmp_path: Path, suite: str, limited: bool) -> None:
    assert read_cell(write_cell(tmp_path, "noop", ACC, suite=suite)).limited == limited


def test_a_suite_over_another_edit_set_is_whole(tmp_path: Path) -> None:
    named = {"suite": "quick-tofu_forget10", "target__edit_set__name": "tofu_forget10"}
    assert not read_cell(write_cell(tmp_path, "noop", ACC, **named)).limited


def test_a_suite_of_ones_own_is_limited_where_its_run_says_so(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "noop", ACC, suite="mine-fur")
    assert not read_cell(folder).limited
    (tmp_path / "run.json").write_text('{"tasks": ["fur"]}')
    assert read_cell(folder).limited


def test_a_diverged_cell_has_no_scores_and_says_why(tmp_path: Path) -> None:
    write_cell(tmp_path, "npo", [], status="diverged", reason="loss is nan at step 3")
    side = read_side(str(tmp_path))
    assert side.unscored == "seed 0 diverged: loss is nan at step 3"
    assert side.cells[0].measures == ()


def test_the_reduction_of_a_task_that_is_not_ours_follows_from_its_value(tmp_path: Path) -> None:
    measures = {one.metric: one for one in read_cell(write_cell(tmp_path, "noop", ACC)).measures}
    assert measures["acc"].reduce == "mean"
    assert measures["acc"].direction == "higher"
    assert measures["toxicity"].reduce == ""  # no item, so no value to go by
