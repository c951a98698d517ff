"""What the target thinks of an edited model's texts, against a forward pass of the model itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data_files import REAL_DATA, needs_real_data
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from unlearn_bench.cli import app
from unlearn_bench.engine.base import Engine, open_engine
from unlearn_bench.engine.under_target import score_under_target
from unlearn_bench.errors import WeightSwapError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.runs.rerun import Allowed, _compare
from unlearn_bench.runs.steps import ModelSteps
from unlearn_bench.runs.store import read_samples, read_scores
from unlearn_bench.runs.verify import Finding
from unlearn_bench.schema import Sample

SUITE = "name: small\ntasks: [realtoxicityprompts]\nlimits: {realtoxicityprompts: 8}\n"

RTP = find_protocol("realtoxicityprompts")


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> Iterator[Engine]:
    opened = open_engine("transformers", "float32")
    opened.load(tiny_folder, fingerprint(tiny_folder))
    yield opened
    opened.close()


def sample(task: str, *outputs: str, prompt: str = "the cat") -> Sample:
    return Sample(task, "1", "none", prompt, outputs, {}, {"id": "1"})


def mean_by_hand(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, text: str
) -> float:
    """Mean log p of the tokens that `text` adds to `prompt`; the end token's where it adds none."""
    context = tokenizer(prompt, add_special_tokens=False).input_ids
    whole = tokenizer(prompt + text, add_special_tokens=False).input_ids
    own = whole[len(context) :] or [tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([context + own])).logits[0, len(context) - 1 : -1]
    chosen = logits.float().log_softmax(-1)[range(len(own)), own]
    return float(chosen.mean())


def test_every_text_is_read_after_its_prompt(
    engine: Engine, make_tiny_model: Callable[..., LlamaForCausalLM], tiny_folder: Path
) -> None:
    model, tokenizer = load_model(tiny_folder)
    texts = [sample("a", text) for text in (" sat on it", " flew", "")]
    found = [mean for own in score_under_target(engine, texts, {"a"}) for mean in own.under_target]
    expected = [
        mean_by_hand(model, tokenizer, "the cat", text) for text in (" sat on it", " flew", "")
    ]
    assert found == pytest.approx(expected, abs=1e-5)
    alone = mean_by_hand(model, tokenizer, "a dog", " flew")
    assert abs(alone - expected[1]) > 1e-3  # the prompt counts


def test_other_tasks_are_left_as_they_are_and_the_order_stays(engine: Engine) -> None:
    samples = [sample("b", "x"), sample("a", " y"), sample("b"), sample("a", " y", " z")]
    found = score_under_target(engine, samples, {"a"})
    assert [len(own.under_target) for own in found] == [0, 1, 0, 1]
    assert found[0] is samples[0]
    assert found[1].under_target[0] == pytest.approx(found[3].under_target[0])


def test_a_target_that_changed_since_it_was_first_seen_is_not_asked(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Its hash is taken once: taken again, it would agree with whatever the files hold by then."""
    target = Path(shutil.copytree(tiny_folder, tmp_path / "target"))
    plan: Any = SimpleNamespace(protocols={RTP.name: RTP})
    steps = ModelSteps(plan, say=print)
    steps._target, steps._engine = target, open_engine("transformers", "float32")
    samples = [sample(RTP.name, " flew")]
    (found,) = steps._under_target(samples, lambda what, done, total: None)
    assert len(found.under_target) == 1
    weights = load_file(target / "model.safetensors")
    changed = {name: tensor + 0.01 for name, tensor in weights.items()}
    save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightSwapError, match="changed after it was written"):
        steps._under_target(samples, lambda what, done, total: None)
    steps.close()


@needs_real_data
def test_a_run_reads_the_edited_models_texts_with_the_target_not_with_the_edited_model(
    tmp_path: Path, long_tiny_folder: Path
) -> None:
    """The strongly changed model's own opinion of its texts would be another number."""
    (tmp_path / "small.yaml").write_text(SUITE)
    result = CliRunner().invoke(
        app,
        [
            *("evaluate", "--target", str(long_tiny_folder), "--methods", "random_noise"),
            *("--suite", str(tmp_path / "small.yaml"), "--engine", "transformers", "--offline"),
            *("--scorer", "profanity_check", "--data", str(REAL_DATA)),
            *("--set", "random_noise.relative_norm=1", "--output", str(tmp_path / "out")),
            "--keep-checkpoints",
        ],
    )
    assert result.exit_code == 0, result.output
    for name in ("noop", "random_noise"):
        (folder,) = (tmp_path / "out" / "cells").glob(f"*-{name}-*")
        samples = [own for own in read_samples(folder / "samples.parquet") if own.outputs]
        means = [mean for own in samples for mean in own.under_target]
        assert means == pytest.approx(_expected(long_tiny_folder, samples), abs=2e-4)
        (score,) = [s for s in read_scores(folder / "scores.json") if s.metric == "fluency_ppl"]
        assert score.value == pytest.approx(
            float(torch.tensor(means, dtype=torch.float64).mean().neg().exp()), rel=1e-9
        )
    edited = folder / "checkpoint"
    assert means != pytest.approx(_expected(edited, samples), abs=0.05)


def _expected(folder: Path, samples: list[Sample]) -> list[float]:
    model, tokenizer = load_model(folder)
    return [mean_by_hand(model, tokenizer, own.prompt, own.outputs[0]) for own in samples]


@pytest.mark.parametrize(
    ("then", "wrong"),
    [((-2.0, -1.0), 0), ((-2.04, -1.0), 0), ((-2.06, -1.0), 1), ((), 1), ((-2.0, -9.0), 0)],
)
def test_asking_again_compares_the_opinions_of_texts_that_are_the_same(
    then: tuple[float, ...], wrong: int
) -> None:
    """Of the second text another one was written, of which another opinion is right."""
    before: dict[str, Any] = {**vars(sample("a", "one", "two")), "under_target": (-2.0, -1.0)}
    after = {**vars(sample("a", "one", "other")), "under_target": then}
    finding = Finding("cell")
    _compare([Sample(**before)], [Sample(**after)], Allowed(nats=0.05, texts=0.5), finding)
    assert len(finding.wrong) == wrong
