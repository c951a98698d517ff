"""Rank intervals and ties: what cannot be told apart must not be, and all claims hold at once."""

from __future__ import annotations

import math

import numpy as np

from tests.unit.test_paired import column, noise
from unlearn_bench.compare.ranks import Rank, rank


def singles(number: int) -> list[range]:
    return [range(index, index + 1) for index in range(number)]


def test_clear_differences_give_exact_ranks_in_both_directions() -> None:
    items = noise(1, 100)
    own = column(items + 5, items * 1.001, items + 10)
    up, down = (rank(own, singles(3), way, 1000) for way in ("higher", "lower"))  # type: ignore[arg-type]
    assert up == [Rank(2, 2, 2, 2), Rank(3, 3, 3, 3), Rank(1, 1, 1, 1)]
    assert down == [Rank(2, 2, 2, 2), Rank(1, 1, 1, 1), Rank(3, 3, 3, 3)]


def test_noise_is_one_tie_with_every_rank_possible() -> None:
    own = column(*noise(2, 4, 50))
    ranks = rank(own, singles(4), "higher", 1000)
    assert sorted(found.place for found in ranks) == [1, 2, 3, 4]
    assert {(found.low, found.high, found.tie) for found in ranks} == {(1, 4, 1)}


def test_a_tie_group_is_led_by_its_best() -> None:
    """Two near the top, two near the bottom, far apart: 1 to 2 and 3 to 4."""
    top, bottom = noise(3, 2, 80), noise(4, 2, 80) - 8
    ranks = rank(column(top[0], bottom[0], top[1], bottom[1]), singles(4), "higher", 1000)
    assert [(r.low, r.high, r.tie) for r in ranks] == [(1, 2, 1), (3, 4, 2), (1, 2, 1), (3, 4, 2)]


def test_equal_models_share_a_place_and_a_constant_gap_is_a_difference() -> None:
    items = noise(5, 20)
    ranks = rank(column(items, items, items - 1), singles(3), "higher", 200)
    assert [(r.place, r.tie) for r in ranks] == [(1, 1), (1, 1), (3, 2)]


def test_seeds_are_one_method() -> None:
    """Three seeds that spread by more than the methods differ: no claim."""
    items = noise(6, 200) / 10
    spread = [items + shift for shift in (-1.0, 0.0, 1.0)]
    own = column(*spread, *[values + 0.2 for values in spread])
    ranks = rank(own, [range(3), range(3, 6)], "higher", 2000)
    assert [(r.place, r.low, r.high) for r in ranks] == [(2, 1, 2), (1, 1, 2)]


def test_a_diverged_model_is_last_and_nothing_is_claimed() -> None:
    own = column([1.0, 2.0, 3.0], [math.inf, 1.0, 1.0])
    assert rank(own, singles(2), "lower", 100) == [Rank(1, 1, 2, 1), Rank(2, 1, 2, 1)]


def test_wrong_claims_are_rarer_than_one_in_twenty() -> None:
    """Ten models without any difference, 40 skewed items, 400 boards: at most 7.2 % (5 % and two
    standard errors) have a model that seems better than another. Pair by pair at 5 % it would be
    most boards.
    """
    wrong = 0
    for seed in range(400):
        own = column(*np.exp(noise(seed, 10, 40)))
        wrong += any(found.high < 10 for found in rank(own, singles(10), "higher", 300))
    assert wrong <= 29
