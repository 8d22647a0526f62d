"""Do probabilities mean what they say: Brier score, calibration error, reliability curve, temperature scaling.

Shape suffixes: N samples, K classes, R draws, E bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from ttc.metrics.intervals import Floats, Ints

BINS = 15
"""Bins of equal width, as in Guo et al., "On calibration of modern neural networks", ICML 2017."""

_SMALLEST = 1e-300
"""Stands for a probability that was rounded to zero, whose logarithm would be infinite."""


class Bin(TypedDict):
    """A point of the reliability curve: the samples whose score is above `low` and at most `high`."""

    low: float
    high: float
    n: int
    mean_score: float
    observed: float


def scored_events(labels_N: Ints, probabilities_NK: Floats) -> tuple[Floats, Floats]:
    """Return the probability [N] whose calibration is measured, and whether what it predicts has happened [N].

    For two classes it is the probability of class 1, so that a rare class is not hidden behind the frequent one. For
    more it is the probability of the predicted class.
    """
    if probabilities_NK.shape[1] == 2:
        return probabilities_NK[:, 1], (labels_N == 1).astype(np.float64)
    return probabilities_NK.max(axis=1), (probabilities_NK.argmax(axis=1) == labels_N).astype(np.float64)


def _bins(scores_N: Floats) -> Ints:
    """Return the number of each score's bin; a score on an edge belongs to the lower bin."""
    return np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], scores_N)


def reliability(labels_N: Ints, probabilities_NK: Floats) -> list[Bin]:
    """Return the reliability curve, from low to high scores; bins without samples are left out."""
    scores_N, events_N = scored_events(labels_N, probabilities_NK)
    bins_N, edges = _bins(scores_N), np.linspace(0.0, 1.0, BINS + 1).tolist()
    curve: list[Bin] = []
    for number in np.unique(bins_N).tolist():
        inside_N = bins_N == number
        curve.append(
            {
                "low": edges[number],
                "high": edges[number + 1],
                "n": int(inside_N.sum()),
                "mean_score": float(scores_N[inside_N].mean()),
                "observed": float(events_N[inside_N].mean()),
            }
        )
    return curve


def calibration_statistics(labels_N: Ints, probabilities_NK: Floats) -> Callable[[Floats], dict[str, Floats]]:
    """Return a function from the counts of draws [R, N] to Brier score and expected calibration error [R].

    Note: for two classes the Brier score is (probability - event)^2 of class 1, in [0, 1]; for more it is the sum over
    the classes, in [0, 2]. The calibration error is the mean distance of the bins from the diagonal, weighted by their
    samples.
    """
    scores_N, events_N = scored_events(labels_N, probabilities_NK)
    classes = probabilities_NK.shape[1]
    errors_N = ((probabilities_NK - np.eye(classes)[labels_N]) ** 2).sum(axis=1) / (2.0 if classes == 2 else 1.0)
    gaps_NE = np.eye(BINS)[_bins(scores_N)] * (scores_N - events_N)[:, None]

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        n_R = counts_RN.sum(axis=1)
        return {"brier": counts_RN @ errors_N / n_R, "ece": np.abs(counts_RN @ gaps_NE).sum(axis=1) / n_R}

    return evaluate


def fit_temperature(labels_N: Ints, probabilities_NK: Floats) -> float | None:
    """Fit the temperature that gives validation its largest likelihood.

    The negative log-likelihood of softmax(log p / T) is convex in 1 / T, so its slope has one root.

    Args:
        labels_N: [N] classes of the validation samples.
        probabilities_NK: [N, K] their probabilities.

    Returns:
        T > 0; above 1 where the probabilities are too extreme. None where validation determines none: every sample is
        right (T would be 0), or the probabilities are no better than chance (T would be infinite).

    Source: Guo et al., ICML 2017, section 4.2.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    logs_NK = _logarithms(probabilities_NK)
    true_N = logs_NK[np.arange(len(labels_N)), labels_N]

    def slope(inverse: float) -> float:
        return float(((softmax(inverse * logs_NK, axis=1) * logs_NK).sum(axis=1) - true_N).mean())

    right = bool((true_N >= logs_NK.max(axis=1)).all())
    if right or slope(0.0) >= 0.0:
        return None
    high = 1.0
    while slope(high) < 0.0:
        high *= 2.0
    return 1.0 / float(brentq(slope, 0.0, high, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps))


def apply_temperature(probabilities_NK: Floats, temperature: float) -> Floats:
    """Return softmax(log p / T): the ranking stays for two classes, the predicted class always."""
    from scipy.special import softmax

    return np.asarray(softmax(_logarithms(probabilities_NK) / temperature, axis=1))


def _logarithms(probabilities_NK: Floats) -> Floats:
    return np.log(np.maximum(probabilities_NK, _SMALLEST))
