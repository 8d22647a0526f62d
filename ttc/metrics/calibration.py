"""Do probabilities mean what they say: Brier score, log loss, calibration error, intercept and slope, temperature.

What makes probabilities of scores: `ttc.metrics.clinic.calibrators`.

Shape suffixes: N samples, K classes, R draws, E bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from ttc.metrics.clinic.logistic import fit_logistic, logarithms
from ttc.metrics.clinic.proportions import TAIL
from ttc.metrics.intervals import Estimate, Floats, Ints, shared

BINS = 15
"""Bins of equal width, as in Guo et al., "On calibration of modern neural networks", ICML 2017."""

_BEYOND_FITTING = 50.0
"""Log-odds that no data can show, e^50 to one. A fit that gets there, or an interval far beyond, has diverged."""
_LEAST_LIKELY = 1e-15
"""The log loss takes no probability as smaller, as scikit-learn once did: one certain error would outweigh all else."""


STATISTICS = ("brier", "log_loss", "ece")
"""What `calibration_statistics` returns."""


class Bin(TypedDict):
    """A point of the reliability curve: the samples whose score is above `low` and at most `high`."""

    low: float
    high: float
    n: int
    mean_score: float
    observed: float


def scored_events(labels_N: Ints, probabilities_NK: Floats) -> tuple[Floats, Floats]:
    """Return the probability [N] whose calibration is measured, and whether its event has happened [N].

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


def sample_errors(labels_N: Ints, probabilities_NK: Floats) -> dict[str, Floats]:
    """Return the errors [N] whose means are Brier score and log loss."""
    classes = probabilities_NK.shape[1]
    squares_N = ((probabilities_NK - np.eye(classes)[labels_N]) ** 2).sum(axis=1) / (2.0 if classes == 2 else 1.0)
    surprise_N = -np.log(np.maximum(probabilities_NK[np.arange(len(labels_N)), labels_N], _LEAST_LIKELY))
    return {"brier": squares_N, "log_loss": surprise_N}


def calibration_statistics(labels_N: Ints, probabilities_NK: Floats) -> Callable[[Floats], dict[str, Floats]]:
    """Return a function from the counts of draws [R, N] to Brier score, log loss and expected calibration error [R].

    Note: for two classes the Brier score is (probability - event)^2 of class 1, in [0, 1]; for more it is the sum over
    the classes, in [0, 2]. The calibration error is the mean distance of the bins from the diagonal, weighted by their
    samples.
    """
    scores_N, events_N = scored_events(labels_N, probabilities_NK)
    errors = sample_errors(labels_N, probabilities_NK)
    gaps_NE = np.eye(BINS)[_bins(scores_N)] * (scores_N - events_N)[:, None]

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        n_R = counts_RN.sum(axis=1)
        return {
            **{name: counts_RN @ errors_N / n_R for name, errors_N in errors.items()},
            "ece": np.abs(counts_RN @ gaps_NE).sum(axis=1) / n_R,
        }

    return evaluate


def intercept_and_slope(labels_N: Ints, probabilities_NK: Floats, groups_N: Ints | None = None) -> dict[str, Estimate]:
    """Return Cox's recalibration of the log-odds of `scored_events`, with 95 % intervals.

    Args:
        labels_N: [N] classes.
        probabilities_NK: [N, K].
        groups_N: [N] number of each sample's group (patient, site); None takes samples as independent.

    Returns:
        - "intercept": a of logit P(event) = a + logit p; 0 where events are as frequent as predicted, above 0 where
          they are more frequent (calibration in the large);
        - "slope": b of logit P(event) = a + b logit p, with an a of its own; 1 is right, below 1 the probabilities are
          too extreme.
        All None where the data determine none, as with perfect separation, or where predictions of
        0 or 1, which have no log-odds, make the fit diverge.

    Source: Cox, "Two further applications of a model for binary regression", Biometrika 45 (1958); Van Calster et al.,
        "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17 (2019). The intervals are Wald's; with
        groups of the sandwich estimate, with t quantiles of the smaller number of groups per class.
    """
    from scipy.stats import norm, t

    scores_N, happened_N = scored_events(labels_N, probabilities_NK)
    events_N = happened_N == 1.0
    if probabilities_NK.shape[1] == 2:
        logs_N2 = logarithms(probabilities_NK)
        odds_N = logs_N2[:, 1] - logs_N2[:, 0]
    else:
        odds_N = logarithms(scores_N) - logarithms(1.0 - scores_N)
    ones_N = np.ones_like(odds_N)
    quantile, groups_N = norm.ppf(1.0 - TAIL), shared(groups_N)
    if groups_N is not None:
        smaller = min(len(np.unique(groups_N[side])) for side in (events_N, ~events_N))
        quantile = t.ppf(1.0 - TAIL, smaller - 1) if smaller > 1 else np.nan
    fits = {
        "intercept": fit_logistic(ones_N[:, None], events_N, odds_N, groups_N),
        "slope": fit_logistic(np.stack([ones_N, odds_N], axis=1), events_N, None, groups_N) if np.ptp(odds_N) else None,
    }
    estimates: dict[str, Estimate] = {}
    for name, fit in fits.items():
        if fit is None:
            estimates[name] = {"value": None, "low": None, "high": None}
            continue
        value, margin = float(fit.coefficients_P[-1]), float(quantile * np.sqrt(fit.covariance_PP[-1, -1]))
        if abs(value) > _BEYOND_FITTING or margin > 1e4 * _BEYOND_FITTING:
            estimates[name] = {"value": None, "low": None, "high": None}
            continue
        no_interval = not np.isfinite(margin) or margin == 0.0
        low, high = (None, None) if no_interval else (value - margin, value + margin)
        estimates[name] = {"value": value, "low": low, "high": high}
    return estimates


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

    logs_NK = logarithms(probabilities_NK)
    true_N = logs_NK[np.arange(len(labels_N)), labels_N]

    def slope(inverse: float) -> float:
        return float(((softmax(inverse * logs_NK, axis=1) * logs_NK).sum(axis=1) - true_N).mean())

    all_correct = bool((true_N >= logs_NK.max(axis=1)).all())
    if all_correct or slope(0.0) >= 0.0:
        return None
    high = 1.0
    while slope(high) < 0.0:
        high *= 2.0
    return 1.0 / float(brentq(slope, 0.0, high, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps))


def apply_temperature(probabilities_NK: Floats, temperature: float) -> Floats:
    """Return softmax(log p / T): the ranking stays for two classes, the predicted class always."""
    from scipy.special import softmax

    return np.asarray(softmax(logarithms(probabilities_NK) / temperature, axis=1))
