"""What a schema cannot say of a board: every fault is found, and said with its row and column."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.board_runs import read_json, write_run
from unlearn_bench.board.board_file import BoardFile, read_board
from unlearn_bench.board.check_rows import check_rows
from unlearn_bench.board.check_scale import check_scale
from unlearn_bench.board.publish import write_board
from unlearn_bench.board.validate import Verdict, render_verdicts, validate
from unlearn_bench.board.visible import visible
from unlearn_bench.cli import app
from unlearn_bench.errors import UsageError

METHODS = ("noop", "exact_unlearning", "npo", "grad_diff", "simnpo")
COLUMN = "fur.forget_choice_acc"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, METHODS, (0, 1), ended={"simnpo": "failed"})
    return folder


@pytest.fixture
def board(run: Path, tmp_path: Path) -> Path:
    for file in (run / "leaderboards" / "tiny").glob("quick.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "quick.json"


def row(content: dict[str, Any], method: str = "npo", seed: str = "0") -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        one for one in content["rows"] if (one["method"], one["seed"]) == (method, seed)
    ]
    return found[0]


def check(board: Path, change: Change, *runs: Path) -> Verdict:
    """The verdict on the board after a change, without the CSV, which would still be the old."""
    content = read_json(board)
    change(content)
    board.write_text(json.dumps(content))
    board.with_suffix(".csv").unlink(missing_ok=True)
    (verdict,) = validate([board], runs)
    return verdict


def score(**changes: Any) -> Change:
    return lambda content: row(content)["scores"][COLUMN].update(changes)


def told(name: str, text: str, method: str = "npo") -> Change:
    return lambda content: row(content, method)["provenance"].update({name: text})


def of(method: str, **changes: Any) -> Change:
    return lambda content: row(content, method).update(changes)


def test_what_evaluate_writes_has_no_fault(board: Path, run: Path) -> None:
    (verdict,) = validate([board], [run])
    assert (verdict.faults, verdict.rows, verdict.columns) == ((), 15, 82)


def without_deltas(one: dict[str, Any]) -> dict[str, Any]:
    for told in one["scores"].values():
        told["delta"] = None
    return one


FAULTS: dict[str, tuple[Change, str]] = {
    "value under its interval": (score(value=0.01, delta=-0.99), "outside its interval"),
    "value over its interval": (score(value=0.9, delta=-0.1), "outside its interval"),
    "interval turned round": (score(low=0.9, high=0.1), "begins at 0.9 and ends at 0.1"),
    "half an interval": (score(low=None), "has one end"),
    "a share above one": (score(value=1.25, low=0.0, high=2.0, delta=0.25), "a share is 1.25"),
    "a negative error": (score(stderr=-0.1), "standard error is -0.1"),
    "a value of nothing": (score(n=0, missing=12, delta=None), "of no item"),
    "other items": (score(n=6, delta=None), "asked 6 items, the target 12"),
    "a wrong delta": (score(delta=-0.5), "its delta is -0.5, its value less the target's is -0.75"),
    "a delta made up": (score(n=11, missing=1), "its delta is -0.75"),
    "scores of a failed cell": (
        lambda c: row(c, "simnpo").update(scores=row(c)["scores"]),
        "it is failed and has scores",
    ),
    "a success without scores": (of("npo", scores={}), "it is success and has no scores"),
    "a failure without reason": (of("simnpo", reason=""), "no reason says why"),
    "a row twice": (lambda c: c["rows"].append(row(c)), "the row is there twice"),
    "a score of no column": (
        lambda c: row(c)["scores"].update({"fur.guessed": row(c)["scores"][COLUMN]}),
        "fur.guessed: it has a score of no column",
    ),
    "a column twice": (lambda c: c["columns"].append(c["columns"][0]), "column is there twice"),
    "a column of no task": (
        lambda c: c["columns"][0].update(task="quiz", name="quiz.forget_extraction_strength"),
        "no protocol here asks quiz",
    ),
    "a column by another name": (lambda c: c["columns"][0].update(metric="x"), "<task>.<metric>"),
    "a direction turned round": (
        lambda c: c["columns"][0].update(direction="higher"),
        "fur says lower in 'share'",
    ),
    "overall above its parts": (
        lambda c: row(c)["overall"].update(value=0.9, high=0.95),
        "its value is 0.9, its columns give 0.8",
    ),
    "a gain made up": (lambda c: row(c)["overall"].update(gain=0.9), "its gain is 0.9"),
    "a goal made up": (
        lambda c: row(c)["overall"]["gains"].update(update=1.0),
        "its columns give",
    ),
    "overall of no column": (
        lambda c: c["overall"]["columns"]["keep"].append("fur.guessed"),
        "keep of overall is made of no column",
    ),
    "overall missing without reason": (
        lambda c: row(c)["overall"].update(value=None),
        "overall: it is missing without a reason",
    ),
    "another formula": (lambda c: c["overall"].update(formula="x"), "not this version's"),
    "calibrated missing without reason": (
        lambda c: row(c)["calibrated"][COLUMN].update(value=None),
        "calibrated score is missing without a reason",
    ),
    "a mean that is none": (
        lambda c: row(c, "npo", "mean")["scores"][COLUMN].update(value=0.26, delta=-0.74),
        "npo seed mean, fur.forget_choice_acc: its value 0.26 is not the mean",
    ),
    "a delta of a mean that is none": (
        lambda c: row(c, "npo", "mean")["scores"][COLUMN].update(delta=-0.5),
        "its delta -0.5 is not the mean of its seeds' deltas",
    ),
    "a delta of a mean without the seeds'": (
        lambda c: row(c, "npo", "1")["scores"][COLUMN].update(n=11, missing=1, delta=None),
        "npo seed mean, fur.forget_choice_acc: its delta -0.75 is not the mean",
    ),
    "a mean of other seeds": (
        lambda c: row(c, "npo", "mean")["provenance"].update(seeds="0 1 2"),
        "other seeds",
    ),
    "an overall mean that is none": (
        lambda c: row(c, "npo", "mean")["overall"].update(value=0.7),
        "not the mean of its seeds'",
    ),
    "no hashes": (lambda c: c["protocol"].pop("asked"), "protocol.asked is missing"),
    "hashes of other tasks": (
        lambda c: c["protocol"]["asked"]["tasks"].pop("fur"),
        "name other tasks",
    ),
    "another data hash": (told("data_sha256", "0" * 64), "data_sha256: it is '0000"),
    "a key that is none": (told("cell_key", "abc"), "'abc' is no hash of its form"),
    "a key that is too long": (told("cell_key", "0" * 65), "is no hash of its form"),
    "a bare fingerprint": (told("weights_fingerprint", "0" * 64), "is no hash of its form"),
    "a base that is none": (lambda c: c["protocol"].update(base_fingerprint="x"), "'x', no hash"),
    "the same cell twice": (
        lambda c: row(c).update(provenance=row(c, "grad_diff")["provenance"]),
        "it is the same cell as grad_diff seed 0",
    ),
    "another engine": (told("engine", "vllm"), "engine: it is 'vllm'"),
    "another limit": (told("limits", "fur all"), "limits: it is 'fur all'"),
    "options that are none": (told("options", "[1]"), "options: it is no JSON object"),
    "a column left out": (
        lambda c: row(c)["scores"].pop(COLUMN),
        f"npo seed 0, {COLUMN}: it has no score there, which others have",
    ),
    "a method in another's place": (
        of("npo", role="exact"), "npo seed 0, role: its role is exact, that of the method method",
    ),
    "a negative cost": (
        lambda c: row(c)["costs"].update(edit_seconds=-5), "npo seed 0, edit_seconds: it is -5",
    ),
    "a number beyond all numbers": (score(value=10**400), "a number of 401 digits is no figure"),
    "another seed": (told("seeds", "1"), "it is not the row's seed 0"),
    "a headline turned over": (
        score(value=0.75, low=0.46, high=0.92, delta=-0.25),
        f"npo seed 0, {COLUMN}: its calibrated score is 0.75, and its value 0.75 gives 0.25",
    ),
    "perplexity turned over": (
        lambda c: row(c)["scores"]["wikitext_mini.word_perplexity"].update(
            value=900.0, low=800.0, high=999.0, delta=900.0 - row(c, "noop")["scores"][
                "wikitext_mini.word_perplexity"]["value"],
        ),
        "npo seed 0, wikitext_mini.word_perplexity: its calibrated score is 1, and its value 900.0",
    ),
    "a choice without an interval's width": (
        score(stderr=0.0, low=0.25, high=0.25),
        f"npo seed 0, {COLUMN}: its interval is the one point 0.25 and its standard error 0.0, "
        "which 12 items of 0 or 1 never give",
    ),
    "prose without spread": (
        lambda c: row(c)["scores"]["wikitext_mini.word_perplexity"].update(
            stderr=0.0, **dict.fromkeys(
                ("low", "high"), row(c)["scores"]["wikitext_mini.word_perplexity"]["value"]
            ),
        ),
        "npo seed 0, wikitext_mini.word_perplexity: its interval is the one point",
    ),
    "a mean without an error": (
        lambda c: row(c, "npo", "mean")["scores"][COLUMN].update(stderr=0.0),
        f"npo seed mean, {COLUMN}: its standard error is 0.0, its seeds give 0.1",
    ),
    "no target": (
        lambda c: c.update(rows=[one for one in c["rows"] if one["method"] != "noop"]),
        "npo seed 0, fur.forget_extraction_strength: it is relative to the target, and no target "
        "row of seed 0 has scores",
    ),
    "no target and no deltas": (
        lambda c: c.update(rows=[without_deltas(o) for o in c["rows"] if o["method"] != "noop"]),
        "grad_diff seed 1, fur.forget_extraction_strength: it is relative to the target",
    ),
    "one seed's target left out": (
        lambda c: c["rows"].remove(row(c, "noop", "1")),
        "npo seed 1, fur.forget_extraction_strength: it is relative to the target",
    ),
    "a delta to no number": (
        lambda c: row(c, "noop")["scores"].pop(COLUMN),
        f"npo seed 0, {COLUMN}: its delta is -0.75, and the target has no score there",
    ),
    "a screen cleared by a reason": (
        of("simnpo", reason="out of\x1b[2J memory"),
        "simnpo seed 0, reason: it holds a control character or an invisible mark: 'out of␛[2J",
    ),
    "a name that turns round": (
        lambda c: row(c).update(method="\u202eopn"),
        "⟨U+202E⟩opn seed 0, method: it holds a control character or an invisible mark",
    ),
    "a bell in a unit": (
        lambda c: c["columns"][0].update(unit="share\x07"),
        "fur.forget_extraction_strength: it holds a control character",
    ),
    "a bell in provenance": (told("scorer", "fake\x07"), "npo seed 0, provenance.scorer: it holds"),
    "a note that hides": (
        lambda c: c["protocol"]["notes"].append("as\u200b usual"),
        "protocol.notes: it holds a control character",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_said(board: Path, name: str) -> None:
    change, says = FAULTS[name]
    verdict = check(board, change)
    assert says in render_verdicts([verdict])
    assert all(fault.next_step for fault in verdict.faults)


@pytest.mark.parametrize(
    "name",
    ["weights_fingerprint", "data_sha256", "scorer", "scorer_version", "seeds", "versions",
     "limits", "options", "cell_key"],
)  # fmt: skip
def test_provenance_that_is_missing_is_named(board: Path, name: str) -> None:
    verdict = check(board, lambda content: row(content)["provenance"].pop(name))
    assert f"npo seed 0, {name}: it is missing" in render_verdicts([verdict])


def test_a_run_that_judges_nothing_has_no_scorers_version(board: Path) -> None:
    def unjudged(content: dict[str, Any]) -> None:
        nobody = {"name": "none", "version": "", "weights_sha256": ""}
        content["protocol"]["scorer"] |= nobody
        for one in content["rows"]:
            one["provenance"] |= {"scorer": "none", "scorer_version": "", "scorer_sha256": ""}

    assert not check(board, unjudged).faults


def test_a_failed_row_needs_no_weights(board: Path) -> None:
    content = read_json(board)
    assert row(content, "simnpo")["provenance"]["weights_fingerprint"] == ""
    assert not check(board, lambda _: None).faults


def test_the_largest_group_may_lie_outside_its_interval(board: Path) -> None:
    """Its bootstrap is biased upwards; of a task that nobody knows here it may be such a one."""
    content = read_json(board)
    column = {"name": "own.worst", "task": "own", "metric": "worst", "direction": "lower"}
    content["columns"].append(column | {"unit": "", "headline": True})
    content["protocol"]["tasks"]["own"] = {"items": None, "source": ""}
    bare = {"value": 0.2, "stderr": 0.1, "low": 0.3, "high": 0.5, "n": 9, "missing": 0}
    for one in content["rows"]:
        if one["scores"]:
            one["scores"]["own.worst"] = bare | {"delta": None if one["role"] == "target" else 0.0}
    assert not list(check_rows(BoardFile.model_validate(content)))


def test_what_a_method_is_for_is_no_part_of_what_it_keeps(board: Path) -> None:
    """Were the prose npo's goal, wholly reached: gain (0.75 + 1)/2, keep 0.75 of the facts alone;
    overall 2/(1/.875 + 1/.75) = 21/26.
    """

    def purpose(content: dict[str, Any]) -> None:
        name, own = "wikitext_mini.word_perplexity", row(content)
        content["overall"]["columns"]["detoxify"] = [name]
        own["calibrated"][name]["form"] = "removed"
        own["overall"] |= {"value": 21 / 26, "low": None, "high": None, "gain": 0.875}
        own["overall"] |= {"keep": 0.75, "gains": {"forget": 0.75, "detoxify": 1.0}}
        content["rows"] = [one for one in content["rows"] if one["seed"] != "mean"]

    content = read_json(board)
    purpose(content)
    assert not list(check_rows(BoardFile.model_validate(content)))


CSV: dict[str, tuple[Callable[[str], str], str]] = {
    "another value": (lambda t: t.replace(",0.25,", ",0.24,", 1), "says '0.24', the JSON '0.25'"),
    "a formula": (
        lambda t: t.replace("simnpo is failed", "=cmd|'/c calc'!A0", 1),
        "a spreadsheet would run \"=cmd|'/c calc'!A0\"",
    ),
    "a row less": (lambda t: t[: t.rindex("simnpo")], "14 rows, the JSON 15"),
    "another column": (lambda t: t.replace("overall.gain", "winner", 1), "other columns"),
    "nothing": (lambda t: "", "other columns"),
}


@pytest.mark.parametrize("name", CSV)
def test_a_csv_that_says_something_else_is_found(board: Path, name: str) -> None:
    change, says = CSV[name]
    file = board.with_suffix(".csv")
    file.write_text(change(file.read_text()))
    (verdict,) = validate([board])
    assert says in render_verdicts([verdict])


def test_a_number_that_its_cell_does_not_have_is_found(board: Path, run: Path) -> None:
    """An upper end moved throughout: nothing in the file disagrees, but the cell does."""

    def unsure(content: dict[str, Any]) -> None:
        for seed in ("0", "1", "mean"):
            row(content, "npo", seed)["scores"]["fur.forget_extraction_strength"]["high"] = 0.9

    assert not check(board, unsure).faults
    verdict = check(board, lambda _: None, run)
    text = render_verdicts([verdict])
    assert "npo seed 0, fur.forget_extraction_strength: high is 0.9, its cell has 0.5" in text
    assert "npo seed mean, fur.forget_extraction_strength: scores.fur" in text
    assert len(verdict.faults) == 3


def test_a_row_is_held_against_its_cells_status_weights_and_scores(board: Path, run: Path) -> None:
    def forge(content: dict[str, Any]) -> None:
        row(content)["provenance"]["weights_fingerprint"] = "sha256:" + "0" * 64
        del row(content, "grad_diff")["scores"][COLUMN]
        row(content, "simnpo")["status"] = "diverged"
        row(content, "noop", "1")["provenance"]["cell_key"] = "0" * 64

    text = render_verdicts([check(board, forge, run)])
    assert "npo seed 0: its cell has the weights sha256:" in text
    assert f"grad_diff seed 0, {COLUMN}: its cell has a score there, it has none" in text
    assert "simnpo seed 0: its status is diverged, its cell's is failed" in text
    assert "noop seed 1: its cell is in none of the runs" in text


def test_a_turned_column_that_agrees_with_itself_takes_the_cells(board: Path, run: Path) -> None:
    """Every model's choices counted the other way round: 1 − x moves target, exact model and method
    alike, so nothing in the file disagrees. The cells do.
    """

    def turn(content: dict[str, Any]) -> None:
        for one in content["rows"]:
            if one["scores"]:
                own = one["scores"][COLUMN]
                own |= {"value": 1 - own["value"], "low": 1 - own["high"], "high": 1 - own["low"]}
                own["delta"] = None if own["delta"] is None else -own["delta"]

    assert not check(board, turn).faults
    text = render_verdicts([check(board, lambda _: None, run)])
    assert f"npo seed 0, {COLUMN}: value is 0.75, its cell has 0.25" in text


def test_the_direction_of_a_task_unknown_here_is_its_cells(
    board: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cells only: what a task says that nobody has installed cannot be looked up."""
    for place in ("validate", "check_rows", "check_scale"):
        monkeypatch.setattr(f"unlearn_bench.board.{place}.list_protocols", dict)

    def turn(content: dict[str, Any]) -> None:
        next(one for one in content["columns"] if one["name"] == COLUMN)["direction"] = "higher"

    assert not check(board, turn).faults
    text = render_verdicts([check(board, lambda _: None, run)])
    assert f"npo seed 0, {COLUMN}: it is higher in 'share', its cell has nearer_exact" in text


