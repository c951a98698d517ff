"""Planted losses are found as often as promised, and what cannot be found is said to be so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.unit.test_paired import column
from unlearn_bench.compare.paired import compare
from unlearn_bench.compare.power import minimum_detectable_effect


def test_by_hand() -> None:
    """(1.95996 + 0.84162)·0.5/√100 = 0.14008; one item of a hundred more is 0.15008."""
    assert minimum_detectable_effect(0.5, 100) == pytest.approx(0.14008, abs=1e-5)
    assert minimum_detectable_effect(0.5, 100, binary=True) == pytest.approx(0.15008, abs=1e-5)
    assert math.isnan(minimum_detectable_effect(0.5, 1))


def test_of_several_seeds_by_hand() -> None:
    """t of 2 degrees is 4.30265 at 97.5 % and 1.06066 at 80 %: their sum · 0.5/√100 = 0.26817. Five
    subjects are not too few: labels are not swapped.
    """
    assert minimum_detectable_effect(0.5, 100, seeds=3) == pytest.approx(0.26817, abs=1e-5)
    assert math.isfinite(minimum_detectable_effect(0.5, 5, seeds=2))
    assert math.isnan(minimum_detectable_effect(0.5, 1, seeds=3))


@pytest.mark.parametrize(("seeds", "own", "whole"), [(2, 0.3, 0.0), (3, 0.3, 0.0), (3, 0.03, 1.0)])
def test_a_planted_shift_is_found_with_several_seeds(seeds: int, own: float, whole: float) -> None:
    """The worst that is promised: seeds differ item by item as much as the models do (own), or as a
    whole by the items' error. Of 150 experiments 73 % and more: 0.8 less two standard errors.
    """
    shared = math.sqrt(0.3**2 - own**2)
    effect = minimum_detectable_effect(0.3, 40, seeds=seeds)
    found = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        models = effect + generator.normal(0, shared, 40) + generator.normal(0, own, (seeds, 40))
        models += generator.normal(0, whole * 0.3 / math.sqrt(40), (seeds, 1))
        target = [np.zeros(40)] * seeds
        found += compare(column(*models, *target), seeds, resamples=400).p <= 0.05
    assert found >= 0.73 * 150


def test_what_the_test_could_never_find_is_said_to_be_so() -> None:
    """Five subjects, all changed alike and a hundredfold: 2 of 32 swaps are as far apart, p = 1/16.
    With six it is 1/32.
    """
    letters = "aabbccddeeff"
    for subjects, found in ((5, False), (6, True)):
        size = 2 * subjects
        own = column(np.full(size, 9.0), np.zeros(size), clusters=letters[:size])
        assert (compare(own, 1).p <= 0.05) is found
        assert math.isfinite(minimum_detectable_effect(0.01, subjects)) is found


def test_a_planted_loss_of_five_points_is_found_at_the_declared_power() -> None:
    """0/1 items of which the edit turns 8 % from right to wrong and 3 % the other way: a loss of
    five points. The differences' variance is 0.11 − 0.05² = 0.1075. The size at which the formula
    says 0.05 is the 0.8 promised: of 400 experiments of that size at least 76 % (0.8 less two
    standard errors) have p ≤ 0.05.
    """
    spread = math.sqrt(0.11 - 0.05**2)
    size = next(
        n for n in range(2, 1000) if minimum_detectable_effect(spread, n, binary=True) <= 0.05
    )
    assert 370 < size < 385
    found = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        kinds = generator.choice(4, size=size, p=[0.08, 0.03, 0.5, 0.39])
        before, after = np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
        found += compare(column(after.astype(float), before.astype(float)), 1, 200).p <= 0.05
    assert found >= 0.76 * 400


@pytest.mark.parametrize("clusters", [12, 40])
def test_a_planted_shift_of_clustered_facts_is_found_at_the_declared_power(clusters: int) -> None:
    """Subjects of four facts that err together: what counts is the number of subjects."""
    effect = minimum_detectable_effect(0.3, clusters)
    letters = "".join(chr(97 + n) * 4 for n in range(clusters))
    found = 0
    for seed in range(300):
        shift = np.repeat(np.random.default_rng(seed).normal(effect, 0.3, clusters), 4)
        own = column(shift, np.zeros(4 * clusters), clusters=letters)
        found += compare(own, 1, resamples=400).p <= 0.05
    assert found >= 0.72 * 300  # with twelve clusters t, not z, would be right: a little less
