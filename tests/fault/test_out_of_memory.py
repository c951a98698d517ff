"""Memory that runs out in a cell: twice again with smaller batches, then the cell has failed."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_execute import Screen
from unlearn_bench.board.publish import publish
from unlearn_bench.runs.contract import CellResult
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.memory import is_out_of_memory
from unlearn_bench.runs.steps import ModelSteps, in_parts
from unlearn_bench.runs.together import SharedSteps


class Scarce(SmallSteps):
    """Has memory for one in `enough` of a batch in the named half of the cell npo."""

    def __init__(self, half: str, enough: int, error: Exception | None = None) -> None:
        super().__init__()
        self.half, self.enough, self.error = half, enough, error or MemoryError("no room")

    def edit(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        made = super().edit(cell, checkpoint, tick)
        self._spend("edit", cell)
        return made

    def evaluate(self, cell: Any, checkpoint: Path, tick: Any) -> Any:
        self._spend("evaluate", cell)
        return super().evaluate(cell, checkpoint, tick)

    def _spend(self, half: str, cell: Any) -> None:
        divisor = self.divisors.get((cell.key, half), 1)
        if half == self.half and cell.method == "npo" and divisor < self.enough:
            raise self.error


def run(output: Path, steps: SmallSteps) -> list[CellResult]:
    return execute(plan(output, cell("noop"), cell("npo"), cell("last")), lambda: steps, Screen())


@pytest.mark.parametrize("enough", [2, 4])
@pytest.mark.parametrize("half", ["edit", "evaluate"])
def test_smaller_batches_are_tried_and_the_record_says_so(
    tmp_path: Path, half: str, enough: int
) -> None:
    """12 texts at a time were too many, 12 / enough are not. Other cells keep their batches."""
    steps = Scarce(half, enough)
    results = run(tmp_path, steps)
    assert [one.record.status for one in results] == ["success"] * 3
    how = f"memory ran out at the {half}, which was then done with a batch of {12 // enough}"
    assert [one.record.reason for one in results] == ["", how, ""]


def test_both_halves_may_run_short(tmp_path: Path) -> None:
    class Poor(Scarce):
        def _spend(self, half: str, cell: Any) -> None:
            self.half = half
            super()._spend(half, cell)

    (_, short, _) = run(tmp_path, Poor("", 2))
    assert [part.split(",")[0] for part in short.record.reason.split("; ")] == [
        "memory ran out at the edit",
        "memory ran out at the evaluate",
    ]


def test_the_boards_say_so_too(tmp_path: Path) -> None:
    whole = plan(tmp_path, cell("noop"), cell("npo"))
    board, paths = publish(whole, execute(whole, lambda: Scarce("edit", 2), Screen()))
    (page,) = (path for path in paths if path.suffix == ".md")
    assert "npo: memory ran out at the edit" in page.read_text()
    assert {row.method: bool(row.reason) for row in board.rows} == {"noop": False, "npo": True}


@pytest.mark.parametrize("half", ["edit", "evaluate"])
def test_after_two_attempts_the_cell_has_failed_and_the_others_go_on(
    tmp_path: Path, half: str
) -> None:
    steps = Scarce(half, 8)
    results = run(tmp_path, steps)
    assert [one.record.status for one in results] == ["success", "failed", "success"]
    assert results[1].record.reason == "MemoryError: no room"
    assert steps.calls.count("edit npo 0") == (3 if half == "edit" else 1)


def test_where_nothing_gets_smaller_it_fails_at_once(tmp_path: Path) -> None:
    steps = Scarce("edit", 2)
    steps.smallest_share = 1
    results = run(tmp_path, steps)
    assert results[1].record.status == "failed"
    assert steps.calls.count("edit npo 0") == 1


def test_another_error_is_not_tried_again(tmp_path: Path) -> None:
    steps = Scarce("edit", 2, RuntimeError("shapes do not match"))
    results = run(tmp_path, steps)
    assert results[1].record.reason == "RuntimeError: shapes do not match"
    assert steps.calls.count("edit npo 0") == 1


def test_torch_and_python_both_say_it() -> None:
    """What really comes of an allocation that no machine can serve."""
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as pythons:
        bytearray(2**62)
    assert is_out_of_memory(torchs.value)
    assert is_out_of_memory(pythons.value)
    assert is_out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN's
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("options", "divisor", "expected"),
    [
        ({"batch_size": 16, "accumulate": 1}, 2, {"batch_size": 8, "accumulate": 2}),
        ({"batch_size": 4, "accumulate": 3}, 4, {"batch_size": 1, "accumulate": 12}),
        ({"batch_size": 6, "accumulate": 1}, 4, {}),
        ({"strength": 1.0}, 2, {}),
    ],
)
def test_a_step_reads_the_same_texts_in_more_passes(
    options: dict[str, Any], divisor: int, expected: dict[str, Any]
) -> None:
    assert in_parts(options, divisor) == expected


# Allocates `mib` for every text of a batch, where the process may have 1.5 GiB more than it has.
GREEDY = '''
from __future__ import annotations

import resource

import psutil
import torch

from unlearn_bench.registry import method

HARD = resource.getrlimit(resource.RLIMIT_AS)[1]


@method("{name}", paper="none", kind="loss", needs=("forget",), targets=("*",), zero={{"steps": 0}},
        training={{"batch_size": 16, "steps": 2}})
def {name}(batch, policy, reference):
    """Needs as much memory as its batch has texts."""
    forget = batch.forget
    room = psutil.Process().memory_info().vms + 1536 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (room, HARD))
    try:
        torch.empty(len(forget.ids), {mib} * 2**20, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (HARD, HARD))
    logits = policy(input_ids=forget.input_ids, attention_mask=forget.attention_mask).logits
    return logits.square().mean()
'''


def test_an_edit_that_all_processes_made_says_what_it_ran_out_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a launcher it was made before its cell's turn, and cannot be made again in it."""
    tried = []

    def edit(*arguments: object) -> None:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(ModelSteps, "edit", edit)
    monkeypatch.setattr(ModelSteps, "prepare", lambda *arguments: None)
    whole = plan(tmp_path, cell("npo"))
    whole.cells[0].options.update(batch_size=16, accumulate=1)  # type: ignore[attr-defined]
    steps = SharedSteps(whole, Screen().say)
    steps.edit_all(list(whole.cells), Screen())
    assert len(tried) == 3
    (result,) = execute(whole, lambda: steps, Screen())
    assert len(tried) == 3
    assert result.record.status == "failed"
    said = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert result.record.reason == said
    assert "KeyError" not in (result.folder / "traceback.txt").read_text()


