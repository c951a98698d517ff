"""Drawing from the head of the distribution must be drawing from the nucleus itself."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="the vllm engine is not installed")

from unlearn_bench.engine.nucleus import NucleusProcessor, draw_from_nucleus, take_broken


def nucleus_by_full_sort(logits: torch.Tensor, top_p: float) -> dict[int, float]:
    """The definition: tokens whose likelier ones hold less than p, with renormalised shares."""
    kept: dict[int, float] = {}
    mass = 0.0
    probabilities = logits.double().softmax(-1)
    for token in logits.argsort(descending=True).tolist():
        if mass >= top_p:
            break
        kept[token] = float(probabilities[token])
        mass += kept[token]
    return {token: share / mass for token, share in kept.items()}


@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
@pytest.mark.parametrize("heads", [(16,), (16, 64), (1000,)])
def test_every_token_is_drawn_as_often_as_its_share_of_the_nucleus(
    scale: float, top_p: float, heads: tuple[int, ...]
) -> None:
    """A grid of N evenly spaced numbers hits an interval of length s between N·s − 1 and N·s + 1.

    Scale 0.05 is nearly uniform: 90 % of the mass needs about 230 of 256 tokens, the head is 16.
    """
    draws = 4000
    logits = torch.randn(256, generator=torch.Generator().manual_seed(1)) * scale
    uniform = (torch.arange(draws) + 0.5) / draws
    tokens = draw_from_nucleus(
        logits.expand(draws, -1), torch.full((draws,), top_p), uniform, heads
    )
    counts = torch.bincount(tokens, minlength=256)
    expected = nucleus_by_full_sort(logits, top_p)
    for token, count in enumerate(counts.tolist()):
        assert abs(count - draws * expected.get(token, 0.0)) <= 1.5, token


def test_two_of_three_by_hand() -> None:
    """p = (.5, .3, .2), top-p .6: .5 < .6 keeps the second, .8 ends it. Shares .625 and .375."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(4, -1)
    uniform = torch.tensor([0.0, 0.62, 0.63, 0.999])
    assert draw_from_nucleus(logits, torch.full((4,), 0.6), uniform).tolist() == [0, 0, 1, 1]


def test_rows_have_their_own_p_and_the_largest_number_stays_inside() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]] * 2).log()
    uniform = torch.tensor([1 - 2**-24] * 2)
    assert draw_from_nucleus(logits, torch.tensor([0.4, 1.0]), uniform).tolist() == [0, 2]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_logit_that_is_not_finite_is_told_once_and_stops_nobody(value: float) -> None:
    processor = NucleusProcessor(None, torch.device("cpu"), False)
    take_broken(None)
    logits = torch.randn(3, 600, generator=torch.Generator().manual_seed(1))
    processor.apply(logits.clone())
    assert not take_broken(None)
    logits[1, 5] = value
    processor.apply(logits)
    processor.apply(torch.zeros(3, 600))
    assert take_broken(None)
    assert not take_broken(None)
    drawn = draw_from_nucleus(logits, torch.tensor([0.9] * 3), torch.tensor([0.5] * 3))
    assert ((drawn >= 0) & (drawn < 600)).all()
