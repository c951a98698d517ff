"""Several runs on one board: what joins, what stays apart, what counts once."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.board_runs import DATA, facts, read_json, write_run
from unlearn_bench.board.merge import merge, write_merged
from unlearn_bench.board.validate import render_verdicts, validate
from unlearn_bench.cli import app
from unlearn_bench.errors import (
    CorruptDataError,
    IncomparableError,
    UnlearnBenchError,
    UsageError,
)
from unlearn_bench.runs.settings import write_settings
from unlearn_bench.runs.store import exclusive
from unlearn_bench.runs.tuned import Winner

REFERENCES = ("noop", "exact_unlearning")


def merged(out: Path, *paths: Path, apart: bool = False) -> dict[str, bytes]:
    """The files that a merge writes, by name; every board among them is valid."""
    boards, _ = merge(paths, out, apart=apart)
    written = write_merged(boards)
    verdicts = validate([path for path in written if path.suffix == ".json"])
    assert not any(one.faults for one in verdicts), render_verdicts(verdicts)
    return {path.name: path.read_bytes() for path in written}


def notes_of(out: Path, *paths: Path) -> str:
    return "\n".join(merge(paths, out)[1])


def rows(files: dict[str, bytes], name: str = "quick") -> dict[str, dict[str, Any]]:
    content = json.loads(files[f"{name}.json"])
    return {f"{row['method']}@{row['seed']}": row for row in content["rows"]}


def value(row: dict[str, Any], column: str = "fur.forget_extraction_strength") -> Any:
    return row["scores"][column]["value"]


def changed(board: Path, **fields: Any) -> Path:
    content = read_json(board)
    for path, new in fields.items():
        *above, last = path.split("__")
        place = content
        for step in above:
            place = place[int(step)] if step.isdecimal() else place[step]
        place[last] = new
    board.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return board


def test_one_run_gives_the_bytes_that_evaluate_wrote(tmp_path: Path) -> None:
    tuned = {"npo": Winner(options=None, best=0.5, median=0.25, trials=3)}
    ended = {"grad_diff": "failed"}
    methods = (*REFERENCES, "npo", "grad_diff")
    board = write_run(
        tmp_path / "a", methods, (0, 1), ended=ended, notes=("z", "a"), tuned=tuned, minute=3
    )
    files = merged(tmp_path / "out", tmp_path / "a")
    assert files == {name: board.with_name(name).read_bytes() for name in files}
    assert set(files) == {"quick.csv", "quick.json", "quick.md"}


def test_methods_of_two_machines_are_one_board(tmp_path: Path) -> None:
    """npo still knows 3 of 12 facts, between the target's 12 and the exact model's 0: reached
    1 − 3/12 = 0.75. It keeps 9 of 12 retained facts, 0.75, and all of the prose: harmonic mean
    2/(1/.75 + 1) = 6/7. Overall 2/(1/.75 + 7/6) = 0.8. grad_diff: reached 0.5, kept 1, overall
    2/(2 + 1) = 2/3. Both are set against the exact model of the run that had one.
    """
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    write_run(tmp_path / "b", ("noop", "grad_diff"), minute=1)
    found = rows(merged(tmp_path / "out", tmp_path / "a", tmp_path / "b"))
    assert list(found) == ["noop@0", "exact_unlearning@0", "grad_diff@0", "npo@0"]
    assert found["npo@0"]["overall"]["value"] == pytest.approx(0.8)
    assert found["grad_diff@0"]["overall"]["value"] == pytest.approx(2 / 3)
    assert found["grad_diff@0"]["scores"]["fur.forget_choice_acc"]["delta"] == -0.5


def test_the_order_of_the_arguments_changes_no_byte(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"), notes=("of a",))
    write_run(tmp_path / "b", ("noop", "grad_diff"), notes=("of b",), minute=1)
    board = write_run(tmp_path / "c", ("noop", "npo"), (1,))
    sides = (tmp_path / "a", tmp_path / "b", board)
    outcomes = {
        tuple(sorted(merged(tmp_path / f"out{number}", *order).items()))
        for number, order in enumerate(itertools.permutations(sides))
    }
    assert len(outcomes) == 1


def test_merging_again_changes_no_byte(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"), (0, 1))
    first = merged(tmp_path / "out", tmp_path / "a")
    assert merged(tmp_path / "out", tmp_path / "a") == first
    assert (
        merged(tmp_path / "out", tmp_path / "out" / "tiny" / "quick.json", tmp_path / "a") == first
    )


def test_a_board_that_is_there_already_may_be_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(tmp_path / "a")
    first = merged(out, tmp_path / "a")
    (out / "tiny" / "quick.md").unlink()
    assert merged(out, out) == first


def test_seeds_of_two_runs_are_one_mean(tmp_path: Path) -> None:
    """3 and 9 of 12 facts: mean 0.5."""
    write_run(tmp_path / "a", (*REFERENCES, "npo"), (0,))
    write_run(tmp_path / "b", (*REFERENCES, "npo"), (1,), level=9)
    mean = rows(merged(tmp_path / "out", tmp_path / "a", tmp_path / "b"))["npo@mean"]
    assert value(mean) == 0.5
    assert mean["provenance"]["seeds"] == "0 1"
    assert mean["scores"]["fur.forget_extraction_strength"]["low"] is not None


def test_older_rows_stay_with_their_numbers_and_provenance(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    before = rows(merged(out, tmp_path / "a"))["npo@0"]
    shutil.rmtree(tmp_path / "a")
    write_run(tmp_path / "b", (*REFERENCES, "grad_diff"), minute=1)
    after = rows(merged(out, tmp_path / "b"))
    assert after["npo@0"] == before
    assert "grad_diff@0" in after


def test_a_mean_of_a_kept_seed_and_a_new_one_has_no_interval(tmp_path: Path) -> None:
    """Nothing can be drawn without the kept seed's items. Overall 0.8 and, at 6 of 12 facts
    known, gain 0.5 and keep 6/7: 2/(2 + 7/6) = 12/19; the mean is (0.8 + 12/19)/2.
    """
    out = tmp_path / "out"
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    merged(out, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    write_run(tmp_path / "b", (*REFERENCES, "npo"), (1,), level=6)
    found = rows(merged(out, tmp_path / "b"))
    score = found["npo@mean"]["scores"]["fur.forget_extraction_strength"]
    assert (score["value"], score["low"], score["high"]) == (0.375, None, None)
    assert found["npo@mean"]["overall"]["value"] == pytest.approx((0.8 + 12 / 19) / 2)
    assert found["npo@mean"]["overall"]["low"] is None


def test_an_overall_score_of_other_columns_is_not_kept(tmp_path: Path) -> None:
    """A kept row whose overall score leaves the prose out cannot stand in the same column."""
    board = write_run(tmp_path / "a", (*REFERENCES, "npo"))
    content = read_json(board)
    content["overall"]["columns"]["keep"].remove("wikitext_mini.word_perplexity")
    for row in content["rows"]:
        row["overall"] |= {"value": 0.75, "keep": 0.75, "gain": 0.75}
    board.write_text(json.dumps(content))
    write_run(tmp_path / "b", (*REFERENCES, "grad_diff"))
    found = rows(merged(tmp_path / "out", board, tmp_path / "b"))
    assert found["npo@0"]["overall"]["value"] is None
    assert "other columns" in found["npo@0"]["overall"]["reason"]
    assert value(found["npo@0"]) == 0.25
    assert found["grad_diff@0"]["overall"]["value"] == pytest.approx(2 / 3)


def test_an_overall_score_by_another_formula_is_not_kept(tmp_path: Path) -> None:
    board = changed(write_run(tmp_path / "a"), overall__formula="the mean of everything")
    found = rows(merged(tmp_path / "out", board))
    assert found["npo@0"]["overall"]["value"] is None
    assert "another formula" in found["npo@0"]["overall"]["reason"]
    assert value(found["npo@0"]) == 0.25


def test_failed_diverged_and_cancelled_rows_have_no_number(tmp_path: Path) -> None:
    ended = {"npo": "failed", "grad_diff": "diverged", "simnpo": "cancelled"}
    write_run(tmp_path / "a", (*REFERENCES, *ended), ended=ended)
    files = merged(tmp_path / "out", tmp_path / "a")
    found = rows(files)
    for method, status in ended.items():
        row = found[f"{method}@0"]
        assert (row["status"], row["scores"]) == (status, {})
        assert row["reason"] == f"{method} is {status}"
    lines = {row["method"]: row for row in csv.DictReader(io.StringIO(files["quick.csv"].decode()))}
    for method in ended:
        assert {lines[method][name] for name in ("fur.forget_choice_acc", "overall")} == {""}


def test_a_cell_with_scores_goes_before_one_that_failed_later(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    write_run(tmp_path / "b", ("noop", "npo"), ended={"npo": "failed"}, minute=9)
    found = rows(merged(tmp_path / "out", tmp_path / "a", tmp_path / "b"))
    assert found["npo@0"]["status"] == "success"
    merged(tmp_path / "there", tmp_path / "a")
    assert rows(merged(tmp_path / "there", tmp_path / "b"))["npo@0"]["status"] == "success"


def test_the_same_cell_in_two_folders_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    once = merged(tmp_path / "one", tmp_path / "a")
    assert merged(tmp_path / "two", tmp_path / "a", tmp_path / "b") == once
    board = tmp_path / "a" / "leaderboards" / "tiny" / "quick.json"
    assert notes_of(tmp_path / "three", tmp_path / "a", tmp_path / "b", board) == ""


def test_of_two_cells_of_one_method_options_and_seed_the_last_to_finish_counts(
    tmp_path: Path,
) -> None:
    """Another torch makes another key. The one left out is said."""
    write_run(tmp_path / "a", (*REFERENCES, "npo"), minute=2, level=3)
    versions = {"unlearn-bench": "0", "lm-eval": "0.4.13", "torch": "3"}
    write_run(tmp_path / "b", ("noop", "npo"), common=facts(versions=versions), level=9, minute=1)
    for order in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")):
        found = rows(merged(tmp_path / "out", *order))
        assert value(found["npo@0"]) == 0.25
    assert "npo seed 0 is there twice" in notes_of(tmp_path / "new", tmp_path / "a", tmp_path / "b")


def test_the_same_cell_with_other_numbers_is_said(tmp_path: Path) -> None:
    """Two machines rounded differently: the last to finish counts, whatever it says."""
    write_run(tmp_path / "a", (*REFERENCES, "npo"), minute=2, level=9)
    write_run(tmp_path / "b", ("npo",), minute=1, level=3)
    sides = tmp_path / "a", tmp_path / "b"
    assert value(rows(merged(tmp_path / "out", *sides))["npo@0"]) == 0.75
    notes = notes_of(tmp_path / "new", *sides)
    assert "npo seed 0 is there twice" in notes
    assert "noop" not in notes


def test_rows_edited_from_other_targets_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    board = write_run(tmp_path / "b", ("noop", "grad_diff"))
    assert notes_of(tmp_path / "new", tmp_path / "a", board) == ""
    changed(board, rows__1__provenance__target_fingerprint="sha256:" + "0" * 64)
    assert "the rows come from 2 targets" in notes_of(tmp_path / "new", tmp_path / "a", board)


def test_versions_in_common_are_the_boards_and_its_own_each_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"), minute=5)
    versions = {"unlearn-bench": "0", "lm-eval": "0.4.13", "torch": "3"}
    write_run(tmp_path / "b", ("grad_diff",), common=facts(versions=versions))
    files = merged(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    protocol = json.loads(files["quick.json"])["protocol"]
    assert protocol["versions"] == {"unlearn-bench": "0", "lm-eval": "0.4.13"}
    assert "torch 3" in rows(files)["grad_diff@0"]["provenance"]["versions"]
    assert "torch 2" in rows(files)["npo@0"]["provenance"]["versions"]


def test_other_options_are_other_rows_with_a_mark_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"), options={"beta": 0.1})
    write_run(tmp_path / "b", ("noop", "npo"), options={"beta": 0.2}, level=6)
    out = tmp_path / "out"
    first = merged(out, tmp_path / "a", tmp_path / "b")
    names = [name for name in rows(first) if name.startswith("npo")]
    assert len(names) == 2
    assert all(name.startswith("npo#") for name in names)
    by_options = {row["provenance"]["options"]: value(row) for row in rows(first).values()}
    assert by_options['{"beta":0.1}'] == 0.25
    assert by_options['{"beta":0.2}'] == 0.5
    board = out / "tiny" / "quick.json"
    assert merged(tmp_path / "other", board)["quick.json"] == first["quick.json"]


PROTOCOLS = {
    "engine": ({"name": "vllm", "dtype": "float32"}, "engine is"),
    "dtype": ({"name": "fake", "dtype": "mixed"}, "dtype is"),
    "scorer": ({"name": "other", "version": "1", "weights_sha256": "6" * 64}, "scorer.name is"),
    "code": ("9" * 64, "asked.evaluation_code_sha256 is"),
    "limit": (6, "tasks.fur.items is"),
    "data": ("8" * 64, "asked.tasks.fur.data_sha256 is"),
    "paraphrases": (2, "asked.paraphrases is"),
    "lm-eval": ({"lm-eval": "0.5"}, "versions.lm-eval is"),
    "model": ("sha256:" + "7" * 64, "base_fingerprint is"),
}


def other_protocol(name: str) -> dict[str, Any]:
    common, new = facts(), PROTOCOLS[name][0]
    if name in ("engine", "dtype", "scorer", "lm-eval"):
        place = {"dtype": "engine", "lm-eval": "versions"}.get(name, name)
        return common | {place: new}
    if name == "code":
        return common | {"evaluation_code_sha256": new}
    if name == "model":
        common["target"]["fingerprint"] = new
    elif name == "paraphrases":
        common["suite"]["paraphrases"] = new
    else:
        field = {"limit": "limit", "data": "data_sha256"}[name]
        common["suite"]["tasks"]["fur"][field] = new
    return common


@pytest.mark.parametrize("name", PROTOCOLS)
def test_two_protocols_are_refused_by_field(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    write_run(tmp_path / "b", ("noop", "grad_diff"), common=other_protocol(name))
    with pytest.raises(IncomparableError) as caught:
        merge((tmp_path / "a", tmp_path / "b"), tmp_path / "out")
    assert PROTOCOLS[name][1] in caught.value.what
    assert "--apart" in caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_apart_gives_each_protocol_a_board_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    write_run(tmp_path / "b", ("noop", "grad_diff"), common=other_protocol("limit"))
    out = tmp_path / "out"
    files = merged(out, tmp_path / "a", tmp_path / "b", apart=True)
    names = sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))
    assert len(names) == 2
    assert all(name.startswith("quick-") for name in names)
    held = sorted("+".join(sorted(rows(files, name))) for name in names)
    assert held == ["exact_unlearning@0+noop@0+npo@0", "grad_diff@0+noop@0"]
    assert merged(out, tmp_path / "b", tmp_path / "a", apart=True) == files


def test_apart_leaves_the_board_that_is_there_its_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    before = merged(out, tmp_path / "a")
    write_run(tmp_path / "b", ("noop", "grad_diff"), common=other_protocol("limit"))
    with pytest.raises(IncomparableError):
        merge([tmp_path / "b"], out)
    (name,) = [n for n in merged(out, tmp_path / "b", apart=True) if n.endswith(".json")]
    assert name.startswith("quick-")
    assert (out / "tiny" / "quick.json").read_bytes() == before["quick.json"]


def test_what_was_kept_apart_once_finds_its_board_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(tmp_path / "a", (*REFERENCES, "npo"))
    write_run(tmp_path / "b", ("noop", "npo"), common=other_protocol("limit"))
    merged(out, tmp_path / "a")
    merged(out, tmp_path / "b", apart=True)
    write_run(tmp_path / "c", ("noop", "grad_diff"))
    assert "grad_diff@0" in rows(merged(out, tmp_path / "c"))
    write_run(tmp_path / "d", ("noop", "grad_diff"), common=other_protocol("limit"))
    (name,) = [n for n in merged(out, tmp_path / "d") if n.endswith(".json")]
    assert name.startswith("quick-")
    assert len(list((out / "tiny").glob("*.json"))) == 2


def test_a_board_from_before_the_hashes_is_renewed_by_its_own_cells(tmp_path: Path) -> None:
    out = tmp_path / "out"
    board = write_run(tmp_path / "a", (*REFERENCES, "npo"), leaderboards=out)
    before, content = board.read_bytes(), read_json(board)
    del content["protocol"]["asked"]
    board.write_text(json.dumps(content))
    assert merged(out, tmp_path / "a")["quick.json"] == before
    newer = shutil.copy(board, tmp_path / "newer.json")
    board.write_text(json.dumps(content))
    assert merged(out, Path(newer))["quick.json"] == before


def test_a_board_from_before_the_hashes_is_not_is_not_taken_for_the_same(tmp_path: Path) -> None:
    board = write_run(tmp_path / "a", (*REFERENCES, "npo"))
    content = read_json(board)
    del content["protocol"]["asked"]
    board.write_text(json.dumps(content))
    write_run(tmp_path / "b", ("noop", "grad_diff"))
    with pytest.raises(IncomparableError, match=r"asked\.evaluation_code_sha256 is absent"):
        merge([board, tmp_path / "b"], tmp_path / "out")


def test_models_have_boards_of_their_own(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", (*REFERENCES, "npo"))
    other = write_run(tmp_path / "b", ("noop", "grad_diff"), common=other_protocol("model"))
    changed(other, model="small")
    boards, _ = merge([one, other], tmp_path / "out")
    assert [(found.folder.name, found.board.suite) for found in boards] == [
        ("small", "quick"), ("tiny", "quick"),
    ]  # fmt: skip


def test_a_board_alone_is_merged_without_its_cells(tmp_path: Path) -> None:
    board = write_run(tmp_path / "a", (*REFERENCES, "npo"), (0, 1))
    files = merged(tmp_path / "out", board)
    assert files["quick.json"] == board.read_bytes()


def test_a_method_that_is_not_installed_keeps_its_boards_row(tmp_path: Path) -> None:
    board = write_run(tmp_path / "a", (*REFERENCES, "npo", "homemade"))
    written = {row["method"]: row for row in read_json(board)["rows"]}["homemade"]
    assert rows(merged(tmp_path / "out", tmp_path / "a"))["homemade@0"] == written
    assert "homemade is not installed here" in notes_of(tmp_path / "new", tmp_path / "a")


def test_cells_of_a_task_that_has_changed_keep_their_boards_rows(tmp_path: Path) -> None:
    common = facts()
    common["suite"]["tasks"]["wikitext_mini"]["protocol_sha256"] = "0" * 64
    board = write_run(tmp_path / "a", (*REFERENCES, "npo"), (0, 1), common=common)
    assert merged(tmp_path / "out", tmp_path / "a")["quick.json"] == board.read_bytes()
    notes = notes_of(tmp_path / "new", tmp_path / "a")
    assert "npo seed 0 is shown as its own board has it: wikitext_mini is defined other" in notes
    content = read_json(board)
    content["rows"] = [row for row in content["rows"] if row["method"] != "npo"]
    board.write_text(json.dumps(content))
    assert "npo seed 1 left out: wikitext_mini is defined" in notes_of(
        tmp_path / "newer", tmp_path / "a"
    )


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", (*REFERENCES, "npo"))
    two = write_run(tmp_path / "b", ("noop", "npo"), level=9)
    with pytest.raises(UsageError, match="npo seed 0 has two values of fur"):
        merge([one, two], tmp_path / "out")


def test_what_is_given_goes_before_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merged(out, write_run(tmp_path / "a", (*REFERENCES, "npo")))
    found = rows(merged(out, write_run(tmp_path / "b", ("noop", "npo"), level=9)))
    assert value(found["npo@0"]) == 0.75


def test_a_row_that_names_no_cell_is_refused(tmp_path: Path) -> None:
    board = changed(write_run(tmp_path / "a"), rows__2__provenance={})
    with pytest.raises(UsageError, match="npo seed 0 has no cell_key and no options"):
        merge([board], tmp_path / "out")


def test_one_name_for_two_numbers_is_refused(tmp_path: Path) -> None:
    board = changed(write_run(tmp_path / "a"), columns__0__direction="none")
    write_run(tmp_path / "b", ("noop", "grad_diff"))
    with pytest.raises(IncomparableError, match=r"fur\.\w+ is none in"):
        merge([board, tmp_path / "b"], tmp_path / "out")


def test_stages_of_sequences_trials_and_stopped_cells_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", ("noop",), common=facts(request={"before": ""}))
    trial = facts()
    trial["suite"]["part"] = "validation"
    write_run(tmp_path / "c", ("noop",), common=trial)
    write_run(tmp_path / "d", ("npo",), (7,), ended={"npo": "started"})
    runs = [tmp_path / name for name in "abcd"]
    for run in runs[1:]:
        shutil.rmtree(run / "leaderboards")
    notes = notes_of(tmp_path / "out", *runs)
    for reason in ("a stage of a sequence", "a trial of tuning", "stopped before it ended"):
        assert reason in notes
    assert set(rows(merged(tmp_path / "out", *runs))) == {"noop@0", "exact_unlearning@0", "npo@0"}


def test_a_damaged_cell_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    (folder,) = (tmp_path / "a" / "cells").glob("*-npo-s0")
    (folder / "scores.json").write_text("[]")
    assert "scores.json is not what the record says" in notes_of(tmp_path / "out", tmp_path / "a")
    assert "npo@0" not in rows(merged(tmp_path / "out", tmp_path / "a"))


def test_folders_and_files_that_are_no_input_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "cells").mkdir(parents=True)
    (tmp_path / "broken.json").write_text("{")
    for name, error, says in (
        ("empty", UsageError, "neither cells nor a board"),
        ("nowhere", UsageError, "there is no file or folder"),
        ("run", UnlearnBenchError, "no finished cell"),
        ("broken.json", CorruptDataError, "cannot be read"),
    ):
        with pytest.raises(error, match=says):
            merge([tmp_path / name], tmp_path / "out")


def without_board(run: Path, **details: Any) -> bytes:
    """A run that was taken elsewhere without the board that it wrote; the board's bytes."""
    board = write_run(run, **details)
    written = board.read_bytes()
    shutil.rmtree(board.parent.parent)
    return written


