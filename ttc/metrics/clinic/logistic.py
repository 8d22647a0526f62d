"""Logistic regression of few columns by maximum likelihood, without a penalty, with its standard errors.

scikit-learn's has no standard errors, no offset and, by default, a penalty.

Shape suffixes: N samples, P columns, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.intervals import Floats, Ints

_STEPS = 100
_SMALLEST = 1e-300
"""Stands for a probability that was rounded to zero, whose logarithm would be infinite."""


def logarithms(probabilities: Floats) -> Floats:
    """Return the natural logarithms of probabilities, of any shape; finite for 0 as well."""
    return np.log(np.maximum(probabilities, _SMALLEST))


@dataclass(frozen=True)
class LogisticFit:
    """Where the likelihood is largest.

    Attributes:
        coefficients_P: [P].
        covariance_PP: [P, P]; with groups the sandwich estimate over them.
    """

    coefficients_P: Floats
    covariance_PP: Floats


def fit_logistic(
    columns_NP: Floats, events_N: NDArray[np.bool_], offsets_N: Floats | None = None, groups_N: Ints | None = None
) -> LogisticFit | None:
    """Fit P(event) = 1 / (1 + exp(-(columns @ coefficients + offset))) by Newton's method with halved steps.

    Args:
        columns_NP: [N, P], a constant among them if an intercept is wanted.
        events_N: [N] whether the event has happened.
        offsets_N: [N] log-odds with the coefficient 1; None for 0.
        groups_N: [N] number of each sample's group, for the covariance; None takes samples as independent.

    Returns:
        None where the likelihood has no largest value: no event, no other sample, or the columns separate them.

    Source: McCullagh and Nelder, "Generalized linear models", 1989, section 2.5; the sandwich of Liang and Zeger,
        "Longitudinal data analysis using generalized linear models", Biometrika 73 (1986), times G / (G - 1).
    """
    from scipy.special import expit, log_expit

    if events_N.all() or not events_N.any():
        return None
    offsets_N = np.zeros(len(events_N)) if offsets_N is None else offsets_N
    # Columns of one size keep the steps well conditioned.
    scale_P = np.maximum(np.abs(columns_NP).max(axis=0), 1e-300)
    scaled_NP, signs_N = columns_NP / scale_P, np.where(events_N, 1.0, -1.0)

    def likelihood(guess_P: Floats) -> float:
        return float(log_expit(signs_N * (scaled_NP @ guess_P + offsets_N)).sum())

    guess_P = np.zeros(columns_NP.shape[1])
    reached = likelihood(guess_P)
    for _ in range(_STEPS):
        chances_N = expit(scaled_NP @ guess_P + offsets_N)
        information_PP = (scaled_NP * (chances_N * (1.0 - chances_N))[:, None]).T @ scaled_NP
        score_P = scaled_NP.T @ (events_N - chances_N)
        if np.linalg.cond(information_PP) > 1e13:
            return None
        step_P = np.linalg.solve(information_PP, score_P)
        if float(score_P @ step_P) < 1e-12 * len(events_N):
            guess_P = guess_P + step_P  # so near, a whole step leaves rounding alone
            break
        factor = 1.0
        while (better := likelihood(guess_P + factor * step_P)) < reached and factor > 1e-10:
            factor /= 2.0
        if factor <= 1e-10:  # nothing is left but rounding
            break
        guess_P, reached = guess_P + factor * step_P, better
    else:
        return None
    if reached > -1e-6:  # every sample is certain: separated
        return None
    covariance_PP = np.linalg.inv(information_PP)
    if groups_N is not None:
        residuals_NP = scaled_NP * (events_N - chances_N)[:, None]
        numbers_N = np.unique(groups_N, return_inverse=True)[1].reshape(-1)
        sums_GP = np.stack([np.bincount(numbers_N, column) for column in residuals_NP.T], axis=1)
        groups = len(sums_GP)
        if groups < 2:
            return LogisticFit(guess_P / scale_P, np.full_like(covariance_PP, np.nan))
        covariance_PP = covariance_PP @ (sums_GP.T @ sums_GP) @ covariance_PP * (groups / (groups - 1))
    return LogisticFit(guess_P / scale_P, covariance_PP / np.outer(scale_P, scale_P))
