"""Stratified bootstrap intervals of classification metrics, one matrix operation for many draws.

A draw is held as the number of times that it picks each sample: every metric is then a weighted one.

Shape suffixes: R draws, N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK_BYTES = 32 * 2**20


def bootstrap_counts(labels_N: Ints, draws: int, seed: int) -> Iterator[Floats]:
    """Yield how often each draw picks each sample, resampled with replacement within each class.

    Args:
        labels_N: [N] class numbers; each class keeps its number of samples in every draw.
        draws: Number of draws, >= 1.
        seed: Seed of the draws.

    Yields:
        [R, N] counts, in chunks of a few MiB; the R of all chunks sum to `draws`.
    """
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels_N == label) for label in np.unique(labels_N)]
    chunk = max(1, _CHUNK_BYTES // (8 * len(labels_N)))
    for first in range(0, draws, chunk):
        size = min(chunk, draws - first)
        counts_RN = np.zeros((size, len(labels_N)))
        for group in groups:
            picks = generator.integers(len(group), size=(size, len(group)))
            flat = (picks + len(group) * np.arange(size)[:, None]).ravel()
            counts_RN[:, group] = np.bincount(flat, minlength=size * len(group)).reshape(size, -1)
        yield counts_RN


def interval(values_R: Floats) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the draws."""
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)


def weighted_confusion(labels_N: Ints, predictions_N: Ints, counts_RN: Floats, classes: int) -> Floats:
    """Return [R, K, K] the number of samples of each true class (rows) that got each prediction (columns)."""
    cells_N = labels_N * classes + predictions_N
    one_hot = np.zeros((len(labels_N), classes * classes))
    one_hot[np.arange(len(labels_N)), cells_N] = 1.0
    return (counts_RN @ one_hot).reshape(-1, classes, classes)


def accuracy(confusion_RKK: Floats) -> Floats:
    """Return the share of correct predictions of each draw."""
    shares_R: Floats = np.trace(confusion_RKK, axis1=1, axis2=2) / confusion_RKK.sum(axis=(1, 2))
    return shares_R


def balanced_accuracy(confusion_RKK: Floats) -> Floats:
    """Return the mean recall of the classes that have samples."""
    totals_RK = confusion_RKK.sum(axis=2)
    present_K = totals_RK[0] > 0  # the same in each draw, since classes keep their size
    recall_RK: Floats = np.diagonal(confusion_RKK, axis1=1, axis2=2)[:, present_K] / totals_RK[:, present_K]
    return np.asarray(recall_RK.mean(axis=1))


def f1(confusion_R22: Floats) -> Floats:
    """Return F1 of class 1; 0 when it is neither present nor predicted."""
    hits = confusion_R22[:, 1, 1]
    total = 2.0 * hits + confusion_R22[:, 0, 1] + confusion_R22[:, 1, 0]
    return np.divide(2.0 * hits, total, out=np.zeros_like(hits), where=total > 0)


def matthews(confusion_RKK: Floats) -> Floats:
    """Return Matthews' correlation coefficient; 0 when only one class is present or predicted."""
    true_RK, predicted_RK = confusion_RKK.sum(axis=2), confusion_RKK.sum(axis=1)
    correct_R, total_R = np.trace(confusion_RKK, axis1=1, axis2=2), confusion_RKK.sum(axis=(1, 2))
    covariance_R = correct_R * total_R - (true_RK * predicted_RK).sum(axis=1)
    spread_R = (total_R**2 - (predicted_RK**2).sum(axis=1)) * (total_R**2 - (true_RK**2).sum(axis=1))
    defined_R = spread_R > 0
    quotient_R = np.divide(covariance_R, np.sqrt(spread_R), out=np.zeros(len(confusion_RKK)), where=defined_R)
    return np.asarray(quotient_R)


def ranking_curves(positive_N: NDArray[np.bool_], scores_N: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Sort the samples by score once and return a function from counts [R, N] to AUROC [R] and average precision [R].

    Tied scores share one threshold. Each draw must pick at least one positive and one negative sample.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(scores_N[order_N], prepend=np.inf))
    positive_sorted_N = positive_N[order_N].astype(np.float64)

    def evaluate(counts_RN: Floats) -> tuple[Floats, Floats]:
        sorted_RN = counts_RN[:, order_N]
        hits_RT = np.add.reduceat(sorted_RN * positive_sorted_N, first_of_tie, axis=1)
        false_RT = np.add.reduceat(sorted_RN, first_of_tie, axis=1) - hits_RT
        found_RT, alarms_RT = hits_RT.cumsum(axis=1), false_RT.cumsum(axis=1)
        positives_R, negatives_R = found_RT[:, -1], alarms_RT[:, -1]
        area_R = (false_RT * (found_RT - 0.5 * hits_RT)).sum(axis=1) / (positives_R * negatives_R)
        picked_RT = found_RT + alarms_RT
        precision_RT = np.divide(found_RT, picked_RT, out=np.zeros_like(found_RT), where=picked_RT > 0)
        return area_R, (hits_RT * precision_RT).sum(axis=1) / positives_R

    return evaluate
