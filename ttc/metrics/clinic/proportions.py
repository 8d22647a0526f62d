"""Exact intervals of shares: sensitivity, specificity, predictive values, accuracy.

Shape suffixes: N samples, G groups.

Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934). With groups: Korn and Graubard, "Confidence intervals for proportions with small expected number
of positive counts estimated from survey data", Survey Methodology 24 (1998): the same limits with the effective number
of samples, which is their number divided by the design effect.
Note: on the safe side of that: no factor G / (G - 1) in the variance, a design effect of at least 1, the t quantile of
the effective samples, not of all of them; few groups count as fewer samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttc.metrics.intervals import Estimate, Floats, Ints, shared

TAIL = 0.025
"""Of a 95 % interval, on either side."""


def clopper_pearson(hits: ArrayLike, samples: ArrayLike) -> tuple[Floats, Floats]:
    """Return the exact 95 % limits of a share, which are never of zero width.

    Args:
        hits: how many of the samples count, in [0, samples]; need not be whole. Any shape.
        samples: > 0, the same shape.

    Returns:
        The lower and the upper limits.
    """
    from scipy.special import betaincinv

    hits_, samples_ = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(samples, np.float64))
    misses_ = samples_ - hits_
    has_hits, has_misses = hits_ > 0.0, misses_ > 0.0
    low = np.where(has_hits, betaincinv(np.where(has_hits, hits_, 1.0), misses_ + 1.0, TAIL), 0.0)
    high = np.where(has_misses, betaincinv(hits_ + 1.0, np.where(has_misses, misses_, 1.0), 1.0 - TAIL), 1.0)
    return low, high


def effective_samples(hits_N: NDArray[np.bool_], groups_N: Ints) -> float:
    """Return how many independent samples tell as much about a share as samples that share groups do.

    That is N divided by the design effect, the variance of the share over groups by that of independent samples; at
    most N. A share of 0 or 1 shows no variance: then it is the number of groups. The variance of few groups is itself
    uncertain, which a ratio of t quantiles makes up for.

    Args:
        hits_N: [N] whether a sample counts, N >= 1.
        groups_N: [N] number of each sample's group.
    """
    from scipy.stats import t

    numbers_N = np.unique(groups_N, return_inverse=True)[1].reshape(-1)
    sizes_G = np.bincount(numbers_N).astype(np.float64)
    hits_G = np.bincount(numbers_N, hits_N.astype(np.float64))
    samples, groups, share = float(len(hits_N)), len(sizes_G), float(hits_N.mean())
    if share in (0.0, 1.0) or groups < 2:
        return float(groups)
    spread = float(((hits_G - share * sizes_G) ** 2).sum())
    design_effect = max(1.0, spread / (samples * share * (1.0 - share)))
    effective = samples / design_effect
    if effective > groups:
        effective *= (t.ppf(TAIL, max(effective - 1.0, 1.0)) / t.ppf(TAIL, groups - 1)) ** 2
    return max(effective, 1.0)


def proportion(hits_N: NDArray[np.bool_], groups_N: Ints | None = None) -> Estimate:
    """Return a share with its exact 95 % interval.

    Args:
        hits_N: [N] whether a sample counts.
        groups_N: [N] number of each sample's group (patient, site); None takes samples as independent.

    Returns:
        All None without samples; no interval where all samples are of a single group, which says nothing about others.
    """
    if not len(hits_N):
        return {"value": None, "low": None, "high": None}
    share, samples = float(hits_N.mean()), float(len(hits_N))
    groups_N = shared(groups_N)
    if groups_N is not None:
        if (groups_N == groups_N[0]).all():
            return {"value": share, "low": None, "high": None}
        samples = effective_samples(hits_N, groups_N)
    low, high = clopper_pearson(share * samples, samples)
    return {"value": share, "low": float(low), "high": float(high)}
