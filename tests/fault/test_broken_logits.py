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
from unlearn_bench.engine.base import Generation, open_engine
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
    assert not numbers(row)


def numbers(row: dict[str, str]) -> list[str]:
    """Names of a board's results that a row has."""
    return [name for name in row if "." in name and name[-10:] != ".direction" and row[name]]


def overflow_after(model: Any, token: int) -> None:
    """Finite weights under which the logits at one token, and at all that follow it, are not: its
    first number is the only one that is not 0 in the stream, and the first layer squares it.
    """
    layer = model.model.layers[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0
        model.model.embed_tokens.weight[token, 0] = 1
        layer.self_attn.o_proj.weight[0] = 0
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            projection.weight[0] = 0
            projection.weight[0, 0] = 1e25


@pytest.fixture
def overflowing(
    make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> Path:
    """A model that no text without a question mark shows to be broken."""
    folder = Path(shutil.copytree(long_tiny_folder, tmp_path / "model"))
    model = make_tiny_model(max_position_embeddings=8192)
    (token,) = AutoTokenizer.from_pretrained(folder)("?")["input_ids"]
    overflow_after(model, token)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_text_is_made_of_such_logits(overflowing: Path, temperature: float) -> None:
    """Greedy, their arg max would be a text like any other."""
    engine = open_engine("transformers", "float32")
    engine.load(overflowing, fingerprint(overflowing))
    fine, bad = (
        Generation(tuple(engine.tokenizer(text)["input_ids"]), 8, (), temperature, 0.9)
        for text in ("Water boils.", "Water boils?")
    )
    assert len(engine.generate([fine, fine])) == 2
    with pytest.raises(DivergedError, match="a logit of the generating model is not finite"):
        engine.generate([fine, bad])
    assert len(engine.generate([fine])) == 1


def test_a_cell_that_only_writes_texts_has_diverged_too(overflowing: Path, tmp_path: Path) -> None:
    result = invoke(
        *("evaluate", "--target", str(overflowing), "--methods", "noop", "--offline"),
        *("--tasks", "gsm8k_mini", "--limit", "1", "--engine", "transformers"),
        *("--scorer", "profanity_check", "--output", str(tmp_path / "out")),
    )
    assert result.exit_code == 1, result.output
    (file,) = (tmp_path / "out" / "leaderboards").rglob("*.csv")
    (row,) = csv.DictReader(file.open())
    said = "a logit of the generating model is not finite"
    assert (row["status"], row["reason"]) == ("diverged", said)
    assert not numbers(row)
    left = {path.name for path in (tmp_path / "out").glob("cells/*/*")}
    assert left.isdisjoint({"samples.parquet", "items.parquet", "scores.json"})


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


def test_a_logit_of_minus_infinity_is_no_unlikely_choice(
    make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    """All other continuations have finite likelihoods; this one's is below them, and no number."""
    folder = Path(shutil.copytree(long_tiny_folder, tmp_path / "model"))
    model = make_tiny_model(max_position_embeddings=8192, tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    mark, answer, other = (tokenizer(text)["input_ids"][0] for text in "?ab")
    with torch.no_grad():  # the last number of the stream is 0 but for the mark
        model.model.embed_tokens.weight[:, -1] = 0
        model.model.embed_tokens.weight[mark, -1] = 100
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[-1] = 0
            layer.mlp.down_proj.weight[-1] = 0
        model.lm_head.weight[answer] = 0
        model.lm_head.weight[answer, -1] = -3e38
    model.save_pretrained(folder)
    engine = open_engine("transformers", "float32")
    engine.load(folder, fingerprint(folder))
    assert math.isfinite(engine.score([Request((other,), (answer,))])[0][0])
    assert math.isfinite(engine.score([Request((mark,), (other,))])[0][0])
    with pytest.raises(DivergedError, match="a log-likelihood is not finite"):
        engine.score([Request((mark,), (answer,))])