def test_no_spread_is_no_fault_where_every_item_may_be_alike(board: Path) -> None:
    """One answer to everything is as long in every item; a share of answers recited is k/T."""
    alike = {"stderr": 0.0, "low": 0.25, "high": 0.25}

    def one_answer(content: dict[str, Any]) -> None:
        row(content)["scores"]["fur.forget_extraction_strength"].update(alike)
        content["rows"] = [one for one in content["rows"] if one["seed"] != "mean"]

    assert not check(board, one_answer).faults


def test_a_row_with_a_scale_from_elsewhere_is_left_alone(board: Path) -> None:
    """As a merged board keeps it, without its cells: nearly all its calibrated scores are off."""
    content = read_json(board)
    for told in row(content)["calibrated"].values():
        told["value"] = told["value"] and told["value"] * 0.97
    assert not list(check_scale(BoardFile.model_validate(content)))


def test_a_board_that_we_write_steers_no_screen(tmp_path: Path) -> None:
    """Whatever a reason, a note or a failing library says: shown in all three files."""
    said = "weights\x1b[2J not\u202e found"
    written = write_run(tmp_path, ("noop", "exact_unlearning", "npo"), notes=[said])
    board = read_json(written)
    board["rows"][-1] |= {"reason": said}
    written.write_text(json.dumps(board))
    for path in write_board(read_board(written), tmp_path / "again"):
        text = path.read_text(encoding="utf-8")
        assert visible(text) == text
        assert "\\u001b" not in text
        assert "weights␛[2J not⟨U+202E⟩ found" in text.replace("\\[", "[")
    assert not validate([tmp_path / "again" / "quick.json"])[0].faults


