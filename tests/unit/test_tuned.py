"""The winners from one command to the next: written, read, refused, and shown on the board."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests.unit.test_execute import Screen
from tests.unit.tuning_doubles import TuningSteps, method_cards, run_tuning
from unlearn_bench.board.files import render_csv, render_json
from unlearn_bench.board.markdown import render_markdown
from unlearn_bench.board.table import TUNING, Board, Row, build_board
from unlearn_bench.board.terminal import render_terminal
from unlearn_bench.board.tuning import print_tuning
from unlearn_bench.config import RunConfig
from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.registry import Card
from unlearn_bench.runs import resolve
from unlearn_bench.runs.plan import Plan
from unlearn_bench.runs.store import canonical_json
from unlearn_bench.runs.tuned import Winner, load_tuned


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Card]:
    return method_cards(tmp_path_factory.mktemp("methods"), "mine", "other")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cards: dict[str, Card]) -> Path:
    """The output of a finished tuning of two methods, whose trials fail above a strength of 2."""
    output = tmp_path_factory.mktemp("out")
    run_tuning(output, cards, TuningSteps(broken=2.0), trials=6)
    return output


def test_the_winners_survive_the_file(cards: dict[str, Card], folder: Path) -> None:
    found = load_tuned(folder / "tuned.yaml", cards)
    again = run_tuning(folder, cards, TuningSteps(broken=2.0), trials=6)
    assert found.file is not None
    assert found.file.methods == {name: own.winner() for name, own in again.methods.items()}
    assert found.options == {name: own.winner().options for name, own in again.methods.items()}
    assert found.file.budget.model_dump() == {"trials": 6, "seconds": 1e6}


def test_the_winners_name_the_very_trials_that_they_come_from(folder: Path) -> None:
    content = json.loads((folder / "tuning.json").read_text())
    winners = yaml.safe_load((folder / "tuned.yaml").read_text())
    assert winners["tuning_sha256"] == hashlib.sha256(canonical_json(content)).hexdigest()
    for name, winner in winners["methods"].items():
        trials = content["methods"][name]["trials"]
        best = trials[content["methods"][name]["best"]]
        assert (winner["options"], winner["best"]) == (best["options"], best["objective"])
        assert winner["trials"] == len(trials) == 6
        for trial in trials:  # every trial can be looked up
            (record,) = folder.glob(f"cells/{trial['cell_key'][:16]}-{name}-s0/record.json")
            assert json.loads(record.read_text())["status"] == trial["status"]


def test_the_same_trials_give_the_same_bytes(cards: dict[str, Card], folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("tun*")}
    assert set(before) == {"tuning.json", "tuned.yaml", "tuning.md"}
    run_tuning(folder, cards, TuningSteps(broken=2.0), trials=6)
    assert {path.name: path.read_bytes() for path in folder.glob("tun*")} == before


def test_the_files_for_people_have_every_trial_and_no_folder_of_this_machine(
    tmp_path: Path, cards: dict[str, Card]
) -> None:
    class Lost(TuningSteps):
        def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
            if cell.method == "mine":
                raise FileNotFoundError(2, "No such file or directory", str(checkpoint / "x"))
            return super().edit(cell, checkpoint, tick)

    tuning = run_tuning(tmp_path / "out", cards, Lost(), trials=2)
    texts = [path.read_text() for path in (tmp_path / "out").glob("tun*")]
    assert all(str(tmp_path) not in text for text in texts)
    report = (tmp_path / "out" / "tuning.md").read_text()
    assert report.count("No such file") == 2
    assert "| mine | 2 | 0.000 | 0.000 | 0.000 | – | – | 0 | none |" in report
    console = Console(file=io.StringIO(), width=200, record=True)
    print_tuning(tuning, console)
    text = console.export_text()
    assert "mine" in text
    assert "strength=" in text


def change(folder: Path, **changes: Any) -> Path:
    content = yaml.safe_load((folder / "tuned.yaml").read_text())
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(content | changes))
    return file


def winner(options: dict[str, Any] | None) -> dict[str, Any]:
    return {"options": options, "best": 0.5, "median": 0.4, "trials": 3}


@pytest.mark.parametrize(
    ("methods", "near"),
    [
        ({"mone": winner({})}, "mine"),
        ({"mine": winner({"strengh": 1.0})}, "strength"),
        ({"mine": winner({"steps": "many"})}, "steps"),
    ],
)
def test_unknown_methods_options_and_values_are_refused(
    cards: dict[str, Card], folder: Path, methods: Any, near: str
) -> None:
    file = change(folder, methods=methods)
    with pytest.raises(UsageError, match=near) as caught:
        load_tuned(file, cards)
    assert caught.value.where == str(file)


def test_a_method_that_this_run_leaves_out_is_no_mistake(
    cards: dict[str, Card], folder: Path
) -> None:
    one = {name: card for name, card in cards.items() if name != "other"}
    with pytest.raises(UnknownNameError):  # of a file that this run was not given
        load_tuned(folder / "tuned.yaml", one)
    file = change(folder, methods={"npo": winner({"beta": 0.2}), "mine": winner({"steps": 3})})
    assert load_tuned(file, one).options == {"mine": {"steps": 3}}


def test_a_method_without_a_winner_keeps_its_defaults(cards: dict[str, Card], folder: Path) -> None:
    found = load_tuned(change(folder, methods={"mine": winner(None)}), cards)
    assert found.options == {}
    assert found.winners(cards, {name: {"strength": 1.0, "steps": 2} for name in cards}) == {
        "mine": Winner(options=None, best=0.5, median=0.4, trials=3)
    }


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"extra": 1}, {"methods": {"mine": {"options": {}}}}, {"model": None}],
)
def test_a_file_of_another_form_is_refused(
    cards: dict[str, Card], folder: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_tuned(change(folder, **changes), cards)


@pytest.mark.parametrize("text", ["", "- a\n", "{", "\x00"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        load_tuned(file, {})
    with pytest.raises(UsageError, match="cannot be read"):
        load_tuned(tmp_path / "absent.yaml", {})


def test_an_interrupted_tuning_is_no_equal_budget(cards: dict[str, Card], folder: Path) -> None:
    with pytest.raises(UsageError, match="interrupted"):
        load_tuned(change(folder, complete=False), cards)


@pytest.fixture
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def resolved(model: Path, tuned: Path, **changes: Any) -> Plan:
    given = {
        "model": str(model),
        "methods": ("npo", "grad_diff"),
        "tasks": ("fur",),
        "suite": "smoke",
        "offline": True,
        "engine": "transformers",
        "tuned": tuned,
    }
    return resolve.resolve_plan(RunConfig(**{**given, **changes}), Screen())


@pytest.mark.usefixtures("_own_folders")
def test_tuned_options_stand_above_the_defaults_and_below_set(
    tiny_folder: Path, folder: Path
) -> None:
    from unlearn_bench.models.fingerprint import fingerprint

    methods = {"npo": winner({"lr": 1e-4, "beta": 0.3})}
    file = change(folder, methods=methods, model_fingerprint=fingerprint(tiny_folder))
    plan = resolved(tiny_folder, file)
    options = {cell.method: cell.options for cell in plan.cells}
    assert (options["npo"]["lr"], options["npo"]["beta"]) == (1e-4, 0.3)
    assert options["npo"]["epochs"] == 2  # the method's default
    assert plan.tuned.keys() == {"npo"}
    assert plan.tuning["budget"]["trials"] == 6
    assert "not as tuned: grad_diff" in plan.notes

    plan = resolved(tiny_folder, file, set={"npo": {"beta": 0.05}})
    options = {cell.method: cell.options for cell in plan.cells}
    assert (options["npo"]["lr"], options["npo"]["beta"]) == (1e-4, 0.05)
    assert not plan.tuned  # the board must not say of these options what others reached
    assert "not as tuned: npo, grad_diff" in plan.notes

    plan = resolved(tiny_folder, file, set={"npo": {"beta": 0.3}})
    assert plan.tuned.keys() == {"npo"}


@pytest.mark.usefixtures("_own_folders")
def test_controls_take_the_tuned_options_of_the_method_whose_name_they_bear(
    tiny_folder: Path, folder: Path
) -> None:
    """They differ from it in one thing only; a control with a name of its own takes none."""
    from unlearn_bench.models.fingerprint import fingerprint

    tuned = {"model_surgery": winner({"alpha": 14.0, "fraction": 0.2})}
    file = change(folder, methods=tuned, model_fingerprint=fingerprint(tiny_folder))
    names = ("model_surgery", "model_surgery_random_region", "random_noise")
    plan = resolved(tiny_folder, file, methods=names)
    options = {cell.method: cell.options for cell in plan.cells}
    for name in names[:2]:
        assert (options[name]["alpha"], options[name]["fraction"]) == (14.0, 0.2)
    assert options["random_noise"]["relative_norm"] == 0.03
    assert plan.tuned.keys() == {"model_surgery"}  # the control was not tuned itself
    assert not [note for note in plan.notes if "as tuned" in note]
    unlike = {"model_surgery_random_region": {"alpha": 10.0}}
    notes = resolved(tiny_folder, file, methods=names, set=unlike).notes
    assert "model_surgery_random_region has other options than model_surgery as tuned" in notes


@pytest.mark.usefixtures("_own_folders")
def test_options_of_another_model_are_refused(tiny_folder: Path, folder: Path) -> None:
    file = change(folder, methods={"npo": winner({"lr": 1e-4})})
    with pytest.raises(UsageError, match="tuned on Tiny"):
        resolved(tiny_folder, file)


def board(*tuned: str) -> Board:
    rows = [
        Row(
            method=name,
            seed=seed,
            role="method",
            status="success",
            reason="",
            tuning=dict(zip(TUNING, (0.5, 0.25, 12), strict=True)) if name in tuned else {},
        )
        for name in ("npo", "pke")
        for seed in ("0", "1")
    ]
    return build_board("m", "s", (), rows, {"tuning": {"suite": "validation"}})


def test_the_board_shows_best_median_and_trials_and_dashes_for_the_others() -> None:
    whole = board("npo")
    lines = list(csv.DictReader(io.StringIO(render_csv(whole))))
    assert [tuple(line[name] for name in TUNING) for line in lines] == [
        ("0.5", "0.25", "12")] * 3 + [("", "", "")] * 3  # fmt: skip
    rows = json.loads(render_json(whole))["rows"]
    assert rows[2]["tuning"] == {"tuning_best": 0.5, "tuning_median": 0.25, "tuning_trials": 12}
    assert rows[5]["tuning"] == dict.fromkeys(TUNING)  # null, never 0
    text = render_markdown(whole)
    assert "| 0.500 | 0.250 | 12 |" in text
    assert "| – | – | – |" in text
    assert "tuning: suite validation" in text
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_terminal(whole, 120))
    shown = console.export_text()
    assert "0.500" in shown
    assert "pke" not in shown.rpartition("tuning: best")[2]


def test_a_board_without_tuning_does_not_mention_it() -> None:
    assert "tuning: best" not in render_markdown(board())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_terminal(board(), 120))
    assert "tuning" not in console.export_text()
