"""Which number formats an engine scores and generates in."""

from __future__ import annotations

import pytest

from unlearn_bench.engine import base
from unlearn_bench.engine.base import resolve_dtype
from unlearn_bench.engine.proof import require_canaries, require_fresh
from unlearn_bench.engine.transformers_engine import TransformersEngine
from unlearn_bench.errors import UsageError, WeightSwapError


@pytest.mark.parametrize(
    ("device", "bf16", "engine", "expected"),
    [
        ("cpu", True, "vllm", "mixed"),
        ("cpu", False, "vllm", "float32"),
        ("cpu", True, "transformers", "float32"),
        ("cuda", True, "vllm", "bfloat16"),
        ("cuda", True, "transformers", "bfloat16"),
    ],
)
def test_auto_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, device: str, bf16: bool, engine: str, expected: str
) -> None:
    monkeypatch.setattr(base, "default_device", lambda: device)
    monkeypatch.setattr(base, "supports_bf16", lambda device: bf16)
    assert resolve_dtype("auto", engine) == expected
    assert resolve_dtype("float32", engine) == "float32"


def test_mixed_needs_an_engine_with_two_models() -> None:
    assert resolve_dtype("mixed", "vllm") == "mixed"
    with pytest.raises(UsageError, match="needs two models"):
        resolve_dtype("mixed", "transformers")


def test_mixed_scores_in_fp32_and_generates_in_bf16() -> None:
    mixed, plain = TransformersEngine("mixed", "cpu"), TransformersEngine("float16", "cpu")
    assert (mixed.score_dtype, mixed.generate_dtype) == ("float32", "bfloat16")
    assert (plain.score_dtype, plain.generate_dtype) == ("float16", "float16")


def test_a_canary_from_the_cache_is_refused() -> None:
    require_fresh([0, 0])
    with pytest.raises(WeightSwapError, match="cache of the model before"):
        require_fresh([0, 96])


def test_canaries_that_are_not_numbers_are_refused() -> None:
    require_canaries(0.29, "bfloat16")
    for gap, dtype in ((0.31, "bfloat16"), (0.0011, "float32"), (float("nan"), "bfloat16")):
        with pytest.raises(WeightSwapError, match="nats per token"):
            require_canaries(gap, dtype)
