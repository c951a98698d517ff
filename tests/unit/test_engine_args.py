"""Arguments for vLLM: how they are given, which are refused, and what they are part of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.test_resolve import keys, resolved
from unlearn_bench.cli import app
from unlearn_bench.config import load_config
from unlearn_bench.engine.base import OURS, check_engine_args
from unlearn_bench.engine.spread import is_spread
from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.runs.plan import engine_text


@pytest.mark.parametrize(
    "given",
    [
        ["tensor_parallel_size=2", "enforce_eager=true"],
        ["--tensor-parallel-size=2", "enforce-eager=true"],
        "tensor_parallel_size=2,enforce_eager=true",
        {"tensor_parallel_size": 2, "enforce_eager": True},
    ],
)
def test_names_and_values_in_every_form(given: Any) -> None:
    """As vLLM's own command line has them, too. Values are numbers and truths, not texts."""
    config = load_config({"engine_args": given})
    assert config.engine_args == {"tensor_parallel_size": 2, "enforce_eager": True}


@pytest.mark.parametrize(
    ("given", "what"),
    [(["a"], "not of the form name=value"), (["a-b=1", "a_b=2"], "a_b is given twice")],
)
def test_other_forms_are_refused(given: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        load_config({"engine_args": given})


def test_only_vllm_has_them() -> None:
    with pytest.raises(UsageError, match="the engine is transformers"):
        check_engine_args("transformers", {"tensor_parallel_size": 2})
    check_engine_args("transformers", {})


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_decides_the_numbers_is_not_to_be_given(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not to be given"):
        check_engine_args("vllm", {name: "x"})


def test_stages_on_a_cpu_are_refused_before_vllm_fails_at_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("vllm", reason="the vllm engine is not installed")
    monkeypatch.setattr("unlearn_bench.engine.base.default_device", lambda: "cpu")
    with pytest.raises(UsageError, match=r"pipeline_parallel_size: on a CPU"):
        check_engine_args("vllm", {"pipeline_parallel_size": 2})
    check_engine_args("vllm", {"pipeline_parallel_size": 1})
    monkeypatch.setattr("unlearn_bench.engine.base.default_device", lambda: "cuda")
    check_engine_args("vllm", {"pipeline_parallel_size": 2})


def test_an_argument_that_vllm_does_not_have_is_named_with_the_nearest() -> None:
    pytest.importorskip("vllm", reason="the vllm engine is not installed")
    with pytest.raises(UnknownNameError, match="did you mean tensor_parallel_size"):
        check_engine_args("vllm", {"tensor_paralel_size": 2})
    check_engine_args("vllm", {"tensor_parallel_size": 2})


def test_the_command_refuses_before_any_work(tiny_folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        [
            *("evaluate", "--target", str(tiny_folder), "--methods", "noop", "--offline"),
            *("--engine", "transformers", "--engine-arg", "seed=1", "--output", str(tmp_path)),
        ],
    )
    assert result.exit_code == 2
    assert "--engine-arg seed" in result.output
    assert not (tmp_path / "cells").exists()


def test_they_are_part_of_the_key_and_of_what_the_board_says(tiny_folder: Path) -> None:
    pytest.importorskip("vllm", reason="the vllm engine is not installed")
    plain = resolved(tiny_folder, engine="vllm")
    spread = resolved(tiny_folder, engine="vllm", engine_args={"tensor_parallel_size": 2})
    assert keys(plain) != keys(spread)
    assert "args" not in plain.cells[0].determinants["engine"]
    assert plain.engine_text == "vllm"
    assert spread.engine_text == "vllm tensor_parallel_size=2"


def test_arguments_are_told_in_the_order_of_their_names() -> None:
    assert engine_text("vllm", {"b": 1, "a": "x"}) == "vllm a=x b=1"
    assert not is_spread({"tensor_parallel_size": 1, "gpu_memory_utilization": 0.8})
    assert is_spread({"pipeline_parallel_size": 2})