@pytest.mark.slow
def test_a_real_run_under_a_real_limit(
    tmp_path: Path, evaluate: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """16 texts of 128 MiB are too many for 1.5 GiB, 8 are not; of 2 GiB even 4 are."""
    files = []
    for name, mib in (("greedy", 128), ("hopeless", 2048)):
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text(GREEDY.format(name=name, mib=mib))
    done = evaluate(*files)
    assert done.returncode == 1, done.stderr
    (table,) = (tmp_path / "boards").rglob("*.csv")
    rows = {row["method"]: row for row in csv.DictReader(table.open())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "noop": "success", "greedy": "success", "hopeless": "failed",
    }  # fmt: skip
    assert rows["greedy"]["reason"].endswith("done with batch_size=8 accumulate=2")
    assert "can't allocate memory" in rows["hopeless"]["reason"]
    (account,) = (tmp_path / "out").glob("cells/*-greedy-s0/account.json")
    options = json.loads(account.read_text())["options"]
    assert (options["batch_size"], options["accumulate"]) == (8, 2)


# From its edit on, the process may have `mib` more than it has, for all that follows.
LIMITED = '''
from __future__ import annotations

import resource

import psutil

from unlearn_bench.registry import method

HARD = resource.getrlimit(resource.RLIMIT_AS)[1]


@method("{name}", paper="none", kind="edit", needs=(), targets=("*",), zero={{}})
def {name}(context):
    """Changes the process, not the model."""
    room = psutil.Process().memory_info().vms + {mib} * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (room if {mib} else HARD, HARD))
    return {{}}
'''


@pytest.mark.slow
def test_a_model_too_wide_for_its_batch_is_asked_in_smaller_ones(
    tmp_path: Path,
    make_tiny_model: Callable[..., Any],
    tiny_tokenizer: Any,
    evaluate: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """32 prompts of 87 tokens, 65,536 numbers of 4 bytes each: 0.73 GB, and the layer holds three
    of those at once. So 2.2 GB for whole batches, 1.1 for halves, 0.55 for quarters.
    """
    wide = make_tiny_model(
        num_hidden_layers=1, intermediate_size=65_536, max_position_embeddings=8192
    )
    wide.save_pretrained(tmp_path / "wide")
    tiny_tokenizer.save_pretrained(tmp_path / "wide")
    files = []
    for name, mib in (("short", 1638), ("shorter", 307), ("roomy", 0)):
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text(LIMITED.format(name=name, mib=mib))
    done = evaluate(*files, target=tmp_path / "wide")
    assert done.returncode == 1, done.stderr
    (table,) = (tmp_path / "boards").rglob("*.csv")
    rows = {row["method"]: row for row in csv.DictReader(table.open())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "noop": "success", "short": "success", "shorter": "failed", "roomy": "success",
    }  # fmt: skip
    said = "memory ran out at the evaluate, which was then done with batches of 1/2 of the usual"
    assert rows["short"]["reason"].startswith(said)
    assert is_out_of_memory(RuntimeError(rows["shorter"]["reason"]))  # torch's words, or oneDNN's
    assert rows["roomy"]["reason"] == ""
    assert done.stderr.count("shorter seed 0: evaluate again with smaller batches") == 2
    assert {name: row["fur.forget_rouge_l"] != "" for name, row in rows.items()} == {
        "noop": True, "short": True, "shorter": False, "roomy": True,
    }  # fmt: skip
