"""`verify` on a real run of a tiny model, as it is and with single numbers and answers changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit import harness_files
from unlearn_bench.cli import app
from unlearn_bench.compare.against_exact import score_against_exact
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.replay import MESSAGE, same_question
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.runs import store
from unlearn_bench.runs.verify import FIGURES, Finding, verify_run
from unlearn_bench.schema import ItemScore

SUITE = """
name: small
tasks:
  [fur, membership, truthfulqa, truthfulqa_gen, wikitext, gsm8k, toxigen, toxigen_classification,
  jailbreak, over_refusal]
limits: {fur: 8, membership: 4, truthfulqa: 3, truthfulqa_gen: 1, wikitext: 1, gsm8k: 1,
  toxigen: 13, toxigen_classification: 3, jailbreak: 1, over_refusal: 12}
paraphrases: 1
"""


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, long_tiny_folder: Path) -> Path:
    """A run of two cells through the main command, every bundled task in it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(SUITE)
    result = invoke(
        *("evaluate", "--target", str(long_tiny_folder), "--methods", "random_noise"),
        *("--suite", str(folder / "small.yaml"), "--engine", "transformers", "--offline"),
        *("--scorer", "profanity_check", "--output", str(folder / "out")),
    )
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def cell(run: Path) -> Path:
    return next(run.glob("cells/*random_noise*"))


def check(run: Path) -> Finding:
    findings = verify_run(run, SourceOptions(offline=True))
    return next(finding for finding in findings if "random_noise" in finding.cell)


def rewrite(folder: Path, name: str, write: Callable[[Path], str]) -> None:
    """Change a file and give the record its new hash, as one would who wants to deceive."""
    record = store.read_record(folder, json.loads((folder / "plan.json").read_text())["key"])
    assert record is not None
    files = {**record.files, name: write(folder / name)}
    store.write_record(folder, dataclasses.replace(record, files=files))


def test_every_score_follows_from_the_answers(finished: Path) -> None:
    for finding in verify_run(finished, SourceOptions(offline=True)):
        assert (finding.wrong, finding.unchecked) == ([], [])
        assert finding.status == "success"
        assert finding.samples > 40
        assert finding.scores > 90
    result = invoke("verify", str(finished), "--offline")
    assert result.exit_code == 0, result.output
    assert "2 cells: 0 wrong, 0 not wholly checked" in result.output


def test_a_changed_score_is_found(run: Path) -> None:
    folder = cell(run)
    scores = store.read_scores(folder / "scores.json")
    scores[0] = dataclasses.replace(scores[0], value=scores[0].value + 1e-9)
    rewrite(folder, "scores.json", lambda path: store.write_json(path, scores))
    finding = check(run)
    assert len(finding.wrong) == 1
    assert "scores.json: fur.forget_extraction_strength: stored" in finding.wrong[0]
    result = invoke("verify", str(run), "--offline", "--json")
    assert result.exit_code == 1
    found = {entry["cell"]: entry["wrong"] for entry in json.loads(result.stdout)}
    assert len(found) == 2
    assert found[finding.cell] == finding.wrong


def test_a_changed_item_is_found_though_its_score_agrees(run: Path) -> None:
    folder = cell(run)
    items = store.read_items(folder / "items.parquet")
    index = next(i for i, row in enumerate(items) if row.metric == "mc2")
    items[index] = dataclasses.replace(items[index], value=math.nan)
    rewrite(folder, "items.parquet", lambda path: store.write_items(path, items))
    (wrong,) = check(run).wrong
    assert f"truthfulqa_mini.mc2 of {items[index].item_id}: stored nan" in wrong


def restate(folder: Path, items: list[ItemScore]) -> None:
    """Other items, and beside them the very scores that they make: all fits together."""
    known = list_protocols()
    tasks = dict.fromkeys(row.task for row in items)
    scores = aggregate(items, {name: known[name].judged_by(()) for name in tasks})
    rewrite(folder, "items.parquet", lambda path: store.write_items(path, items))
    rewrite(folder, "scores.json", lambda path: store.write_json(path, scores))


def test_a_row_too_many_is_found_though_its_score_agrees(run: Path) -> None:
    folder = cell(run)
    items = store.read_items(folder / "items.parquet")
    row = next(row for row in items if row.metric == "mc2")
    restate(folder, [*items, dataclasses.replace(row, item_id="made up", value=1.0)])
    rows, scores = check(run).wrong
    assert rows == "items.parquet: truthfulqa_mini.mc2 of made up: stored 1.0, is nothing"
    assert scores.startswith("scores.json: truthfulqa_mini.mc2: stored (")


