"""Metrics of decisions: at the thresholds that validation chose, and at points of the ROC curve.

Shape suffixes: N samples, R draws, T thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import curves
from ttc.metrics.clinic.proportions import proportion
from ttc.metrics.intervals import Estimate, Floats, Ints
from ttc.metrics.thresholds import DECISIONS, confusion_of, decision_metrics, predictive_values

Statistics = Callable[[Floats], Mapping[str, Floats]]
"""From the counts of draws [R, N] to values [R] by name; a name with slashes is a path in the result."""


def confusions(
    positive_N: NDArray[np.bool_], scores_N: Floats, thresholds: Mapping[str, float | None]
) -> dict[str, dict[str, int] | None]:
    """Return the confusion matrix at every threshold that exists."""
    out: dict[str, dict[str, int] | None] = {}
    for rule, threshold in thresholds.items():
        cells = (
            None if threshold is None else confusion_of(positive_N, scores_N, threshold, np.ones((1, len(scores_N))))
        )
        out[rule] = None if cells is None else dict(zip(("tn", "fp", "fn", "tp"), map(int, cells.flat), strict=True))
    return out


def decisions(
    positive_N: NDArray[np.bool_],
    scores_N: Floats,
    thresholds: Mapping[str, float | None],
    prevalences: Sequence[float],
) -> Statistics:
    """Return the statistics of the decisions at every threshold, with predictive values at other prevalences."""
    called_NT = scores_N[:, None] >= np.array([limit for limit in thresholds.values() if limit is not None])
    # One product for all counts, which are whole numbers and so the same in any order of summation.
    columns = [called_NT & side_N[:, None] for side_N in (positive_N, ~positive_N)]
    columns_NX = np.concatenate([*columns, positive_N[:, None], ~positive_N[:, None]], axis=1).astype(np.float64)

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        statistics: dict[str, Floats] = {}
        *called_XR, positives_R, negatives_R = (counts_RN @ columns_NX).T
        called = zip(called_XR[: len(called_XR) // 2], called_XR[len(called_XR) // 2 :], strict=True)
        for rule, threshold in thresholds.items():
            if threshold is None:
                at_threshold = undefined(DECISIONS, counts_RN)
            else:
                tp_R, fp_R = next(called)
                cells = ((negatives_R - fp_R, fp_R), (positives_R - tp_R, tp_R))
                at_threshold = decision_metrics(np.stack([np.stack(row, axis=1) for row in cells], axis=1))
            statistics |= {f"operating_points/{rule}/{name}": values for name, values in at_threshold.items()}
            for share in prevalences:
                statistics |= {
                    f"deployment/{share:g}/{rule}/{name}": values
                    for name, values in predictive_values(at_threshold, share).items()
                }
        return statistics

    return evaluate


def reached(
    positive_N: NDArray[np.bool_], scores_N: Floats, threshold: float | None, counts_RN: Floats
) -> dict[str, Floats]:
    """Return the metrics of the decisions at a threshold, [R] by name."""
    if threshold is None:
        return undefined(DECISIONS, counts_RN)
    return decision_metrics(confusion_of(positive_N, scores_N, threshold, counts_RN))


def readings(prevalences: Sequence[float]) -> dict[str, curves.Reading]:
    """Return what is read off the ROC curve, by path."""
    points: dict[str, curves.Reading] = {}
    for share in (90, 95):
        points[f"sensitivity_at_specificity_{share}"] = partial(curves.sensitivity_at, specificity=share / 100)
        points[f"specificity_at_sensitivity_{share}"] = partial(curves.specificity_at, sensitivity=share / 100)
    for prevalence in prevalences:
        points[f"deployment/{prevalence:g}/auprc"] = partial(curves.average_precision, prevalence=prevalence)
    return points


def read(positive_N: NDArray[np.bool_], scores_N: Floats, points: Mapping[str, curves.Reading]) -> Statistics:
    """Return the statistics of readings; not defined where the samples are of one class."""
    if positive_N.all() or not positive_N.any():
        return partial(undefined, tuple(points))
    return curves.ranking_statistics(positive_N, scores_N, points)


def undefined(names: Sequence[str], counts_RN: Floats) -> dict[str, Floats]:
    """Return NaN [R] under every name."""
    return {name: np.full(len(counts_RN), np.nan) for name in names}


def exact_intervals(
    positive_N: NDArray[np.bool_], scores_N: Floats, thresholds: Mapping[str, float | None], groups_N: Ints | None
) -> dict[str, Estimate]:
    """Return sensitivity, specificity, PPV, NPV and accuracy at every threshold, by path, with exact intervals."""
    estimates: dict[str, Estimate] = {}
    for rule, threshold in thresholds.items():
        if threshold is None:
            continue
        called_N = scores_N >= threshold
        sides = {
            "sensitivity": (positive_N, called_N),
            "specificity": (~positive_N, ~called_N),
            "ppv": (called_N, positive_N),
            "npv": (~called_N, ~positive_N),
            "accuracy": (np.ones_like(called_N), called_N == positive_N),
        }
        for name, (among_N, hits_N) in sides.items():
            groups = None if groups_N is None else groups_N[among_N]
            estimates[f"operating_points/{rule}/{name}"] = proportion(hits_N[among_N], groups)
    return estimates


def joined_readings(
    positive_N: NDArray[np.bool_], scores_N: Floats, estimates: Mapping[str, Estimate], groups_N: Ints | None
) -> dict[str, Estimate]:
    """Join the bootstrap intervals of points of the ROC curve with the exact ones of the same shares.

    The bootstrap allows for a threshold that is itself uncertain, but takes a few samples without an error as proof
    that there are none; with the exact interval it is the other way round.

    Args:
        positive_N: [N] whether a sample is positive; both kinds occur.
        scores_N: [N] scores.
        estimates: "sensitivity_at_specificity_90", ... with the intervals of the bootstrap.
        groups_N: [N] number of each sample's group, or None.
    """
    curve = curves.ranking_curves(positive_N, scores_N)(np.ones((1, len(scores_N))))
    distinct_T = np.unique(scores_N)[::-1]
    joined: dict[str, Estimate] = {}
    for name, estimate in estimates.items():
        if estimate["value"] is None:
            continue
        wants_sensitivity = name.startswith("sensitivity_at")
        fixed_T, read_T = (curve.specificity_RT[0], curve.sensitivity_RT[0])[:: 1 if wants_sensitivity else -1]
        allowed_T = np.where(fixed_T >= float(name[-2:]) / 100.0, read_T, -1.0)
        # Without such a point no sample is called positive.
        threshold = distinct_T[allowed_T.argmax()] if allowed_T.max() >= 0.0 else np.inf
        side_N = positive_N if wants_sensitivity else ~positive_N
        right_N = (scores_N >= threshold) == positive_N if allowed_T.max() >= 0.0 else np.zeros_like(positive_N)
        exact = proportion(right_N[side_N], None if groups_N is None else groups_N[side_N])
        if exact["low"] is None or exact["high"] is None:
            continue
        lows, highs = ([limit for limit in ends if limit is not None] for ends in zip(
            (estimate["low"], estimate["high"]), (exact["low"], exact["high"]), strict=True))  # fmt: skip
        joined[name] = {"value": estimate["value"], "low": min(lows), "high": max(highs)}
    return joined
