"""One model over two of vLLM's processes: answers, likelihoods and swaps as with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from unlearn_bench.engine.base import Engine, Generation, open_engine
from unlearn_bench.engine.spread import SpreadVllmEngine, digest_columns
from unlearn_bench.engine.token_tree import Request
from unlearn_bench.errors import WeightSwapError
from unlearn_bench.models.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

pytest.importorskip("vllm", reason="the vllm engine is not installed")
pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(
    make_tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """A random model whose heads two processes can share, and the same with one weight changed."""
    model = make_tiny_model(hidden_size=128, num_attention_heads=2, num_key_value_heads=2)
    found = []
    for name in ("one", "other"):
        found.append(tmp_path_factory.mktemp(name) / "model")
        model.save_pretrained(found[-1])
        tiny_tokenizer.save_pretrained(found[-1])
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[3, 5] += 0.5
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    opened = open_engine("vllm", "float32", {"tensor_parallel_size": 2})
    assert isinstance(opened, SpreadVllmEngine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of each worker: more threads than cores wait
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def plain() -> Iterator[Engine]:
    opened = open_engine("transformers", "float32")
    yield opened
    opened.close()


def requests(engine: Engine) -> list[Request]:
    texts = [("Question: Who bakes", " bread?"), ("You are", " a good friend"), ("The", " people")]
    encode = engine.tokenizer.encode
    found = [Request(tuple(encode(one)), tuple(encode(other))) for one, other in texts]
    return [*found, found[0]]


def test_two_processes_answer_as_one_and_swap(
    engine: Any, plain: Engine, folders: list[Path]
) -> None:
    """Each model in turn, and the first one again."""
    prompts = ["The people of", "You are a"]
    for folder in (*folders, folders[0]):
        found = engine.load(folder, fingerprint(folder))
        assert found.tensors_checked == 0  # no worker has a whole one
        assert found.canary_gap < 1e-3
        plain.load(folder, fingerprint(folder))
        for mine, theirs in zip(
            engine.score(requests(engine)), plain.score(requests(plain)), strict=True
        ):
            assert mine[0] == pytest.approx(theirs[0], abs=1e-3)
            assert np.allclose(mine.token_log_probs, theirs.token_log_probs, atol=1e-3)
            assert mine.token_is_greedy.tolist() == theirs.token_is_greedy.tolist()
            assert mine.moments is None
        asked = [Generation(tuple(engine.tokenizer.encode(text)), 8) for text in prompts]
        assert engine.generate(asked) == plain.generate(asked)
        assert engine.verify().fingerprint == fingerprint(folder)


def test_one_weight_of_another_model_is_noticed(engine: Any, folders: list[Path]) -> None:
    """Behind our back: far too little for the canaries' tolerance in bfloat16."""
    engine.load(folders[0], fingerprint(folders[0]))
    engine._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folders[1])})
    with pytest.raises(WeightSwapError, match="hold the weights of another model"):
        engine.verify()


def test_a_swap_that_changed_nothing_is_noticed(
    engine: Any, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if vLLM said that it had read the other checkpoint, and had not."""
    engine.load(folders[0], fingerprint(folders[0]))
    real = engine._llm.collective_rpc

    def deaf(method: Any, *given: Any, **named: Any) -> Any:
        return None if method == "reload_weights" else real(method, *given, **named)

    monkeypatch.setattr(engine._llm, "collective_rpc", deaf)
    with pytest.raises(WeightSwapError):
        engine.load(folders[1], fingerprint(folders[1]))


def test_every_workers_part_is_told_apart(engine: Any, folders: list[Path]) -> None:
    engine.load(folders[0], fingerprint(folders[0]))
    parts = engine._llm.apply_model(digest_columns)
    assert len(set(parts)) == len(parts) == 2
    assert engine._llm.apply_model(digest_columns) == parts
