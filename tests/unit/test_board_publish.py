"""Boards on a hub: exactly what is written, and nothing where something is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard
from typer.testing import CliRunner

from tests.unit.board_runs import read_json, write_run
from tests.unit.local_hub import LocalHub, local_hub
from unlearn_bench.board.board_file import read_board_file
from unlearn_bench.board.hub import choose_row, describe, prepare, publish_board
from unlearn_bench.cli import app
from unlearn_bench.errors import UnlearnBenchError, UsageError

TO = "someone/things"
CARD = """---
license: apache-2.0
model-index:
- name: Mine
  results:
  - task:
      type: text-generation
    dataset:
      name: Elsewhere
      type: elsewhere
    metrics:
    - type: acc
      value: 0.5
---
# My model

It forgets.
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    methods = ("noop", "exact_unlearning", "npo", "simnpo")
    return write_run(run, methods, (0, 1), ended={"simnpo": "failed"})


@pytest.fixture
def board(written: Path, tmp_path: Path) -> Path:
    for file in written.parent.glob("quick.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "quick.json"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with local_hub() as server:
        yield server


def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.address, token="hf_local")


def test_a_dataset_gets_the_three_files_in_one_commit(board: Path, hub: LocalHub) -> None:
    hub.files["dataset", TO] = {"README.md": b"mine"}
    address = publish_board(prepare(board, TO, "dataset"), api(hub))
    files = hub.files["dataset", TO]
    assert files.pop("README.md") == b"mine"
    assert files == {
        f"tiny/quick.{suffix}": board.with_suffix(f".{suffix}").read_bytes()
        for suffix in ("csv", "json", "md")
    }
    assert hub.commits == [("dataset", TO, "unlearn-bench board of tiny, suite quick")]
    assert address == f"{hub.address}/{TO}/commit/{1:040x}"


def test_a_dry_run_says_the_paths_sizes_and_hashes_that_are_written(
    board: Path, hub: LocalHub
) -> None:
    publication = prepare(board, TO, "dataset")
    said = describe(publication)
    hub.files["dataset", TO] = {}
    publish_board(publication, api(hub))
    for path, content in hub.files["dataset", TO].items():
        digest = hashlib.sha256(content).hexdigest()
        assert f"  {path}: {len(content)} bytes, sha256 {digest}\n" in said


def results(card: bytes) -> dict[tuple[str, str], Any]:
    """A card's results by data set and metric."""
    data: Any = ModelCard(card.decode()).data
    return {(one.dataset_type, one.metric_type): one for one in data.eval_results}


def test_a_models_card_gets_the_rows_headline_and_keeps_the_rest(
    board: Path, hub: LocalHub
) -> None:
    hub.files["model", TO] = {"README.md": CARD.encode()}
    publish_board(prepare(board, TO, "model", "npo@1"), api(hub))
    card = hub.files["model", TO]["README.md"]
    assert card.decode().endswith("# My model\n\nIt forgets.\n")
    data: Any = ModelCard(card.decode()).data
    assert (data.license, data.model_name) == ("apache-2.0", "Mine")
    found = results(card)
    headline = [
        column
        for column in read_json(board)["columns"]
        if column["headline"] and column["name"] in read_json(board)["rows"][6]["scores"]
    ]
    assert len(found) == len(headline) + 2  # overall, and what the card had
    assert found["elsewhere", "acc"].metric_value == 0.5
    assert found["unlearn-bench", "overall"].metric_value == pytest.approx(0.8)
    forget = found["fur", "forget_extraction_strength"]
    assert forget.metric_value == 0.25
    assert forget.metric_name == "fur.forget_extraction_strength (lower is better)"
    assert (forget.metric_args["n"], forget.metric_args["unit"]) == (12, "share")
    assert forget.dataset_args["data_sha256"] == "d" * 64
    assert (forget.dataset_args["limit"], forget.dataset_config) == (12, "quick")
    assert forget.dataset_args["scorer"] == {"name": "fake", "version": "1"}


def test_publishing_again_replaces_and_never_doubles(board: Path, hub: LocalHub) -> None:
    hub.files["model", TO] = {"README.md": CARD.encode()}
    publish_board(prepare(board, TO, "model", "npo@0"), api(hub))
    first = hub.files["model", TO]["README.md"]
    publish_board(prepare(board, TO, "model", "npo@0"), api(hub))
    assert hub.files["model", TO]["README.md"] == first
    publish_board(prepare(board, TO, "model", "exact_unlearning@0"), api(hub))
    last = results(hub.files["model", TO]["README.md"])
    assert len(last) == len(results(first))
    assert last["fur", "forget_extraction_strength"].metric_value == 0.0


def test_a_model_without_a_card_gets_one(board: Path, hub: LocalHub) -> None:
    hub.files["model", TO] = {}
    publish_board(prepare(board, TO, "model", "npo@0"), api(hub))
    card = hub.files["model", TO]["README.md"].decode()
    assert card.endswith("# things\n")
    assert results(card.encode())["fur", "forget_extraction_strength"].metric_value == 0.25


