"""The same engine and the same methods on a CUDA device. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from unlearn_bench.engine.base import Generation
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.engine.transformers_engine import TransformersEngine
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.options import options_model
from unlearn_bench.methods.run import edit_model
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import save_model
from unlearn_bench.registry import list_cards
from unlearn_bench.training.likelihood import answer_logits, kl_to_reference, nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CARDS = list_cards("method")
SHORT = {"epochs": 1, "batch_size": 2, "max_tokens": 48}
REQUESTS = [
    Request(tuple(range(5, 60)), (7, 8, 9)),
    Request(tuple(range(5, 60)), (7, 3)),
    Request(tuple(range(5, 30)), (40,)),
]


def opened(folder: Path, dtype: str, device: str) -> TransformersEngine:
    engine = TransformersEngine(dtype, device)
    proof = engine.load(folder, fingerprint(folder))
    assert proof.tensors_checked == proof.tensors_total
    return engine


def scores(folder: Path, dtype: str, device: str) -> np.ndarray:
    likelihoods = opened(folder, dtype, device).score(REQUESTS)
    return np.concatenate([likelihood.token_log_probs for likelihood in likelihoods])


def test_likelihoods_on_the_device_are_those_of_the_cpu(tiny_folder: Path) -> None:
    on_cpu = scores(tiny_folder, "float32", "cpu")
    assert np.abs(scores(tiny_folder, "float32", "cuda") - on_cpu).max() < 1e-4
    rounding = np.abs(scores(tiny_folder, "bfloat16", "cuda") - on_cpu).max()
    assert 0 < rounding < 0.1


def test_greedy_texts_on_the_device_are_those_of_the_cpu(tiny_folder: Path) -> None:
    wanted = [Generation(tuple(range(3, 20)), max_tokens=12), Generation((9, 8), max_tokens=5)]
    texts = [opened(tiny_folder, "float32", device).generate(wanted) for device in ("cpu", "cuda")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("options", [{}, {"lora": True}, {"checkpointing": True}])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_training_on_the_device_is_that_of_the_cpu(
    precision: str,
    options: dict[str, Any],
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
) -> None:
    """bf16 is of the activations alone: weights, gradients and what is kept of them are fp32.

    Plain gradient descent, in which a difference is as large as the gradients' own.
    """
    training = Training(steps=3, batch_size=2, lr=0.1, optimizer="sgd", precision=precision,
                        **options)  # fmt: skip
    weights, losses = {}, {}
    for device in ("cpu", "cuda"):
        model, kinds = make_tiny_model().to(device), set()

        def loss(batch: Any, policy: Any, reference: Any, kinds: Any = kinds) -> torch.Tensor:
            logits = answer_logits(policy, batch.retain)
            kinds.update((logits.dtype, *(p.dtype for p in policy.parameters())))
            drift = kl_to_reference(reference, policy, batch.retain)
            return nll_mean(policy, batch.forget) + drift

        log = train(
            model,
            tiny_tokenizer,
            {"forget": tiny_data.forget, "retain": tiny_data.retain},
            loss,
            training,
            seed=0,
            reference=lambda device=device: make_tiny_model().to(device),
        )
        computed = torch.bfloat16 if precision == "bf16" else torch.float32
        assert kinds == {torch.float32, computed}
        weights[device], losses[device] = dict(model.cpu().named_parameters()), log.losses
    near = 2e-2 if precision == "bf16" else 1e-4
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=near)
    for name, weight in weights["cuda"].items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, weights["cpu"][name], rtol=0, atol=near / 5)


def test_checkpointing_on_the_device_takes_less_memory(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
) -> None:
    """Twelve layers on long texts, so that what layers keep is most of it."""
    texts = [replace(text, answer=text.answer * 40) for text in tiny_data.retain]
    peaks = []
    for checkpointing in (False, True):
        model = make_tiny_model(num_hidden_layers=12).cuda()
        torch.cuda.reset_peak_memory_stats()
        training = Training(steps=2, batch_size=4, checkpointing=checkpointing)
        train(model, tiny_tokenizer, {"retain": texts},
              lambda batch, policy, reference: nll_mean(policy, batch.retain), training,
              seed=0)  # fmt: skip
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 0.6 * peaks[0]


@pytest.mark.parametrize(
    "name", [name for name in CARDS if "base" not in CARDS[name].facts["needs"]]
)
def test_every_method_edits_a_model_on_the_device(
    name: str,
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_data: EditData,
    tmp_path: Path,
) -> None:
    """The edit stays on the device and inside its targets; the account is taken there as well."""
    card = CARDS[name]

    def exact() -> Path:
        save_model(make_tiny_model(seed=1), tiny_tokenizer, tmp_path / "exact")
        return tmp_path / "exact"

    before = {key: value.detach() for key, value in make_tiny_model().named_parameters()}
    context = EditContext(
        make_tiny_model().cuda(),
        tiny_tokenizer,
        tiny_data,
        seed=7,
        reference=lambda: make_tiny_model().cuda().requires_grad_(False),
        exact=exact,
    )
    fields = options_model(card).model_fields
    options: dict[str, Any] = {key: value for key, value in SHORT.items() if key in fields}
    report = edit_model(card, context, options, before=before)
    assert all(parameter.is_cuda for parameter in context.model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in context.model.parameters())
    assert bool(report.changes) == (name != "noop")
    assert report.peak_memory_bytes > 0
