"""How far two askings of one cell may be apart before the stored one is called wrong."""

from __future__ import annotations

import pytest

from unlearn_bench.runs.rerun import LOOSE, Allowed, _compare, allow
from unlearn_bench.runs.verify import Finding
from unlearn_bench.schema import Sample, TokenLikelihoods

DECODING = {"drawn": {"temperature": 1.0, "repeats": 4}, "written": {"temperature": 0.0}}
STRICT = allow({"name": "vllm", "dtype": "float32"}, DECODING, same_weights=True)


def sample(item: int, *, text: str = "", total: float = 0.0, task: str = "written") -> Sample:
    """A text; or an option of ten tokens whose log-probability is `total`."""
    tokens = TokenLikelihoods(log_probs=(total / 10,) * 10, greedy=(False,) * 10)
    return Sample(
        task, str(item), "none", "prompt", (text,) if text else (), {}, {},
        likelihoods=() if text else ((total, False),), tokens=() if text else (tokens,),
    )  # fmt: skip


def compared(stored: list[Sample], anew: list[Sample], allowed: Allowed) -> Finding:
    finding = Finding("cell")
    _compare(stored, anew, allowed, finding)
    return finding


@pytest.mark.parametrize(
    ("dtype", "moved", "wrong"),
    [
        ("float32", 1.5e-4, 0),  # as far as packing was ever seen to move one: 1.5e-5 per token
        ("float32", 0.1, 1),  # 0.01 per token: another learning rate's, not rounding's
        ("mixed", 0.1, 1),  # likelihoods are fp32 there
        ("bfloat16", 0.1, 0),
        ("bfloat16", 0.6, 1),
    ],
)
def test_how_far_a_likelihood_may_move_depends_on_the_numbers_format(
    dtype: str, moved: float, wrong: int
) -> None:
    """Of an option of ten tokens: a tenth of it per token, against 0.001 or 0.05."""
    allowed = allow({"name": "vllm", "dtype": dtype}, DECODING, same_weights=True)
    finding = compared([sample(1, total=-20.0)], [sample(1, total=-20.0 - moved)], allowed)
    assert len(finding.wrong) == wrong


def test_other_weights_round_as_they_like_and_are_said_elsewhere() -> None:
    allowed = allow({"name": "vllm", "dtype": "float32"}, DECODING, same_weights=False)
    assert (allowed.nats, allowed.texts) == (LOOSE, 0.5)


@pytest.mark.parametrize(("others", "wrong"), [(1, 0), (2, 0), (3, 1)])
def test_of_twenty_texts_in_fp32_two_may_be_others(others: int, wrong: int) -> None:
    """A tenth of twenty are two; what is others and no fault was not checked."""
    stored = [sample(item, text="as it was") for item in range(20)]
    anew = [sample(item, text="other" if item < others else "as it was") for item in range(20)]
    finding = compared(stored, anew, STRICT)
    assert (len(finding.wrong), len(finding.unchecked)) == (wrong, 1 - wrong)
    assert f"{others} of 20" in (finding.wrong + finding.unchecked)[0]
    half = compared(stored, anew, Allowed(nats=LOOSE, texts=0.5))
    assert half.wrong == []


def test_one_text_alone_is_no_verdict() -> None:
    finding = compared([sample(1, text="as it was")], [sample(1, text="other")], STRICT)
    assert (finding.wrong, len(finding.unchecked)) == ([], 1)


@pytest.mark.parametrize(("engine", "wrong"), [("transformers", 0), ("vllm", 1)])
def test_texts_that_are_drawn_with_their_batch_are_not_compared(engine: str, wrong: int) -> None:
    """transformers draws a batch from one generator, and another batch was asked. Our vLLM draws by
    prompt and repeat, so there they must be the same.
    """
    allowed = allow({"name": engine, "dtype": "float32"}, DECODING, same_weights=True)
    stored, anew = (
        [sample(item, text=text, task="drawn") for item in range(5)] for text in ("a", "b")
    )
    finding = compared(stored, anew, allowed)
    assert (len(finding.wrong), len(finding.unchecked)) == (wrong, 1 - wrong)
