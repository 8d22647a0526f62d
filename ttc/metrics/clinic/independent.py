"""A model on two independent samples: differences, and what a new intercept would mend.

Shape suffixes: N samples, K classes.

Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
(1998), method 10; Zou and Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27
(2008), who show that it serves any two estimates with intervals.
"""

from __future__ import annotations

import math

import numpy as np

from ttc.metrics.clinic.logistic import logarithms
from ttc.metrics.intervals import Estimate, Floats, Ints


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Return first minus second with a 95 % interval, from the intervals of two independent samples."""
    if first["value"] is None or second["value"] is None:
        return {"value": None, "low": None, "high": None}
    value = first["value"] - second["value"]
    if first["low"] is None or first["high"] is None or second["low"] is None or second["high"] is None:
        return {"value": value, "low": None, "high": None}
    below = math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return {"value": value, "low": value - below, "high": value + above}


def recalibrate_in_the_large(labels_N: Ints, probabilities_NK: Floats) -> Floats | None:
    """Return probabilities with new intercepts, so that their mean is the share of each class; slopes stay.

    The labels of the new sample are used: it says what a new intercept would mend, not what the frozen model does.

    Args:
        labels_N: [N] classes.
        probabilities_NK: [N, K].

    Returns:
        [N, K] softmax(log p + a) with the a of the largest likelihood; None where a class has no sample.
    """
    from scipy.special import softmax

    classes = probabilities_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=classes).astype(np.float64)
    if not counts_K.all():
        return None
    logs_NK, offsets_K = logarithms(probabilities_NK), np.zeros(classes)

    def loss(offsets: Floats) -> float:
        shifted_NK = logs_NK + offsets
        largest_N1 = shifted_NK.max(axis=1, keepdims=True)
        return float(
            (largest_N1[:, 0] + np.log(np.exp(shifted_NK - largest_N1).sum(axis=1))).sum() - counts_K @ offsets
        )

    for _ in range(200):
        fitted_NK = np.asarray(softmax(logs_NK + offsets_K, axis=1))
        ascent_K = counts_K - fitted_NK.sum(axis=0)
        curvature_KK = np.diag(fitted_NK.sum(axis=0)) - fitted_NK.T @ fitted_NK
        # The first class is the reference: only differences of offsets matter.
        step_K = np.zeros(classes)
        step_K[1:] = np.linalg.lstsq(curvature_KK[1:, 1:], ascent_K[1:], rcond=None)[0]
        scale = min(1.0, 5.0 / max(1e-12, float(np.abs(step_K).max())))
        while scale > 1e-9 and loss(offsets_K + scale * step_K) > loss(offsets_K):
            scale *= 0.5
        offsets_K = offsets_K + scale * step_K
        if np.abs(step_K).max() < 1e-13:
            break
    return np.asarray(softmax(logs_NK + offsets_K, axis=1))
