"""A model whose logits are NaN or infinite: its values are missing, never a number."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.test_cli import invoke

SUITE = """
name: small
tasks: [fur, truthfulqa, wikitext, gsm8k, toxigen]
limits: {fur: 8, truthfulqa: 3, wikitext: 1, gsm8k: 1, toxigen: 13}
paraphrases: 1
"""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_score_of_such_a_model_looks_like_one(
    value: float, make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(long_tiny_folder, tmp_path / "model"))
    model = make_tiny_model(max_position_embeddings=8192)
    with torch.no_grad():
        model.model.norm.weight[0] = value
    model.save_pretrained(folder)
    (tmp_path / "small.yaml").write_text(SUITE)
    result = invoke(
        *("evaluate", "--target", str(folder), "--methods", "noop", "--offline"),
        *("--suite", str(tmp_path / "small.yaml"), "--engine", "transformers"),
        *("--scorer", "profanity_check", "--output", str(tmp_path / "out")),
    )
    assert result.exit_code != 0, result.output
    (file,) = (tmp_path / "out" / "leaderboards").rglob("small.csv")
    (row,) = csv.DictReader(file.open())
    assert row["status"] != "success"
    likelihoods = ("mc1", "mc2", "word_perplexity", "extraction_strength", "choice_acc")
    shown = {n: v for n, v in row.items() if n.endswith(likelihoods) and v not in ("", "inf")}
    assert not shown