def test_the_dry_runs_metadata_is_what_the_card_gets(board: Path, hub: LocalHub) -> None:
    publication = prepare(board, TO, "model", "npo@0")
    hub.files["model", TO] = {}
    publish_board(publication, api(hub))
    card = hub.files["model", TO]["README.md"].decode()
    said = [line.removeprefix("    ") for line in describe(publication).splitlines()[2:]]
    written = card.split("---\n")[1].splitlines()
    assert [line for line in said if line.startswith((" ", "-", "model-index"))] == written


def test_a_model_repository_that_moved_on_is_not_overwritten(board: Path, hub: LocalHub) -> None:
    """The card was read at one commit; another came before ours."""
    hub.files["model", TO] = {"README.md": CARD.encode()}

    class Slow(HfApi):
        def create_commit(self, *args: Any, **kwargs: Any) -> Any:
            hub.commits.append(("model", TO, "somebody else's"))
            return super().create_commit(*args, **kwargs)

    with pytest.raises(UnlearnBenchError, match="nothing was published"):
        publish_board(prepare(board, TO, "model", "npo@0"), Slow(hub.address, "hf_local"))
    assert hub.files["model", TO]["README.md"] == CARD.encode()


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_repository_that_is_not_there_is_an_error_with_the_next_step(
    board: Path, hub: LocalHub, kind: Any
) -> None:
    publication = prepare(board, TO, kind, "npo@0" if kind == "model" else "")
    with pytest.raises(UnlearnBenchError, match="nothing was published") as caught:
        publish_board(publication, api(hub))
    assert "create the repository first" in caught.value.next_step
    assert not hub.commits


def test_a_card_that_cannot_be_read_is_not_written_anew(board: Path, hub: LocalHub) -> None:
    """The model has a card; the hub does not give it out now, yet would take a commit."""
    hub.files["model", TO] = {"README.md": CARD.encode()}
    hub.unsteady = True
    with pytest.raises(UnlearnBenchError, match="nothing was published"):
        publish_board(prepare(board, TO, "model", "npo@0"), api(hub))
    assert hub.files["model", TO]["README.md"] == CARD.encode()


def test_a_board_with_a_fault_is_not_published(board: Path) -> None:
    content = read_json(board)
    content["rows"][6]["scores"]["fur.forget_extraction_strength"]["delta"] = 0.5
    board.write_text(json.dumps(content))
    with pytest.raises(UnlearnBenchError, match="its delta is") as caught:
        prepare(board, TO, "dataset")
    assert caught.value.next_step == f"unlearn-bench board validate {board}"


@pytest.mark.parametrize("to", ["things", "a/b/c", "/things", "some one/things", "", "../x/y"])
def test_what_is_no_repositorys_name_is_refused(board: Path, to: str) -> None:
    with pytest.raises(UsageError, match="names no repository"):
        prepare(board, to, "dataset")


def test_rows_are_named_by_method_seed_weights_or_key(board: Path) -> None:
    content = read_board_file(board)
    npo = next(row for row in content.rows if (row.method, row.seed) == ("npo", "1"))
    key, weights = npo.told("cell_key"), npo.told("weights_fingerprint")
    assert choose_row(content, "npo@1") is npo
    assert choose_row(content, key[:8]) is npo
    with pytest.raises(UsageError, match="2 rows are called"):
        choose_row(content, weights)  # the doubles of both seeds have the same weights


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "takes one row; there is noop@0"),
        ("npo", "2 rows are called 'npo'; there is npo@0, npo@1"),
        ("npo@mean", "0 rows are called"),
        ("simnpo@0", "is failed and has no scores"),
        ("other", "0 rows are called 'other'"),
    ],
)
def test_a_row_that_cannot_be_told_or_has_no_scores_is_refused(
    board: Path, name: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        prepare(board, TO, "model", name)


def test_a_headline_without_a_value_is_left_out_and_said(board: Path) -> None:
    content = read_json(board)
    for row in content["rows"]:
        if row["method"] == "npo":
            score = row["scores"]["wikitext_mini.word_perplexity"]
            score |= dict.fromkeys(("value", "stderr", "low", "high", "delta"))
            score |= {"n": 0, "missing": 2}
            row["overall"] |= {"value": None, "reason": "missing"}
    board.write_text(json.dumps(content))
    board.with_suffix(".csv").unlink()
    publication = prepare(board, TO, "model", "npo@0")
    assert publication.left_out == ("wikitext_mini.word_perplexity",)
    assert "left out, no finite value: wikitext_mini.word_perplexity" in describe(publication)
    assert not {"overall", "word_perplexity"} & {one.metric_type for one in publication.results}


def test_the_command_s_dry_run_needs_no_network(board: Path, hub: LocalHub) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["board", "publish", str(board), "--to", TO, "--dry-run"])
    assert (said.exit_code, said.output.splitlines()[-1]) == (0, "dry run: nothing was written")
    wrong = runner.invoke(
        app, ["board", "publish", str(board), "--to", TO, "--kind", "space", "--dry-run"]
    )
    assert wrong.exit_code == 2
    row = ["--kind", "dataset", "--row", "npo@0", "--dry-run"]
    assert runner.invoke(app, ["board", "publish", str(board), "--to", TO, *row]).exit_code == 2
    assert hub.seen == []