def test_a_row_that_is_there_twice_or_of_no_task_of_the_run_is_found(run: Path) -> None:
    folder = cell(run)
    items = store.read_items(folder / "items.parquet")
    other = dataclasses.replace(items[0], task="mmlu")
    rewrite(
        folder, "items.parquet", lambda path: store.write_items(path, [*items, items[0], other])
    )
    (wrong,) = check(run).wrong
    assert f"{items[0].task}.{items[0].metric} of {items[0].item_id}: 2 rows" in wrong
    assert f"mmlu.{other.metric} of {other.item_id}: stored {other.value}, is nothing" in wrong


@pytest.mark.parametrize("field", ["group", "cluster"])
def test_items_that_changed_places_are_found_though_their_scores_agree(
    run: Path, field: str
) -> None:
    """Every value stays where it is. ToxiGen's groups: their means, the gap and the errors are
    others; a subject of `fur`: which facts err together.
    """
    folder = cell(run)
    metric = {"group": "toxic_rate", "cluster": "forget_choice_acc"}[field]
    items = store.read_items(folder / "items.parquet")
    places = [index for index, row in enumerate(items) if row.metric == metric]
    one = places[0]
    two = next(n for n in places if getattr(items[n], field) != getattr(items[one], field))
    before = [getattr(items[index], field) for index in (one, two)]
    for index, name in zip((one, two), reversed(before), strict=True):
        items[index] = dataclasses.replace(items[index], **{field: name})
    restate(folder, items)
    wrong = check(run).wrong[0]
    assert wrong.startswith("items.parquet: ")
    assert f"of {items[one].item_id}, {field}: stored {before[1]!r}, is {before[0]!r}" in wrong


def test_a_score_too_many_is_found(run: Path) -> None:
    """One that no task has, one of a task that was not asked, and one that is there twice."""
    folder = cell(run)
    scores = store.read_scores(folder / "scores.json")
    made = dataclasses.replace(scores[0], metric="made_up", value=1.0)
    scores += [made, dataclasses.replace(made, task="mmlu"), scores[0]]
    rewrite(folder, "scores.json", lambda path: store.write_json(path, scores))
    (wrong,) = check(run).wrong
    assert f"{made.task}.made_up: stored (1.0, " in wrong
    assert "mmlu.made_up: stored (1.0, " in wrong
    assert wrong.count("is nothing") == 2
    assert f"{scores[0].task}.{scores[0].metric}: 2 scores" in wrong


def test_a_score_that_claims_another_direction_is_found(run: Path) -> None:
    folder = cell(run)
    scores = store.read_scores(folder / "scores.json")
    place = next(n for n, score in enumerate(scores) if score.direction == "lower")
    scores[place] = dataclasses.replace(scores[place], direction="higher")
    rewrite(folder, "scores.json", lambda path: store.write_json(path, scores))
    (wrong,) = check(run).wrong
    assert wrong.startswith(f"scores.json: {scores[place].task}.{scores[place].metric}: stored")


def test_without_the_scorer_its_values_are_taken_as_stored_and_nothing_else_is(run: Path) -> None:
    """The groups and the number of judged items are the answers' own, whoever judges."""
    folder = cell(run)
    plan = json.loads((folder / "plan.json").read_text())
    plan["determinants"]["scorer"]["version"] = "0"
    items = store.read_items(folder / "items.parquet")
    row = next(row for row in items if row.metric == "toxic_rate")
    restate(folder, [*items, dataclasses.replace(row, item_id="made up", value=1.0)])
    rewrite(folder, "plan.json", lambda path: store.write_json(path, plan))
    finding = check(run)
    assert any("is not available here" in text for text in finding.unchecked)
    assert any("toxic_rate of made up: stored 1.0, is nothing" in text for text in finding.wrong)


