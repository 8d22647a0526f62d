"""The AUROC with an interval that covers, also with few positive samples and near 0 or 1.

Shape suffixes: N samples.

Source: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2:
asymptotic methods and evaluation", Statistics in Medicine 25 (2006), method 5. With groups: the variance of Obuchowski,
"Nonparametric analysis of clustered ROC curve data", Biometrics 53 (1997), on the logit scale.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttc.metrics.clinic.proportions import TAIL, clopper_pearson
from ttc.metrics.delong import delong
from ttc.metrics.intervals import Estimate, Floats, Ints, shared

_Z = NormalDist().inv_cdf(1.0 - TAIL)
EDGE, FEW = 0.97, 50
"""Above EDGE, or below 1 - EDGE, with fewer than FEW units of a class Newcombe's interval alone may cover in 82 %."""


def newcombe(areas: ArrayLike, positives: float, negatives: float) -> tuple[Floats, Floats]:
    """Return Newcombe's 95 % limits, method 5: of all areas whose score test does not reject the one observed.

    Args:
        areas: AUROCs in [0, 1], any shape.
        positives: number of positive samples, >= 1.
        negatives: number of negative samples, >= 1.

    Returns:
        The lower and the upper limits, a positive distance apart.
    """
    areas_ = np.asarray(areas, dtype=np.float64)
    n_star = (positives + negatives) / 2.0 - 1.0  # the paper's N*

    def rejects(guess: Floats, observed: Floats) -> NDArray[np.bool_]:
        variance = guess * (1.0 - guess) * (1.0 + n_star * ((1.0 - guess) / (2.0 - guess) + guess / (1.0 + guess)))
        return np.asarray((observed - guess) ** 2 > _Z**2 * variance / (positives * negatives))

    def lower(observed: Floats) -> Floats:
        # Bisection: `low` is always rejected, `high` is not; at an area of 0 both ends are 0.
        low, high = np.zeros_like(observed), observed.copy()
        for _ in range(60):
            middle = 0.5 * (low + high)
            rejected = rejects(middle, observed)
            low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
        return np.where(observed > 0.0, low, 0.0)

    return lower(areas_), 1.0 - lower(1.0 - areas_)


def joined_limits(areas: ArrayLike, positives: float, negatives: float) -> tuple[Floats, Floats]:
    """Return Newcombe's limits, near 0 and 1 joined with the exact binomial ones of the smaller class.

    Args and returns: as `newcombe`.
    """
    areas_ = np.asarray(areas, dtype=np.float64)
    low, high = newcombe(areas_, positives, negatives)
    smaller = min(positives, negatives)
    if smaller >= FEW:
        return low, high
    edge = np.abs(areas_ - 0.5) > EDGE - 0.5
    exact_low, exact_high = clopper_pearson(areas_ * smaller, smaller)
    return np.where(edge, np.minimum(low, exact_low), low), np.where(edge, np.maximum(high, exact_high), high)


def clustered_limits(area: float, variance: float, positive_groups: int, negative_groups: int) -> tuple[float, float]:
    """Return 95 % limits of an AUROC of samples that share groups: on the logit scale, with t quantiles.

    Args:
        area: AUROC in [0, 1].
        variance: Obuchowski's.
        positive_groups: groups with a positive sample, >= 2.
        negative_groups: groups with a negative one, >= 2.

    Returns:
        Lower and upper limit. Near 0 and 1 they are joined with those of groups as single samples, since there the
        variance of few groups is often far too small, and they are those where it is zero.
    """
    from scipy.stats import t

    smaller = min(positive_groups, negative_groups)
    as_samples = joined_limits(area, positive_groups, negative_groups)
    if variance <= 0.0 or area in (0.0, 1.0):
        return float(as_samples[0]), float(as_samples[1])
    margin = t.ppf(1.0 - TAIL, smaller - 1) * math.sqrt(variance) / (area * (1.0 - area))
    centre = math.log(area / (1.0 - area))
    low, high = (1.0 / (1.0 + math.exp(-min(max(centre + side * margin, -700.0), 700.0))) for side in (-1, 1))
    if abs(area - 0.5) > EDGE - 0.5:
        low, high = min(low, float(as_samples[0])), max(high, float(as_samples[1]))
    return low, high


def auroc(positive_N: NDArray[np.bool_], scores_N: Floats, groups_N: Ints | None = None) -> Estimate:
    """Return the AUROC with its 95 % interval, which is never of zero width.

    Args:
        positive_N: [N] whether a sample is positive.
        scores_N: [N] finite scores, higher = more likely positive.
        groups_N: [N] number of each sample's group (patient, site); None takes samples as independent.

    Returns:
        All None where a class has no sample; no interval where the samples of a class are of a single group.
    """
    groups_N = shared(groups_N)
    estimate = delong(positive_N, scores_N, groups_N)
    area = estimate["value"]
    if area is None:
        return {"value": None, "low": None, "high": None}
    if groups_N is None:
        positives = int(positive_N.sum())
        low, high = (float(limit) for limit in joined_limits(area, positives, len(positive_N) - positives))
        return {"value": area, "low": low, "high": high}
    if estimate["variance"] is None:
        return {"value": area, "low": None, "high": None}
    group_counts = [len(np.unique(groups_N[side])) for side in (positive_N, ~positive_N)]
    low, high = clustered_limits(area, estimate["variance"], *group_counts)
    return {"value": area, "low": low, "high": high}
