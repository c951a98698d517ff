"""What a comparison of this size could find, before it is made."""

from __future__ import annotations

import math

from scipy.stats import norm, t

LEVEL = 0.05  # two-sided
POWER = 0.8
FEWEST = 6  # labels of C clusters can be swapped in 2^C ways, so p ≥ 2/2^C: above 5 % for five


def minimum_detectable_effect(
    spread: float, clusters: int, *, binary: bool = False, power: float = POWER, seeds: int = 1
) -> float:
    """Smallest true difference of two models' means that a paired test at 5 % finds this often.

    spread: standard deviation of the clusters' differences. (z_{0.975} + z_power)·spread / √C (for
    example Cohen 1988, section 2.4, with the normal in place of t). binary: items are 0 or 1 and
    stand alone; the exact test then needs one item more, 1/C. NaN below two clusters; infinite
    below FEWEST, where `compare.paired` finds no difference however large it is.

    seeds: of the method, beside one target. Of several the test has Student's t of k − 1 degrees,
    and so have the quantiles. How far they spread nobody knows before; the difference is found this
    often where they differ item by item as much as the two models do, or as a whole by as much as
    the items leave unknown, and more often where they differ by less.
    """
    if clusters < 2:
        return math.nan
    if clusters < FEWEST and seeds == 1:
        return math.inf
    known = norm if seeds == 1 else t(seeds - 1)
    quantiles = known.ppf(1 - LEVEL / 2) + known.ppf(power)
    return float(quantiles * spread / math.sqrt(clusters)) + (1 / clusters if binary else 0)
