"""DeLong's variance of the AUROC, its interval and the paired test of two AUROCs.

Shape suffixes: N samples, P positive samples, M negative samples, U groups.

Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics 44 (1988); by midranks as in Sun and Xu, IEEE Signal Processing Letters 21 (2014).
With groups: Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53 (1997).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.intervals import Floats, Ints

_Z = NormalDist().inv_cdf(0.975)


class DeLong(TypedDict):
    """An AUROC with its variance and 95 % interval; None = not defined on these samples."""

    value: float | None
    variance: float | None
    low: float | None
    high: float | None


class DeLongTest(TypedDict):
    """Difference of two AUROCs on the same samples, first minus second; None = not defined on these samples."""

    difference: float | None
    variance: float | None
    low: float | None
    high: float | None
    z: float | None
    p: float | None


def delong(positive_N: NDArray[np.bool_], scores_N: Floats, groups_N: Ints | None = None) -> DeLong:
    """Return the AUROC with DeLong's variance and the normal interval, cut to [0, 1].

    Args:
        positive_N: [N] whether a sample is positive.
        scores_N: [N] finite scores, higher = more likely positive.
        groups_N: [N] number of each sample's group (patient, site), for Obuchowski's variance; None takes samples as
            independent.

    Returns:
        All None where a class has no sample; variance and interval None where one has a single sample or group, and no
        interval where the variance is zero: perfect separation, or equal scores.

    Note: with few samples of a class the interval covers too rarely, see `auroc.auroc`.
    """
    if positive_N.all() or not positive_N.any():
        return {"value": None, "variance": None, "low": None, "high": None}
    over_P, under_M = placements(positive_N, scores_N)
    value, variance = float(over_P.mean()), _variance(positive_N, over_P, under_M, groups_N)
    if not variance:
        return {"value": value, "variance": variance, "low": None, "high": None}
    margin = _Z * math.sqrt(variance)
    return {"value": value, "variance": variance, "low": max(0.0, value - margin), "high": min(1.0, value + margin)}


def delong_test(
    positive_N: NDArray[np.bool_], first_N: Floats, second_N: Floats, groups_N: Ints | None = None
) -> DeLongTest:
    """Test whether two scores of the same samples have the same AUROC.

    Args:
        positive_N: [N] whether a sample is positive.
        first_N: [N] finite scores of the first run.
        second_N: [N] those of the second run.
        groups_N: [N] number of each sample's group, see `delong`.

    Returns:
        The difference, its variance and normal interval, the statistic and the two-sided p-value. The test is not
        defined (None) where the difference cannot vary: equal rankings, or a class with a single sample or group.
    """
    if positive_N.all() or not positive_N.any():
        return {"difference": None, "variance": None, "low": None, "high": None, "z": None, "p": None}
    pairs = zip(placements(positive_N, first_N), placements(positive_N, second_N), strict=True)
    over_P, under_M = (first - second for first, second in pairs)
    difference, variance = float(over_P.mean()), _variance(positive_N, over_P, under_M, groups_N)
    if not variance:
        return {"difference": difference, "variance": variance, "low": None, "high": None, "z": None, "p": None}
    error = math.sqrt(variance)
    z = difference / error
    return {
        "difference": difference,
        "variance": variance,
        "low": difference - _Z * error,
        "high": difference + _Z * error,
        "z": z,
        "p": math.erfc(abs(z) / math.sqrt(2.0)),
    }


def placements(positive_N: NDArray[np.bool_], scores_N: Floats) -> tuple[Floats, Floats]:
    """Return the share of negative samples below each positive one [P], and of positive ones above each negative [M].

    A tie counts one half; the mean of either is the AUROC.
    """
    from scipy.stats import rankdata

    positive_P, negative_M = scores_N[positive_N], scores_N[~positive_N]
    ranks_N = rankdata(scores_N)
    over_P = (ranks_N[positive_N] - rankdata(positive_P)) / len(negative_M)
    under_M = 1.0 - (ranks_N[~positive_N] - rankdata(negative_M)) / len(positive_P)
    return over_P, under_M


def _variance(positive_N: NDArray[np.bool_], over_P: Floats, under_M: Floats, groups_N: Ints | None) -> float | None:
    """Return the variance of the mean placement, None with a single sample, or group, of a class.

    With groups, the deviations of a group's samples are summed before they are squared, and those of its positive and
    negative samples vary together. With one sample per group this is DeLong's variance.
    """
    if groups_N is None:
        if min(len(over_P), len(under_M)) < 2:
            return None
        return float(over_P.var(ddof=1) / len(over_P) + under_M.var(ddof=1) / len(under_M))
    units = int(groups_N.max()) + 1
    groups_P, groups_M = groups_N[positive_N], groups_N[~positive_N]
    group_counts = [len(np.unique(groups)) for groups in (groups_P, groups_M)]
    if min(group_counts) < 2:
        return None
    over_U = np.bincount(groups_P, over_P - over_P.mean(), units) / len(over_P)
    under_U = np.bincount(groups_M, under_M - under_M.mean(), units) / len(under_M)
    scales = [count / (count - 1) for count in (*group_counts, units)]
    products = (over_U @ over_U, under_U @ under_U, 2.0 * over_U @ under_U)
    # The covariance is an estimate of its own, which may outweigh the variances of a few groups.
    return max(0.0, float(np.dot(scales, products)))
