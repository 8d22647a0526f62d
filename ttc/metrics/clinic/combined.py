"""Limits that few positives ask for: of numbers made of two shares, of means over samples, of the average precision.

The bootstrap resamples the few positives that there are and knows no others, so that its intervals are too narrow
(docs/coverage.md). They are joined with these, which need no draws.

Shape suffixes: N samples, U units (samples or groups), T thresholds.

Source: Zou and Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27 (2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.clinic.proportions import TAIL, clopper_pearson, proportion
from ttc.metrics.intervals import Estimate, Floats, Ints, shared

Limits = tuple[float, float]
Shares = Callable[[float, float], float]
"""From sensitivity and false-positive share to a number that rises with the first and falls with the second."""


def balanced_accuracy_of(sensitivity: float, false: float) -> float:
    """Return the mean recall of both classes."""
    return (sensitivity + 1.0 - false) / 2.0


def f1_of(positives: int, negatives: int) -> Shares:
    """Return F1 as a function of the two shares, for samples of these numbers."""
    return lambda sensitivity, false: (
        2.0 * positives * sensitivity / (positives * sensitivity + positives + negatives * false)
    )


def net_benefit_of(prevalence: float, threshold: float) -> Shares:
    """Return the net benefit as a function of the two shares."""
    price = threshold / (1.0 - threshold)
    return lambda sensitivity, false: prevalence * sensitivity - (1.0 - prevalence) * false * price


def share_limits(
    number: Shares, positive_N: NDArray[np.bool_], called_N: NDArray[np.bool_], groups_N: Ints | None
) -> Limits | None:
    """Return the limits of a number that two shares of different samples make, from their exact intervals.

    Args:
        number: of sensitivity and false-positive share.
        positive_N: [N] whether a sample is positive.
        called_N: [N] whether it is called positive.
        groups_N: [N] number of each sample's group, or None.

    Returns:
        None where a class has no sample, or is of a single group.
    """
    (found, found_low, found_high), (false, false_low, false_high) = (
        _ends(proportion(called_N[side], None if groups_N is None else groups_N[side]))
        for side in (positive_N, ~positive_N)
    )
    if math.isnan(found_low) or math.isnan(false_low):
        return None
    value = number(found, false)
    below = math.hypot(value - number(found_low, false), value - number(found, false_high))
    above = math.hypot(number(found_high, false) - value, number(found, false_low) - value)
    return value - below, value + above


def decision_limits(
    positive_N: NDArray[np.bool_], scores_N: Floats, thresholds: Mapping[str, float | None], groups_N: Ints | None
) -> dict[str, Limits | None]:
    """Return the limits of balanced accuracy and F1 at every threshold that exists, by path."""
    positives = int(positive_N.sum())
    numbers = {"balanced_accuracy": balanced_accuracy_of, "f1": f1_of(positives, len(positive_N) - positives)}
    return {
        f"operating_points/{rule}/{name}": share_limits(number, positive_N, scores_N >= threshold, groups_N)
        for rule, threshold in thresholds.items()
        if threshold is not None
        for name, number in numbers.items()
    }


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    low, high, value = (
        math.nan if end is None else end for end in (estimate["low"], estimate["high"], estimate["value"])
    )
    return value, low, high


def precision_limits(area: float, positive_N: NDArray[np.bool_], groups_N: Ints | None) -> Limits | None:
    """Return the limits of an average precision: of a share of as many samples as there are positives.

    It is a mean over the positives of numbers in [0, 1], of which none spread more than zeros and ones.

    Args:
        area: average precision.
        positive_N: [N] whether a sample is positive.
        groups_N: [N] number of each sample's group, or None; groups with a positive then count in place of positives.

    Returns:
        None without positives, or where all are of a single group.
    """
    groups_N = shared(groups_N)
    units = int(positive_N.sum()) if groups_N is None else len(np.unique(groups_N[positive_N]))
    if not units or (groups_N is not None and units < 2):
        return None
    low, high = clopper_pearson(area * units, units)
    return float(low), float(high)


def mean_limits(errors_N: Floats, positive_N: NDArray[np.bool_], groups_N: Ints | None) -> Limits | None:
    """Return the limits of a mean of errors >= 0, such as the Brier score: t intervals on the scale of logarithms.

    The classes are strata. With groups the sums of groups that hold the same classes vary around their means.

    Args:
        errors_N: [N] of each sample.
        positive_N: [N] whether it is positive.
        groups_N: [N] number of each sample's group, or None.

    Returns:
        None where a stratum has a single unit, or nothing varies.
    """
    from scipy.stats import t

    groups_N, samples = shared(groups_N), len(errors_N)
    unit_N = np.arange(samples) if groups_N is None else np.unique(groups_N, return_inverse=True)[1].reshape(-1)
    sums_U, sizes_U = np.bincount(unit_N, errors_N), np.bincount(unit_N).astype(np.float64)
    stratum_U = np.minimum(np.bincount(unit_N, positive_N), 1.0) + 2.0 * np.minimum(
        np.bincount(unit_N, ~positive_N), 1.0
    )
    variance, spread = 0.0, 0.0
    for stratum in np.unique(stratum_U):
        inside_U = stratum_U == stratum
        units = int(inside_U.sum())
        if units < 2:
            return None
        rest_U = sums_U[inside_U] - sizes_U[inside_U] * (sums_U[inside_U].sum() / sizes_U[inside_U].sum())
        part = units / (units - 1.0) * float((rest_U**2).sum()) / samples**2
        variance, spread = variance + part, spread + part**2 / (units - 1.0)
    mean = float(errors_N.mean())
    if variance <= 0.0 or mean <= 0.0:
        return None
    # Welch and Satterthwaite's degrees of freedom.
    factor = math.exp(min(700.0, float(t.ppf(1.0 - TAIL, variance**2 / spread)) * math.sqrt(variance) / mean))
    return mean / factor, mean * factor


def joined(estimate: Estimate, limits: Limits | None) -> Estimate:
    """Return an estimate whose interval holds these limits too; without a value or limits as it is."""
    if estimate["value"] is None or limits is None:
        return estimate
    low, high = (
        end(limit, estimate["value"] if own is None else own)
        for end, limit, own in ((min, limits[0], estimate["low"]), (max, limits[1], estimate["high"]))
    )
    return {"value": estimate["value"], "low": low, "high": high}