def change_board(run: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Rewrite the run's board; its name below the run."""
    (path,) = run.glob("leaderboards/*/*.json")
    content = json.loads(path.read_text())
    rows = {row["method"]: row for row in content["rows"]}
    change(rows)
    path.write_text(json.dumps(content))
    return str(path.relative_to(run))


def test_a_board_that_says_another_score_than_its_cell_is_found(run: Path) -> None:
    def flatter(rows: dict[str, Any]) -> None:
        rows["random_noise"]["scores"]["truthfulqa_mini.mc2"]["value"] = 0.99

    name = change_board(run, flatter)
    (wrong,) = check(run).wrong
    assert wrong.startswith(f"{name}: truthfulqa_mini.mc2: stored (0.99, ")


def test_what_a_board_says_against_the_exact_model_follows_from_both_cells(run: Path) -> None:
    """The board calls the noisy model the exact one: PrivLeak is then of these two cells' items,
    by the same formula, and its own is 0 %.
    """
    board = change_board(run, lambda rows: rows["random_noise"].update(role="exact"))
    (wrong,) = check(run).wrong
    assert wrong.startswith(f"{board}: fur.forget_")
    assert "membership.privleak: stored (nan, " in wrong
    noop = next(run.glob("cells/*noop*"))
    known = list_protocols()
    protocols = {name: known[name] for name in ("fur", "membership")}
    exact = store.read_items(cell(run) / "items.parquet")

    def tell(rows: dict[str, Any]) -> None:
        for method, folder in (("noop", noop), ("random_noise", cell(run))):
            own = store.read_items(folder / "items.parquet")
            for score in score_against_exact(own, exact, protocols):
                said = {name: getattr(score, name) for name in FIGURES}
                rows[method]["scores"][f"{score.task}.{score.metric}"].update(
                    {name: None if value != value else value for name, value in said.items()}
                )

    change_board(run, tell)
    assert [one.wrong for one in verify_run(run, SourceOptions(offline=True))] == [[], []]
    name = "membership.privleak"
    change_board(run, lambda rows: rows["noop"]["scores"][name].update(value=-12.5))
    findings = verify_run(run, SourceOptions(offline=True))
    (wrong,) = next(one.wrong for one in findings if "noop" in one.cell)
    assert wrong.startswith(f"{board}: {name}: stored (-12.5, ")


def test_what_is_not_looked_at_is_said(run: Path) -> None:
    """A calibrated score takes more than is worked out here, so a changed one goes unseen."""

    def flatter(rows: dict[str, Any]) -> None:
        rows["random_noise"]["calibrated"]["truthfulqa_mini.mc2"]["value"] = 1.0

    change_board(run, flatter)
    said: list[str] = []
    findings = verify_run(run, SourceOptions(offline=True), say=said.append)
    assert [finding.wrong for finding in findings] == [[], []]
    assert said[-1].startswith("not looked at: what the run's boards derive from")
    assert {finding.outside for finding in findings} == {said[-1].removeprefix("not looked at: ")}


def test_a_changed_answer_is_found(run: Path) -> None:
    """Every stored number still fits every other; only the text is another."""
    folder = cell(run)
    samples = store.read_samples(folder / "samples.parquet")
    index = next(i for i, sample in enumerate(samples) if sample.task == "toxigen_mini")
    samples[index] = dataclasses.replace(samples[index], outputs=("you stupid fucking idiot",))
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    assert any("items.parquet: toxigen_mini." in text for text in check(run).wrong)


def test_a_changed_likelihood_is_found(run: Path) -> None:
    folder = cell(run)
    samples = store.read_samples(folder / "samples.parquet")
    index = next(i for i, sample in enumerate(samples) if sample.task == "fur_choice")
    first, *others = samples[index].tokens
    better = dataclasses.replace(first, log_probs=tuple(-1e-6 for _ in first.log_probs))
    worse = [dataclasses.replace(o, log_probs=tuple(-9.0 for _ in o.log_probs)) for o in others]
    samples[index] = dataclasses.replace(samples[index], tokens=(better, *worse))
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    assert any(f"{samples[index].item_id} none" in text for text in check(run).wrong)


def test_a_question_that_was_never_asked_so_is_found(run: Path) -> None:
    folder = cell(run)
    samples = store.read_samples(folder / "samples.parquet")
    index = next(i for i, sample in enumerate(samples) if sample.task == "gsm8k_mini")
    samples[index] = dataclasses.replace(samples[index], prompt="Answer: #### 5. Question:")
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    (wrong,) = check(run).wrong
    assert wrong.startswith(f"gsm8k_mini: gsm8k_mini {samples[index].item_id} ")
    assert wrong.endswith("prompt is not the task's")


def test_a_conversation_with_other_words_is_found(run: Path) -> None:
    """The template is the model's and unknown here; what was said in it is the task's."""
    folder = cell(run)
    samples = store.read_samples(folder / "samples.parquet")
    index = next(i for i, sample in enumerate(samples) if sample.task == "jailbreak_mini")
    softer = samples[index].prompt.replace(samples[index].document["prompt"], "How are you?")
    samples[index] = dataclasses.replace(samples[index], prompt=softer)
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    (wrong,) = check(run).wrong
    assert wrong.endswith(f"{samples[index].item_id} none prompt is not the task's")


@pytest.mark.parametrize(
    ("stored", "same"),
    [
        ("<user>Hello?<answer>Well:", True),
        ("Hello? Well:", True),
        ("<answer>Well:<user>Hello?", False),  # in another order
        ("<user>Hello?<answer>", False),
    ],
)
def test_a_conversation_holds_its_messages_in_order(stored: str, same: bool) -> None:
    assert same_question(stored, f"{MESSAGE}Hello?{MESSAGE}Well:") is same
    assert not same_question("Hello? And more", "Hello?")  # plain text has nothing around it


def test_left_out_items_are_found(run: Path) -> None:
    folder = cell(run)
    samples = store.read_samples(folder / "samples.parquet")[1:]
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    (wrong,) = check(run).wrong
    assert "there is no stored answer to item of" in wrong


def test_a_file_that_is_not_the_recorded_one_is_found(run: Path) -> None:
    with (cell(run) / "scores.json").open("a") as file:
        file.write(" ")
    assert check(run).wrong == ["scores.json is not what the record says"]


def test_other_determinants_than_the_key_says_are_found(run: Path) -> None:
    def claim(path: Path) -> str:
        plan = json.loads(path.read_text())
        plan["determinants"]["method"]["options"]["relative_norm"] = 0.5
        return store.write_json(path, plan)

    rewrite(cell(run), "plan.json", claim)
    assert "the key is not the hash of the determinants" in check(run).wrong


def test_what_cannot_be_checked_is_said_and_is_not_right(run: Path) -> None:
    """Another scorer version, other data, and another protocol than are here."""

    def claim(path: Path) -> str:
        plan = json.loads(path.read_text())
        facts = plan["determinants"]
        facts["scorer"]["version"] = "0"
        facts["suite"]["tasks"]["wikitext_mini"]["data_sha256"] = "0"
        facts["suite"]["tasks"]["gsm8k_mini"]["protocol_sha256"] = "0"
        plan["key"] = hashlib.sha256(store.canonical_json(facts)).hexdigest()
        return store.write_json(path, plan)

    folder = cell(run)
    key = json.loads((folder / "plan.json").read_text())["key"]
    record = store.read_record(folder, key)
    assert record is not None
    files = {**record.files, "plan.json": claim(folder / "plan.json")}
    new = json.loads((folder / "plan.json").read_text())["key"]
    store.write_record(folder, dataclasses.replace(record, key=new, files=files))
    finding = check(run)
    assert finding.wrong == []
    assert finding.unchecked == [
        "gsm8k_mini: scored under another version of its protocol",
        "wikitext_mini: values are taken as stored, since the data here are not those of the run",
        "toxigen_mini: profanity_check as it was is not available here",
    ]
    assert invoke("verify", str(run), "--offline").exit_code == 3


def test_edited_and_asked_again_the_answers_are_the_same(run: Path) -> None:
    result = invoke("verify", str(run), "--offline", "--rerun", "9", "--methods", "random_noise")
    assert result.exit_code == 0, result.output
    # Nine items; one of GSM8K has an answer under each of its two filters.
    assert re.search(r"random_noise-s0 again: right \(success, (9|10) answers", result.output)
    assert "noop-s0 again" not in result.output
    assert not list(run.glob("tmp*"))  # the checkpoint is gone


def test_answers_of_another_model_are_found(run: Path) -> None:
    """The likelihoods of every text moved by one nat, as another edit's would be, and all texts
    replaced: everything stored still fits together but for the model.
    """
    folder = cell(run)
    samples = [
        dataclasses.replace(
            sample,
            likelihoods=tuple((total - 1, greedy) for total, greedy in sample.likelihoods),
            outputs=tuple("something else" for _ in sample.outputs),
        )
        for sample in store.read_samples(folder / "samples.parquet")
    ]
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    arguments = ("--offline", "--rerun", "500", "--methods", "random_noise")
    result = invoke("verify", str(run), *arguments)
    assert result.exit_code == 1
    again = result.output.partition("again: wrong")[2]
    assert "other likelihoods: fur_choice" in again
    assert "too many texts are others, " in again


def test_a_run_of_other_code_is_not_said_to_be_wrong(run: Path) -> None:
    """No cell has the key that this version would give it."""
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**settings, "seeds": [5]}))
    result = invoke("verify", str(run), "--offline", "--rerun", "2", "--methods", "random_noise")
    assert result.exit_code == 3
    assert "no finished cell has this key" in result.output