def test_a_run_alone_gives_the_bytes_that_evaluate_wrote(tmp_path: Path) -> None:
    """Its board was left behind; its cells say how their model and edit set are called."""
    written = without_board(tmp_path / "a", ended={"npo": "failed"})
    assert merged(tmp_path / "out", tmp_path / "a")["quick.json"] == written


@pytest.mark.parametrize(
    ("spec", "slug", "label"),
    [
        ("smollm2-135m", "smollm2-135m", "SmolLM2-135M-Instruct, dequantised from Q4_1"),
        ("Some/Model@main", "Some--Model", "Some/Model@main"),
    ],
)
def test_a_run_of_an_earlier_version_is_called_as_it_was_commanded(
    tmp_path: Path, spec: str, slug: str, label: str
) -> None:
    """Where the edit set came from is told by the cells that asked about it."""
    common = facts()
    common["target"]["edit_set"]["sha256"] = DATA["fur"]
    without_board(tmp_path / "a", named=False, common=common)
    write_settings(tmp_path / "a", {"model": spec})
    merged(tmp_path / "out", tmp_path / "a")
    board = json.loads((tmp_path / "out" / slug / "quick.json").read_bytes())
    assert (board["model"], board["protocol"]["model"]) == (slug, label)
    assert board["protocol"]["edit_set"] == f"fur bundled 1 {DATA['fur'][:12]}"


