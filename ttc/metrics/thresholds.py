"""Decision thresholds: chosen on validation, then applied to samples that had no part in the choice.

Shape suffixes: N samples, T thresholds, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import intervals
from ttc.metrics.curves import ranking_curves
from ttc.metrics.intervals import Floats

RULES = {
    "half": "0.5, which needs no validation",
    "youden": "sensitivity + specificity is largest",
    "f1": "F1 is largest",
    "sensitivity_90": "highest threshold with a sensitivity of at least 90 %",
    "sensitivity_95": "highest threshold with a sensitivity of at least 95 %",
    "specificity_90": "lowest threshold with a specificity of at least 90 %",
    "specificity_95": "lowest threshold with a specificity of at least 95 %",
}
"""Rule -> the threshold that validation gives it; a sample is called positive if its score reaches that threshold."""

DECISIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "f1", "mcc")
"""What `decision_metrics` returns."""


def choose_thresholds(validation: tuple[NDArray[np.bool_], Floats] | None) -> dict[str, float | None]:
    """Choose a threshold by every rule.

    A threshold lies half-way between two neighbouring validation scores: the scores themselves would favour the side
    from which the curve is read. Of equally good thresholds the highest is taken: it calls the fewest samples positive.

    Args:
        validation: [N] whether a sample is positive, and [N] scores; None where there is no validation split.

    Returns:
        Threshold by rule; None but for "half" where validation has one class only or equal scores.
    """
    thresholds: dict[str, float | None] = {**dict.fromkeys(RULES), "half": 0.5}
    if validation is None:
        return thresholds
    positive_N, scores_N = validation
    distinct_T = np.unique(scores_N)[::-1]
    if positive_N.all() or not positive_N.any() or len(distinct_T) < 2:
        return thresholds
    curves = ranking_curves(positive_N, scores_N)(np.ones((1, len(scores_N))))
    # The first point calls no sample positive.
    sensitivity_T = np.concatenate([[0.0], curves.sensitivity_RT[0]])
    specificity_T = np.concatenate([[1.0], curves.specificity_RT[0]])
    tp_T = sensitivity_T * positive_N.sum()
    called_T = tp_T + (1.0 - specificity_T) * (~positive_N).sum()
    f1_T = 2.0 * tp_T / (called_T + positive_N.sum())
    points = {"youden": np.argmax(np.round(sensitivity_T + specificity_T, 12)), "f1": np.argmax(np.round(f1_T, 12))}
    for share in (90, 95):
        points[f"sensitivity_{share}"] = np.flatnonzero(sensitivity_T >= share / 100)[0]
        points[f"specificity_{share}"] = np.flatnonzero(specificity_T >= share / 100)[-1]
    thresholds_T = _halfway(distinct_T)
    return thresholds | {rule: float(thresholds_T[point]) for rule, point in points.items()}


def _halfway(distinct_T: Floats) -> Floats:
    """Return thresholds above the highest score, between neighbours, and at the lowest score."""
    middle_T = 0.5 * (distinct_T[:-1] + distinct_T[1:])
    # Between neighbouring floating-point numbers there is nothing.
    middle_T = np.where(middle_T > distinct_T[1:], middle_T, distinct_T[:-1])
    return np.concatenate([[np.nextafter(distinct_T[0], np.inf)], middle_T, distinct_T[-1:]])


def confusion_of(positive_N: NDArray[np.bool_], scores_N: Floats, threshold: float, counts_RN: Floats) -> Floats:
    """Return [R, 2, 2] the counts of true class (rows) and decision (columns) of each draw."""
    decisions_N = (scores_N >= threshold).astype(np.int64)
    return intervals.weighted_confusion(positive_N.astype(np.int64), decisions_N, counts_RN, 2)


def decision_metrics(confusion_R22: Floats) -> dict[str, Floats]:
    """Return the metrics of the decisions at one threshold, [R] each; NaN where one is not defined."""
    totals_R2, called_R2 = confusion_R22.sum(axis=2), confusion_R22.sum(axis=1)
    correct_R2 = np.diagonal(confusion_R22, axis1=1, axis2=2)
    recall_R2, precision_R2 = (_share(correct_R2, total) for total in (totals_R2, called_R2))
    return {
        "sensitivity": recall_R2[:, 1],
        "specificity": recall_R2[:, 0],
        "ppv": precision_R2[:, 1],
        "npv": precision_R2[:, 0],
        "accuracy": intervals.accuracy(confusion_R22),
        "balanced_accuracy": intervals.balanced_accuracy(confusion_R22),
        "f1": intervals.f1(confusion_R22),
        "mcc": intervals.matthews(confusion_R22),
    }


def predictive_values(decisions: Mapping[str, Floats], prevalence: float) -> dict[str, Floats]:
    """Return PPV and NPV where the positive class has another share, by Bayes' rule; NaN where not defined.

    Args:
        decisions: "sensitivity" and "specificity" [R].
        prevalence: share of the positive class where the model is used, in (0, 1).
    """
    sensitivity_R, specificity_R = decisions["sensitivity"], decisions["specificity"]
    tp_R, fn_R = prevalence * sensitivity_R, prevalence * (1.0 - sensitivity_R)
    tn_R, fp_R = (1.0 - prevalence) * specificity_R, (1.0 - prevalence) * (1.0 - specificity_R)
    return {"ppv": _share(tp_R, tp_R + fp_R), "npv": _share(tn_R, tn_R + fn_R)}


def _share(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.full_like(part, np.nan), where=total > 0)