def test_no_run_there_is_said(tmp_path: Path) -> None:
    result = invoke("verify", str(tmp_path))
    assert result.exit_code == 3
    assert "there is no cell to verify" in result.output


@pytest.fixture(scope="module")
def with_task_file(tmp_path_factory: pytest.TempPathFactory, long_tiny_folder: Path) -> Path:
    """A run that asked three of five items of a task file that names code, with two shots each."""
    folder = tmp_path_factory.mktemp("task_file")
    path = harness_files.write_task(folder, "num_fewshot: 2\nprocess_docs: !function own.shout\n")
    (folder / "own.py").write_text(SHOUT)
    result = invoke(
        *("evaluate", "--target", str(long_tiny_folder), "--methods", "noop"),
        *("--suite", "smoke", "--tasks", str(path), "--limit", "3", "--allow-task-code"),
        *("--engine", "transformers", "--offline", "--output", str(folder / "out")),
    )
    assert result.exit_code == 0, result.output
    return folder


SHOUT = """
def shout(docs):
    return docs.map(lambda doc: {"question": doc["question"].upper()})
"""


def check_task_file(folder: Path, *, allow_code: bool = True) -> Finding:
    (found,) = verify_run(folder / "out", SourceOptions(offline=True), allow_code=allow_code)
    return found


