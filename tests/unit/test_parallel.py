"""Two processes train as one does with twice the batches: replicated, and sharded by FSDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit import parallel_worker
from tests.unit.parallel_worker import CASES, run
from unlearn_bench.errors import UsageError
from unlearn_bench.models.load import load_model

pytestmark = pytest.mark.slow

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
WAYS = {"replicated": {}, "sharded": FSDP}


def launch(script: Path, *arguments: Any, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    subprocess.run(
        [*command, str(script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=True,
        timeout=300,
    )


@pytest.fixture(scope="module", params=WAYS)
def pair(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What the two processes came to, case by case."""
    out = tmp_path_factory.mktemp("pair")
    script = Path(parallel_worker.__file__)
    launch(script, tiny_folder, out, environment=WAYS[request.param])
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tiny_folder: Path) -> dict[str, Any]:
    """The same cases in one process, with two batches a step."""
    return {case: run(tiny_folder, case, accumulate=2) for case in CASES}


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"breaking", "bf16"}))
def test_two_processes_are_one_with_twice_the_batches(
    case: str, pair: list[dict[str, Any]], alone: dict[str, Any], tiny_folder: Path
) -> None:
    expected, (first, second) = alone[case], (found[case] for found in pair)
    moved, before = 0.0, load_model(tiny_folder)[0].state_dict()
    for name, weight in expected["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-4, atol=2e-5)
        moved = max(moved, float((weight - before[name]).abs().max()))
    assert moved > 1e-3  # the tolerance is far below what training did
    assert first["log"]["processes"] == second["log"]["processes"] == 2
    assert first["log"]["steps"] == expected["log"]["steps"]
    assert first["log"]["losses"] == second["log"]["losses"]
    assert first["log"]["losses"] == pytest.approx(expected["log"]["losses"], rel=1e-4)
    assert first["log"]["grad_norms"] == pytest.approx(expected["log"]["grad_norms"], rel=1e-3)
    assert first["log"]["forward_passes"] * 2 == expected["log"]["forward_passes"]
    assert first["all_train"]


def test_bf16_is_of_the_activations_and_the_weights_stay_whole(
    pair: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for found in pair:
        assert found["bf16"]["log"]["precision"] == "bf16 autocast"
        assert found["bf16"]["log"]["losses"] == pytest.approx(alone["bf16"]["log"]["losses"], 0.02)
    for name, weight in alone["bf16"]["weights"].items():
        assert pair[0]["bf16"]["weights"][name].dtype == torch.float32
        assert torch.equal(pair[0]["bf16"]["weights"][name], pair[1]["bf16"]["weights"][name])
        torch.testing.assert_close(pair[0]["bf16"]["weights"][name], weight, rtol=0, atol=3e-3)


def test_the_whole_model_is_there_when_it_is_asked_to_stop(
    pair: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """After the first of two epochs of four batches each, which is two steps."""
    for found in pair:
        assert len(found["full"]["seen"]) == 1
        assert found["full"]["seen"] == pytest.approx(alone["full"]["seen"], rel=1e-4)
        assert found["full"]["log"]["steps"] == 4
        assert not found["full"]["log"]["stopped_early"]


def test_a_loss_that_breaks_in_one_process_ends_both_at_its_step(
    pair: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert pair[0]["breaking"] == pair[1]["breaking"] == alone["breaking"]
    assert pair[0]["breaking"]["diverged"] in (1, 2)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading: false"),
    ],
)
def test_shards_that_would_hold_other_weights_are_refused(
    setting: dict[str, str], line: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**FSDP, **setting}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        run(tiny_folder, "full", accumulate=1)
    assert line in caught.value.next_step