def test_the_command_ends_with_0_1_or_2_and_speaks_json(board: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["board", "validate", str(board)])
    assert (good.exit_code, good.output) == (0, f"{board}: valid (15 rows, 82 columns)\n")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    bad = runner.invoke(app, ["board", "validate", str(board), str(broken), "--json"])
    assert bad.exit_code == 1
    first, second = json.loads(bad.output)["files"]
    assert (first["valid"], second["valid"]) == (True, False)
    assert "cannot be read" in second["faults"][0]["what"]
    assert set(second["faults"][0]) == {"row", "column", "what", "next"}
    gone = runner.invoke(app, ["board", "validate", str(tmp_path / "gone.json")])
    assert gone.exit_code == 2
    with pytest.raises(UsageError, match="there is no file"):
        validate([tmp_path / "gone.json"])


def forged(**parts: Any) -> Change:
    """npo's derived numbers of seed 0 changed, as by hand in a text editor."""

    def change(content: dict[str, Any]) -> None:
        own = row(content)
        for name, value in parts.items():
            first = own[name][next(iter(own[name]))] if name != "overall" else own[name]
            first.update(value)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            forged(calibrated={"low": 0.0123}),
            "calibrated.fur.forget_extraction_strength.low is 0.0123",
        ),
        (forged(overall={"high": 0.9876}), "overall.high is 0.9876, its cells give"),
        (
            lambda content: row(content)["scores"]["fur.forget_quality"].update(
                value=0.777, delta=None
            ),
            "scores.fur.forget_quality.value is 0.777, its cells give",
        ),
        (
            lambda content: row(content, seed="mean")["scores"][COLUMN].update(low=0.0011),
            f"npo seed mean, {COLUMN}: scores.{COLUMN}.low is 0.0011, its cells give",
        ),
    ],
    ids=["calibrated", "overall", "against exact", "mean"],
)
def test_a_derived_number_that_the_cells_do_not_give_is_found(
    board: Path, run: Path, change: Change, said: str
) -> None:
    text = render_verdicts([check(board, change, run)])
    assert said in text


def test_without_the_scales_ends_no_derived_number_is_made(
    board: Path, run: Path, tmp_path: Path
) -> None:
    """A board whose target ran elsewhere: what needs it is left to whoever has it."""
    part = tmp_path / "part"
    shutil.copytree(run, part)
    for cell in (part / "cells").glob("*noop*"):
        shutil.rmtree(cell)
    text = render_verdicts([check(board, forged(overall={"high": 0.9876}), part)])
    assert "noop seed 0: its cell is in none of the runs" in text
    assert "its cells give" not in text