def test_a_task_file_is_verified_like_our_own_tasks(with_task_file: Path) -> None:
    finding = check_task_file(with_task_file)
    assert (finding.wrong, finding.unchecked) == ([], [])
    assert finding.samples == 3
    result = invoke("verify", str(with_task_file / "out"), "--offline", "--allow-task-code")
    assert result.exit_code == 0, result.output


def test_a_changed_answer_to_a_task_file_is_found(with_task_file: Path, tmp_path: Path) -> None:
    shutil.copytree(with_task_file / "out", tmp_path / "out")
    (folder,) = (tmp_path / "out" / "cells").iterdir()
    samples = store.read_samples(folder / "samples.parquet")
    right = samples[2].document["label"]
    tokens = [
        dataclasses.replace(
            option, log_probs=tuple(-1e-6 if i == right else -9.0 for _ in option.log_probs)
        )
        for i, option in enumerate(samples[2].tokens)
    ]
    worse = [dataclasses.replace(o, log_probs=tuple(-9.0 for _ in o.log_probs)) for o in tokens]
    better = samples[2].values["acc"] == 0.0
    samples[2] = dataclasses.replace(
        samples[2], tokens=tuple(tokens if better else [*worse[:right], *tokens[right + 1 :]])
    )
    rewrite(folder, "samples.parquet", lambda path: store.write_samples(path, samples))
    assert check_task_file(tmp_path).wrong


def test_a_task_file_is_no_longer_what_it_was(with_task_file: Path) -> None:
    """Code that nobody allowed now, another definition, other data, and no file at all."""
    assert "code" in check_task_file(with_task_file, allow_code=False).unchecked[0]
    path, data = with_task_file / "capitals.yaml", with_task_file / "capitals.jsonl"
    before, rows = path.read_text(), data.read_text()
    path.write_text(before.replace("Q: ", "Question: "))
    assert "another here" in check_task_file(with_task_file).unchecked[0]
    path.write_text(before)
    data.write_text(rows.replace("land 4", "land 40"))
    assert "the data here are not" in check_task_file(with_task_file).unchecked[0]
    data.write_text(rows)
    path.rename(path.with_suffix(".away"))
    assert "no task file" in check_task_file(with_task_file).unchecked[0]
    path.with_suffix(".away").rename(path)
    assert check_task_file(with_task_file).unchecked == []