def test_a_cell_whose_model_nobody_names_is_refused(tmp_path: Path) -> None:
    """A place is no name, and a command tells of one model only."""
    run = tmp_path / "a"
    without_board(run, named=False)

    def refused(why: str) -> None:
        says = f"no board here says how the model of .* is called, nor does its run: .*{why}"
        with pytest.raises(UnlearnBenchError, match=says):
            merge([run], tmp_path / "out")

    refused("cannot be read")
    write_settings(run, {"model": "smollm2-135m", "target": str(tmp_path)})
    refused("is a place and no name")
    write_settings(run, {"model": "smollm2-135m"})
    other = facts()
    other["target"]["fingerprint"] = "sha256:" + "9" * 64
    without_board(run, named=False, common=other)
    refused("several models")


def test_a_file_that_is_no_board_is_not_overwritten(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    place = tmp_path / "out" / "tiny" / "quick.json"
    place.parent.mkdir(parents=True)
    place.write_text("{")
    with pytest.raises(UsageError, match="is there and is no board"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert place.read_text() == "{"


def test_text_cells_stay_safe_and_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    board = write_run(
        tmp_path / "a", (*REFERENCES, "npo", "grad_diff"), ended={"grad_diff": "failed"}
    )
    changed(board, rows__2__reason='=HYPERLINK("x")')
    text = merged(tmp_path / "out", board)["quick.csv"].decode()
    lines = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    assert lines["grad_diff"]["reason"] == '\'=HYPERLINK("x")'
    assert lines["npo"]["fur.forget_choice_acc.delta"] == "-0.75"


def test_the_command_writes_says_so_and_refuses_with_3_and_2(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", ("noop", "npo"), common=other_protocol("limit"))
    out, runner = tmp_path / "out", CliRunner()
    done = runner.invoke(app, ["board", "merge", str(tmp_path / "a"), "--output", str(out)])
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"wrote {out / 'tiny' / f'quick.{suffix}'}" for suffix in ("csv", "json", "md")
    ]
    both = [str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(out)]
    refused = runner.invoke(app, ["board", "merge", *both])
    assert refused.exit_code == 3
    assert "tasks.fur.items is 12" in refused.output
    assert runner.invoke(app, ["board", "merge", *both, "--apart"]).exit_code == 0
    assert runner.invoke(app, ["board", "merge", str(tmp_path / "none")]).exit_code == 2


def test_a_folder_behind_board_is_merged(tmp_path: Path) -> None:
    """As one would type it; what is no folder and no command gets a hint."""
    board = write_run(tmp_path / "a")
    done = CliRunner().invoke(app, ["board", str(tmp_path / "a"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "tiny" / "quick.json").read_bytes() == board.read_bytes()
    refused = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["board", str(board)])
    assert refused.exit_code == 2
    assert "nor a folder to merge. For a board's file: board merge FILE" in refused.output


def test_two_merges_into_one_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    arguments = ["board", "merge", str(tmp_path / "one"), "-o", str(tmp_path / "boards")]
    with exclusive(tmp_path / "boards"):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "another process is writing to this output folder" in result.output
    assert not list((tmp_path / "boards").rglob("*.json"))
    assert CliRunner().invoke(app, arguments).exit_code == 0
