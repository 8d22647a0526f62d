"""Point values of classification metrics: scikit-learn's, to the last digit, without its checks of every argument.

The checks and conversions take twenty times as long as the numbers of ten thousand samples.

Shape suffixes: N samples, K classes, T thresholds (distinct scores, highest first).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.intervals import Floats, Ints


def confusion(labels_N: Ints, predictions_N: Ints, classes: int) -> Ints:
    """Return [K, K] the number of samples of each true class (rows) that got each prediction (columns)."""
    counts = np.bincount(labels_N * classes + predictions_N, minlength=classes * classes)
    return np.asarray(counts, np.int64).reshape(classes, classes)


def decision_values(confusion_KK: Ints) -> dict[str, float | None]:
    """Return accuracy, balanced accuracy (over the classes with samples), MCC and, for two classes, F1 of class 1.

    MCC is None with samples of one class only; F1 is 0 where class 1 is neither present nor predicted.
    """
    true_K, called_K = confusion_KK.sum(axis=1, dtype=np.float64), confusion_KK.sum(axis=0, dtype=np.float64)
    hits_K, present_K = np.diagonal(confusion_KK).astype(np.float64), true_K > 0
    total, correct = float(true_K.sum()), float(hits_K.sum())
    values: dict[str, float | None] = {
        "accuracy": correct / total,
        "balanced_accuracy": float((hits_K[present_K] / true_K[present_K]).mean()),
        "mcc": None,
    }
    if present_K.sum() > 1:
        spread = (total**2 - float(called_K @ called_K)) * (total**2 - float(true_K @ true_K))
        covariance = correct * total - float(true_K @ called_K)
        values["mcc"] = float(covariance / np.sqrt(spread)) if spread else 0.0
    if len(confusion_KK) == 2:
        either = float(true_K[1] + called_K[1])
        values["f1"] = 2.0 * float(hits_K[1]) / either if either else 0.0
    return values


def ranking_values(positive_N: NDArray[np.bool_], scores_N: Floats) -> tuple[float, float]:
    """Return the areas under the ROC curve and, as average precision, under the precision-recall curve.

    Args:
        positive_N: [N] whether a sample is positive; both kinds occur.
        scores_N: [N] finite scores, higher = more likely positive.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    last_T = np.flatnonzero(np.diff(scores_N[order_N], append=np.nan))
    tp_T = positive_N[order_N].cumsum(dtype=np.float64)[last_T]
    fp_T = 1.0 + last_T - tp_T
    precision_T, recall_T = tp_T / (tp_T + fp_T), tp_T / tp_T[-1]
    # From the lowest score on and between corners of the curve, as there: sums round in the order of their terms.
    gained_T = np.diff(np.append(recall_T[::-1], 0.0))
    precision = max(0.0, -float(np.sum(gained_T * precision_T[::-1])))
    corner_T = np.ones(len(tp_T), np.bool_)
    corner_T[1:-1] = (np.diff(fp_T, 2) != 0) | (np.diff(tp_T, 2) != 0)
    tpr, fpr = (np.append(0.0, count_T[corner_T]) / count_T[-1] for count_T in (tp_T, fp_T))
    return float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2.0).sum()), precision
