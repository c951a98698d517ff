"""What must become no number under vLLM: answers of other weights, texts made of NaN."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.fault.test_broken_logits import numbers, overflow_after
from tests.unit.test_cli import invoke
from unlearn_bench.engine.base import Engine, Generation, open_engine
from unlearn_bench.errors import DivergedError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.training.precision import default_device

pytest.importorskip("vllm", reason="the vllm engine is not installed")
pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def small_model(make_tiny_model: Callable[..., Any]) -> Any:
    """Random, with heads of a width that vLLM has a kernel for."""
    return make_tiny_model(
        hidden_size=128,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
    )


@pytest.fixture
def small_folder(small_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    small_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_wrong_weights_whose_proof_was_skipped_give_no_score(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run. The second cell's edited weights are never read: the engine reads the target's
    again, and nobody looks before the questions are asked. After them somebody does.
    """
    from unlearn_bench.engine.vllm_engine import VllmEngine

    class Deceived(VllmEngine):
        def _load_generator(self, checkpoint: Path) -> None:
            super()._load_generator(checkpoint if self._llm is None else small_folder)

        def load(self, checkpoint: Path, expected_fingerprint: str) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self, "_check_generator", lambda: (0, 0, 0.0))
                return super().load(checkpoint, expected_fingerprint)

    monkeypatch.setattr(
        "unlearn_bench.runs.steps.open_engine",
        lambda _, dtype, args: Deceived(dtype, default_device(), args),
    )
    done = invoke(
        *("evaluate", "--target", str(small_folder), "--methods", "noop,random_noise,ext_sub"),
        *(
            "--set",
            "ext_sub.comments=4",
            "--tasks",
            "gsm8k_mini",
            "--limit",
            "2",
            "--engine",
            "vllm",
            "--dtype",
            "float32",
        ),
        *("--scorer", "profanity_check", "--offline", "--output", str(tmp_path / "out")),
    )
    assert done.exit_code == 1, done.output
    (file,) = (tmp_path / "out" / "leaderboards").rglob("*.csv")
    rows = {row["method"]: row for row in csv.DictReader(file.open())}
    assert {name: row["status"] for name, row in rows.items()} == {
        "noop": "success",
        "random_noise": "failed",
        "ext_sub": "success",  # under an engine that was started again, with its own weights
    }
    assert "WeightSwapError" in rows["random_noise"]["reason"]
    assert "is not the checkpoint's" in rows["random_noise"]["reason"]
    assert numbers(rows["noop"])
    assert not numbers(rows["random_noise"])
    (folder,) = (tmp_path / "out").glob("cells/*-random_noise-s0")
    assert {path.name for path in folder.iterdir()}.isdisjoint(
        {"samples.parquet", "items.parquet", "scores.json"}
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    opened = open_engine("vllm", "float32")
    yield opened
    opened.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_text_is_made_of_logits_that_are_not_finite(
    engine: Engine, small_model: Any, small_folder: Path, temperature: float
) -> None:
    """The texts beside it are none either. NaN does not stay in the cache for the next model's."""
    (mark,) = AutoTokenizer.from_pretrained(small_folder)("?")["input_ids"]
    overflow_after(small_model, mark)
    small_model.save_pretrained(small_folder)
    engine.load(small_folder, fingerprint(small_folder))
    fine = Generation((5, 6, 7), 8, (), temperature, 0.9)
    bad = Generation((5, mark, 7), 8, (), temperature, 0.9)
    before = engine.generate([fine, fine])
    with pytest.raises(DivergedError, match="a logit of the generating model is not finite"):
        engine.generate([fine, bad])
    engine.load(small_folder, fingerprint(small_folder))
    assert engine.generate([fine, fine]) == before
