"""The exact sign-flip test of paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 44
"""Pairs; each half of them has 2^22 sums."""


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean of zero: the share of sign patterns with a sum as far from zero.

    All patterns count, none are drawn: the sums of one half of the differences are looked up among those of the other.

    Args:
        differences: independent, each as likely to have the other sign if there is no effect; at most MOST.
    """
    assert len(differences) <= MOST, f"{len(differences)} pairs are too many to count all patterns"
    # Sums of the same numbers in another order differ in the last digits.
    rounding = 1e-12 * sum(map(abs, differences))
    observed = abs(sum(differences)) - rounding
    half = len(differences) // 2
    first, second = _sums(differences[:half]), np.sort(_sums(differences[half:]))
    above = len(second) - np.searchsorted(second, observed - first, side="left")
    below = np.searchsorted(second, -observed - first, side="right")
    return min(1.0, float((above + below).mean() / len(second)))


def _sums(differences: Sequence[float]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate((sums + difference, sums - difference))
    return sums
