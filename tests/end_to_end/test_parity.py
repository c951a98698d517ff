"""Our engines against stock lm-eval (`--model hf`, fp32): the same weights, the same items.

On the real files where they are, else on our own small sets. What counts as the same is
benchmarks/parity.py's, which asks every item.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.parity import Answer, answer_ours, answer_stock, compare, load
from tests.unit.data_files import REAL_DATA
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.base import open_engine
from unlearn_bench.models.fingerprint import fingerprint

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

SOURCES = SourceOptions(data_folder=REAL_DATA if REAL_DATA.is_dir() else None, offline=True)
LIMITS = {"truthfulqa": 4, "wikitext": 1, "toxigen_classification": 8, "gsm8k": 2}
ASKED = {  # per subtask and filter, with and without "_mini"
    "truthfulqa_mc1": 4, "truthfulqa_mc2": 4, "wikitext": 1, "toxigen_classification": 8,
    "gsm8k, strict-match": 2, "gsm8k, flexible-extract": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def stock(smollm_folder: Path) -> list[Answer]:
    return answer_stock(smollm_folder, load(LIMITS, SOURCES))


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def ours(request: pytest.FixtureRequest, smollm_folder: Path) -> Iterator[list[Answer]]:
    if request.param == "vllm":
        pytest.importorskip("vllm", reason="the vllm engine is not installed")
    engine = open_engine(request.param, "float32")
    engine.load(smollm_folder, fingerprint(smollm_folder))
    yield answer_ours(engine, load(LIMITS, SOURCES))
    engine.close()


def test_every_item_gets_the_same_answer(stock: list[Answer], ours: list[Answer]) -> None:
    """Every option's likelihood and greedy flag, every page's, every text, every score."""
    compared = {
        name.replace("_mini", ""): (count, apart) for name, count, apart in compare(ours, stock)
    }
    assert {name: count for name, (count, _) in compared.items()} == ASKED
    assert [apart for _, apart in compared.values() if apart] == []
    assert all(
        set(one["values"]) & set(other["values"]) for one, other in zip(ours, stock, strict=True)
    )


def test_a_difference_is_named(stock: list[Answer]) -> None:
    """One likelihood moved by 0.01 nats, one text by a letter: both are told, nothing else."""
    moved = [{**answer} for answer in stock]
    option = next(one for one in moved if len(one["likelihoods"]) > 1)
    option["likelihoods"] = [
        [lp + 0.01, greedy] for lp, greedy in option["likelihoods"][:1]
    ] + option["likelihoods"][1:]
    text = next(one for one in moved if one["texts"])
    text["texts"] = [text["texts"][0] + "!"]
    found = {name.replace("_mini", ""): apart for name, _, apart in compare(moved, stock) if apart}
    assert {name: len(apart) for name, apart in found.items()} == {
        "truthfulqa_mc1": 1,
        "gsm8k, strict-match": 1,
    }
