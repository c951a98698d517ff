"""A model whose logits are NaN or infinite has diverged: no score of it is a number."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.unit.test_cli import invoke
from unlearn_bench.engine.base import open_engine
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.errors import DivergedError
from unlearn_bench.models.fingerprint import fingerprint

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
    assert result.exit_code == 1, result.output
    (file,) = (tmp_path / "out" / "leaderboards").rglob("small.csv")
    (row,) = csv.DictReader(file.open())
    assert (row["status"], row["reason"]) == ("diverged", "a logit of the model is not finite")
    assert not [name for name, value in row.items() if name.endswith("acc") and value]


def test_nan_on_some_inputs_only_is_no_score_either(
    make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    """One token's embedding is NaN: most texts have finite logits. Without the check the first of a
    question's options would be the likeliest, and that is the true one.
    """
    folder = Path(shutil.copytree(long_tiny_folder, tmp_path / "model"))
    model = make_tiny_model(max_position_embeddings=8192)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (token,) = tokenizer("?")["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = math.nan
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num().clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    engine = open_engine("transformers", "float32")
    engine.load(folder, fingerprint(folder))
    fine, bad = (tuple(tokenizer(text)["input_ids"]) for text in ("Water boils.", "Water?"))
    assert math.isfinite(engine.score([Request(fine[:2], fine[2:])])[0][0])
    with pytest.raises(DivergedError, match="a log-likelihood is not finite"):
        engine.score([Request(fine[:2], fine[2:]), Request(bad, fine)])
