"""The weights swapped under the engine behind its back, in every way we know of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_bench.engine.base import Engine, Generation, open_engine
from unlearn_bench.errors import WeightSwapError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model, save_model
from unlearn_bench.training.precision import supports_bf16

pytest.importorskip("vllm", reason="the vllm engine is not installed")
pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def edited_folder(smollm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model after a small random change of every matrix, tied embeddings included."""
    model, tokenizer = load_model(smollm_folder)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * parameter.std() * noise)
    folder = tmp_path_factory.mktemp("edited") / "model"
    save_model(model, tokenizer, folder, source=smollm_folder)
    return folder


@pytest.fixture(scope="module", params=["float32", "mixed"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    opened = open_engine("vllm", request.param)
    yield opened
    opened.close()


@pytest.fixture
def loaded(engine: Engine, smollm_folder: Path) -> Any:
    """The engine holding the unedited model, whatever the test before did to it."""
    engine.load(smollm_folder, fingerprint(smollm_folder))
    return engine


def greedy_texts(engine: Engine) -> list[str]:
    prompts = ["The capital of France is", "Once upon a time, in a small village by the sea,"]
    return engine.generate(
        [Generation(tuple(engine.tokenizer.encode(text)), max_tokens=16) for text in prompts]
    )


def test_a_swap_changes_the_answers_and_swapping_back_restores_them(
    loaded: Engine, smollm_folder: Path, edited_folder: Path
) -> None:
    before = greedy_texts(loaded)
    proof = loaded.load(edited_folder, fingerprint(edited_folder))
    assert proof.tensors_checked == proof.tensors_total
    after = greedy_texts(loaded)
    model, tokenizer = load_model(edited_folder)
    for prompt_text, text in zip(
        ["The capital of France is", "Once upon a time, in a small village by the sea,"],
        after,
        strict=True,
    ):
        ids = tokenizer(prompt_text, return_tensors="pt").input_ids
        expected = model.generate(ids, max_new_tokens=16, do_sample=False)[0, ids.shape[1] :]
        if loaded.generate_dtype == "float32":  # bf16 rounds differently from kernel to kernel
            assert text == tokenizer.decode(expected, skip_special_tokens=True)
    assert after != before
    loaded.load(smollm_folder, fingerprint(smollm_folder))
    assert greedy_texts(loaded) == before


def test_texts_come_back_in_the_order_of_their_requests(loaded: Any) -> None:
    """The engine starts the longest answers first. Each is cut where its own request says."""
    prompt = tuple(loaded.tokenizer.encode("One, two, three, four, five,"))
    limits = [2, 12, 1, 7]
    texts = loaded.generate([Generation(prompt, max_tokens=limit) for limit in limits])
    assert [len(loaded.tokenizer.encode(text)) for text in texts] == limits


def test_on_cpu_the_engine_uses_the_compiled_norms(loaded: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    if loaded.device != "cpu":
        pytest.skip("vLLM's CUDA build has norms of its own")
    if loaded.generate_dtype != "float32" and not supports_bf16(torch.device("cpu")):
        pytest.skip("without bf16 in hardware the kernels cut where torch rounds")
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        greedy_texts(loaded)
    called = {event.key: event.count for event in profiled.key_averages()}
    layers = loaded.model.config.num_hidden_layers
    assert called["_C::fused_add_rms_norm"] == 2 * layers * called["_C::rms_norm"]
    assert "aten::rsqrt" not in called


def test_a_reload_behind_our_back_is_noticed(loaded: Any, edited_folder: Path) -> None:
    loaded._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(edited_folder)})
    with pytest.raises(WeightSwapError, match="is not the checkpoint's"):
        loaded.verify()


def test_an_edit_of_usual_size_that_stayed_behind_is_noticed(
    engine: Engine, smollm_folder: Path, tmp_path: Path
) -> None:
    """0.3 % in one packed layer: a product with any vector differs by less than bfloat16 rounds."""
    model, tokenizer = load_model(smollm_folder)
    weight = model.model.layers[3].mlp.up_proj.weight
    with torch.no_grad():
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        weight.add_(0.003 * weight.std() * noise)
    save_model(model, tokenizer, tmp_path / "edited", source=smollm_folder)
    proof = engine.load(tmp_path / "edited", fingerprint(tmp_path / "edited"))
    assert proof.tensors_checked == proof.tensors_total
    loaded: Any = engine
    loaded._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(smollm_folder)})
    with pytest.raises(WeightSwapError, match=r"layers\.3\.mlp\.gate_up_proj is not"):
        engine.verify()


def test_one_changed_row_of_one_layer_is_noticed(loaded: Any) -> None:
    """Too little for any text to change, and still not the checkpoint."""

    factor = 1.001 if loaded.generate_dtype == "float32" else 1.01  # bf16 has no 1.001

    def scale_one_norm(model: Any) -> None:
        model.model.layers[17].input_layernorm.weight.data[3] *= factor

    loaded._llm.apply_model(scale_one_norm)
    with pytest.raises(WeightSwapError, match=r"layers\.17\.input_layernorm"):
        loaded.verify()


def test_trap_1_the_stale_packed_output_layer_is_noticed(
    loaded: Any, edited_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearn_bench.engine.vllm_engine._repack_output_layer", lambda model: None)
    with pytest.raises(WeightSwapError, match="lm_head"):
        loaded.load(edited_folder, fingerprint(edited_folder))


def test_trap_2_the_stale_prefix_cache_is_noticed(
    loaded: Any, edited_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors are all right then: only the canaries, longer than a cache block, can tell."""
    monkeypatch.setattr(loaded._llm, "reset_prefix_cache", lambda: True)
    with pytest.raises(WeightSwapError, match="from the cache of the model before"):
        loaded.load(edited_folder, fingerprint(edited_folder))


def test_a_changed_scoring_model_is_noticed(loaded: Engine) -> None:
    with torch.no_grad():
        next(loaded.model.parameters())[0, 0] += 1e-3
    with pytest.raises(WeightSwapError, match="in memory"):
        loaded.verify()


def test_files_changed_after_the_edit_are_refused(
    loaded: Engine, smollm_folder: Path, edited_folder: Path, tmp_path: Path
) -> None:
    promised = fingerprint(edited_folder)
    folder = tmp_path / "checkpoint"
    shutil.copytree(edited_folder, folder)
    shutil.copyfile(smollm_folder / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(WeightSwapError, match="changed after it was written"):
        loaded.load(folder, promised)
