"""ROC and precision-recall curves of many bootstrap draws at once, and the numbers read off them.

Shape suffixes: R draws, N samples, T thresholds (distinct scores, highest first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.intervals import Floats, Ints

_BLOCK_BYTES = 2**20
"""Size of an array of a block of draws; a dozen of them are in use at a time."""


@dataclass(frozen=True)
class Curves:
    """The points of the ROC curves: point t calls the samples that score at least the t-th threshold positive.

    Attributes:
        tp_RT: true positives, positive samples that are called positive.
        fp_RT: false positives, negative samples that are called positive.
    """

    tp_RT: Floats
    fp_RT: Floats

    @cached_property
    def sensitivity_RT(self) -> Floats:
        """The share of the positive samples that is called positive."""
        return np.asarray(self.tp_RT / self.tp_RT[:, -1:])

    @cached_property
    def specificity_RT(self) -> Floats:
        """The share of the negative samples that is called negative."""
        negatives_R1 = self.fp_RT[:, -1:]
        # Not 1 - false positives: 9 of 10 must be exactly 0.9, since it is compared with such numbers.
        return np.asarray((negatives_R1 - self.fp_RT) / negatives_R1)


def ranking_curves(positive_N: NDArray[np.bool_], scores_N: Floats) -> Callable[[Floats], Curves]:
    """Sort the samples by score once and return a function from counts [R, N] to curves.

    Tied scores share one threshold. Each draw must pick at least one positive and one negative sample.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores_N[order_N], append=-np.inf))
    tied = len(last_of_tie) < len(scores_N)
    positive_sorted_N = positive_N[order_N].astype(np.float64)

    def evaluate(counts_RN: Floats) -> Curves:
        called_RN = counts_RN.take(order_N, axis=1)
        tp_RN = called_RN * positive_sorted_N
        for cumulative_RN in (tp_RN, called_RN):
            cumulative_RN.cumsum(axis=1, out=cumulative_RN)
        fp_RN = np.subtract(called_RN, tp_RN, out=called_RN)
        if not tied:
            return Curves(tp_RN, fp_RN)
        return Curves(*(cumulative_RN.take(last_of_tie, axis=1) for cumulative_RN in (tp_RN, fp_RN)))

    return evaluate


Reading = Callable[[Curves], Floats]
"""From curves to a value per draw."""


def ranking_statistics(
    positive_N: NDArray[np.bool_], scores_N: Floats, readings: Mapping[str, Reading]
) -> Callable[[Floats], dict[str, Floats]]:
    """Return a function from counts [R, N] to the numbers read off the curves of the draws, [R] by name.

    The curves are made for a few draws at a time, which stay in the processor's cache.

    Args:
        positive_N: [N] whether a sample is positive; both kinds occur.
        scores_N: [N] scores.
        readings: from curves to a value per draw, by name.
    """
    ranking = ranking_curves(positive_N, scores_N)
    size = max(1, _BLOCK_BYTES // (8 * len(scores_N)))

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        values = {name: np.empty(len(counts_RN)) for name in readings}
        for first in range(0, len(counts_RN), size):
            drawn = ranking(counts_RN[first : first + size])
            for name, read in readings.items():
                values[name][first : first + size] = read(drawn)
        return values

    return evaluate


def area(curves: Curves) -> Floats:
    """Return the area under the ROC curve of each draw; a tie counts one half."""
    tp_RT, fp_RT = curves.tp_RT, curves.fp_RT
    # Twice the area of the trapezoids in whole numbers, which no order of summation rounds.
    doubled_R = np.einsum("rt,rt->r", fp_RT[:, 1:] - fp_RT[:, :-1], tp_RT[:, 1:] + tp_RT[:, :-1])
    doubled_R += fp_RT[:, 0] * tp_RT[:, 0]
    return np.asarray(0.5 * doubled_R / (tp_RT[:, -1] * fp_RT[:, -1]))


def average_precision(curves: Curves, prevalence: float | None = None) -> Floats:
    """Return the average precision of each draw, the sum over thresholds of gained recall times precision.

    Args:
        curves: of the draws.
        prevalence: share of the positive class where the model is used, in (0, 1): positive and negative samples are
            weighted to have it. None takes the samples as they are.
    """
    positives_R1, negatives_R1 = curves.tp_RT[:, -1:], curves.fp_RT[:, -1:]
    tp_RT, fp_RT = curves.tp_RT, curves.fp_RT
    if prevalence is not None:
        tp_RT = tp_RT / positives_R1 * prevalence
        fp_RT = fp_RT / negatives_R1 * (1.0 - prevalence)
    called_RT = tp_RT + fp_RT
    called_RT[called_RT == 0.0] = 1.0  # where nothing is called, nothing is gained
    terms_RT = np.divide(tp_RT, called_RT, out=called_RT)
    terms_RT[:, 1:] *= (curves.tp_RT[:, 1:] - curves.tp_RT[:, :-1]) / positives_R1
    terms_RT[:, 0] *= curves.tp_RT[:, 0] / positives_R1[:, 0]
    return np.asarray(terms_RT.sum(axis=1))


def sensitivity_at(curves: Curves, specificity: float) -> Floats:
    """Return the highest sensitivity among the points with at least this specificity; 0 where there is no such point.

    Points only, without interpolation: a value that a threshold reaches.
    """
    # The specificity falls and the sensitivity rises from point to point: it is the last of the points.
    enough_R = np.count_nonzero(curves.specificity_RT >= specificity, axis=1)
    return _read(curves.sensitivity_RT, enough_R - 1, enough_R > 0)


def specificity_at(curves: Curves, sensitivity: float) -> Floats:
    """Return the highest specificity among the points with at least this sensitivity, see `sensitivity_at`."""
    enough_R = np.count_nonzero(curves.sensitivity_RT >= sensitivity, axis=1)
    return _read(curves.specificity_RT, -enough_R, enough_R > 0)


def _read(values_RT: Floats, points_R: Ints, exists_R: NDArray[np.bool_]) -> Floats:
    return np.where(exists_R, values_RT[np.arange(len(values_RT)), points_R], 0.0)
