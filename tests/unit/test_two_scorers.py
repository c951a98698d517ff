"""A real run of a tiny model with two scorers, and `verify` on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.test_toxigen_scorers import write_checkpoint
from unlearn_bench.cli import app
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.runs import store
from unlearn_bench.runs.verify import verify_run
from unlearn_bench.scorers.toxigen_hatebert import RECIPE

SECOND = "second_items.parquet"


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[Path, Path, dict[str, Any]]:
    """The run's folder, the second scorer's checkpoint, and the board's one row."""
    folder = tmp_path_factory.mktemp("two")
    write_checkpoint(RECIPE, folder / "hatebert")
    result = CliRunner().invoke(
        app,
        [
            *("evaluate", "--target", str(tiny_folder), "--methods", "noop", "--suite", "smoke"),
            *("--tasks", "toxigen", "--engine", "transformers", "--offline"),
            *("--scorer", "profanity_check,toxigen_hatebert"),
            *("--scorer-checkpoint", str(folder / "hatebert"), "--output", str(folder / "out")),
        ],
    )
    assert result.exit_code == 0, result.output
    (board,) = (folder / "out").rglob("leaderboards/*/*.json")
    return folder / "out", folder / "hatebert", json.loads(board.read_text())["rows"][0]


def verified(folder: Path, checkpoint: Path | None) -> Any:
    (finding,) = verify_run(folder, SourceOptions(offline=True), scorer_checkpoint=checkpoint)
    return finding


def test_both_are_on_the_row_and_agree_as_the_stored_items_say(finished: Any) -> None:
    folder, _, row = finished
    assert row["provenance"]["scorer"] == "profanity_check, toxigen_hatebert"
    (task,) = {name.split(".")[0] for name in row["scores"]}
    score = row["scores"][f"{task}.scorer_agreement"]
    (path,) = folder.glob(f"cells/*/{SECOND}")
    first, second = (
        {item.item_id: item.value for item in store.read_items(file) if item.metric == "toxic_rate"}
        for file in (path.with_name("items.parquet"), path)
    )
    assert (score["n"], score["missing"]) == (len(first), 0)
    assert first.keys() == second.keys()


def test_verify_judges_again_with_both(finished: Any) -> None:
    folder, checkpoint, _ = finished
    finding = verified(folder, checkpoint)
    assert (finding.wrong, finding.unchecked) == ([], [])
    finding = verified(folder, None)
    assert finding.wrong == []
    assert [
        "toxigen_hatebert as it was is not available" in text for text in finding.unchecked
    ] == ([True])


def test_a_changed_judgement_of_the_second_scorer_is_found(finished: Any) -> None:
    """Every record's hash is made right again, as one would who wants to deceive."""
    folder, checkpoint, _ = finished
    (path,) = folder.glob(f"cells/*/{SECOND}")
    before, record_before = path.read_bytes(), (path.parent / store.RECORD).read_bytes()
    items = store.read_items(path)
    turned = [dataclasses.replace(item, value=1.0 - item.value) for item in items]
    record = store.read_record(path.parent, json.loads(record_before)["key"])
    assert record is not None
    files = {**record.files, SECOND: store.write_items(path, turned)}
    store.write_record(path.parent, dataclasses.replace(record, files=files))
    finding = verified(folder, checkpoint)
    path.write_bytes(before)
    (path.parent / store.RECORD).write_bytes(record_before)
    assert any(text.startswith(SECOND) for text in finding.wrong)
