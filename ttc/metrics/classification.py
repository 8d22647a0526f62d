"""Classification metrics with intervals. Point values are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttc.metrics import curves, intervals, points
from ttc.metrics.clinic import combined
from ttc.metrics.clinic.auroc import auroc
from ttc.metrics.clinic.proportions import proportion
from ttc.metrics.intervals import Estimate, Floats, Ints


class EstimateOverBaseline(Estimate):
    """An estimate, and the value that a random ranking reaches."""

    baseline: float


class ClassificationMetrics(TypedDict, total=False):
    """Result of `classification_metrics`; auprc and f1 exist for two classes only."""

    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate
    auprc: EstimateOverBaseline
    f1: Estimate
    mcc: Estimate
    n: int
    class_counts: list[int]
    positive_class: int


def classification_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    predictions: ArrayLike | None = None,
    *,
    positive_class: int = 1,
    groups: Sequence[str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> ClassificationMetrics:
    """Evaluate the predictions of one split.

    Args:
        labels: [n] integers: 0 or 1, or 0 to K - 1 for K > 2 classes.
        scores: [n] score of the positive class, higher = more likely, any scale if `predictions` are given; or
            [n, K] one column per class.
        predictions: [n] predicted labels. By default the positive class where its score is at least 0.5,
            or for K > 2 the column with the highest score.
        positive_class: Label of the class that AUROC, AUPRC and F1 are about (two classes only).
        groups: [n] group (patient, site) of each sample, which the bootstrap then draws as a whole, or None.
        bootstrap: Draws of the stratified bootstrap; 0 leaves all intervals out.
        seed: Seed of the draws.

    Returns:
        Each metric with its 95 % interval, all as fractions: exact for the accuracy, Newcombe's for the AUROC of two
        classes (see `auroc.auroc`), percentiles of the bootstrap for the others, which of two classes are joined with
        the limits of `clinic.combined`; the number of samples, the number per class and the positive class. For K > 2,
        AUROC is the mean of one class against the rest, and AUPRC and F1 are left out. With a single class in the
        labels the ranking metrics and MCC are None.

    Raises:
        ValueError: For wrong shapes, NaN in the scores, or labels out of range.

    Note: AUROC and AUPRC use the scores, never thresholded decisions; F1 is that of the positive class.
    """
    return measured(labels, scores, predictions, positive_class, groups, bootstrap, seed, {})[0]


def measured(
    labels: ArrayLike,
    scores: ArrayLike,
    predictions: ArrayLike | None,
    positive_class: int,
    groups: Sequence[str] | None,
    bootstrap: int,
    seed: int,
    readings: Mapping[str, curves.Reading],
) -> tuple[ClassificationMetrics, dict[str, Floats]]:
    """Evaluate as `classification_metrics`; return also the draws of further numbers read off the curves, by name.

    The curves of thousands of draws take most of the time, and so are made once. There are no such draws without a
    bootstrap, for more than two classes, and where the labels lack one.
    """
    labels_N, scores_N = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    classes = 2 if scores_N.ndim == 1 else scores_N.shape[-1]
    _check(labels_N, scores_N, classes, positive_class)
    labels_N = labels_N.astype(np.int64)
    if scores_N.ndim == 2 and classes == 2:
        scores_N = scores_N[:, positive_class]
    if predictions is not None:
        given_N = np.asarray(predictions)
        predictions_N = given_N.astype(np.int64)
        whole = given_N.shape == labels_N.shape and (predictions_N == given_N).all()
        if not whole or predictions_N.min() < 0 or predictions_N.max() >= classes:
            raise ValueError(f"predictions must be {len(labels_N)} labels from 0 to {classes - 1}, like the labels")
    elif classes == 2:
        predictions_N = np.where(scores_N >= 0.5, positive_class, 1 - positive_class)
    else:
        predictions_N = scores_N.argmax(axis=1)
    if classes == 2:
        # From here on the positive class is 1.
        labels_N = (labels_N == positive_class).astype(np.int64)
        predictions_N = (predictions_N == positive_class).astype(np.int64)
        scores_N = np.stack([-scores_N, scores_N], axis=1)

    values = _point_values(labels_N, scores_N, predictions_N)
    groups_N = intervals.numbered(groups, len(labels_N))
    statistics = _statistics(labels_N, scores_N, predictions_N, readings)
    draws = intervals.bootstrap(statistics, labels_N, bootstrap, seed, groups_N)
    estimates = {name: intervals.estimate(value, draws.get(name)) for name, value in values.items()}
    if bootstrap:
        # The values stay scikit-learn's, to the last digit.
        estimates["accuracy"] = {**proportion(predictions_N == labels_N, groups_N), "value": values["accuracy"]}
        if classes == 2:
            estimates["auroc"] = {**auroc(labels_N == 1, scores_N[:, 1], groups_N), "value": values["auroc"]}
            estimates |= _joined(estimates, labels_N == 1, predictions_N == 1, groups_N)
    counts = np.bincount(labels_N, minlength=classes).tolist()
    if classes == 2 and positive_class == 0:
        counts.reverse()
    result: ClassificationMetrics = {
        "accuracy": estimates["accuracy"],
        "balanced_accuracy": estimates["balanced_accuracy"],
        "auroc": estimates["auroc"],
        "mcc": estimates["mcc"],
        "n": len(labels_N),
        "class_counts": counts,
    }
    if classes == 2:
        result["auprc"] = {**estimates["auprc"], "baseline": counts[positive_class] / len(labels_N)}
        result["f1"] = estimates["f1"]
        result["positive_class"] = positive_class
    return result, {name: draws[name] for name in readings if name in draws}


def _joined(
    estimates: Mapping[str, Estimate], positive_N: NDArray[np.bool_], called_N: NDArray[np.bool_], groups_N: Ints | None
) -> dict[str, Estimate]:
    """Join bootstrap intervals of two classes with those that need no draws."""
    positives = int(positive_N.sum())
    area, f1 = estimates["auprc"]["value"], combined.f1_of(positives, len(positive_N) - positives)
    numbers: dict[str, combined.Shares] = {"balanced_accuracy": combined.balanced_accuracy_of, "f1": f1}
    limits = {"auprc": None if area is None else combined.precision_limits(area, positive_N, groups_N)}
    if 0 < positives < len(positive_N):
        limits |= {name: combined.share_limits(each, positive_N, called_N, groups_N) for name, each in numbers.items()}
    return {name: combined.joined(estimates[name], ends) for name, ends in limits.items()}


def _check(labels_N: np.ndarray, scores_N: Floats, classes: int, positive_class: int) -> None:
    """Refuse shapes, labels and scores that do not fit each other."""
    if labels_N.ndim != 1 or len(labels_N) == 0 or scores_N.ndim not in (1, 2) or len(scores_N) != len(labels_N):
        raise ValueError(
            f"labels {labels_N.shape} and scores {scores_N.shape} must be [n] and [n] or [n, classes] with n >= 1"
        )
    if classes < 2:
        raise ValueError("scores has one column; give [n] scores of the positive class or one column per class")
    if not np.isfinite(scores_N).all():
        raise ValueError(f"scores has {int((~np.isfinite(scores_N)).sum())} NaN or infinite values; check the model")
    if labels_N.dtype.kind not in "biu" or labels_N.min() < 0 or labels_N.max() >= classes:
        raise ValueError(
            f"labels must be integers from 0 to {classes - 1}, but hold {np.unique(labels_N)[:5].tolist()}"
        )
    if classes == 2 and positive_class not in (0, 1):
        raise ValueError(f"positive_class is {positive_class}, but the labels are 0 and 1")


def _point_values(labels_N: Ints, scores_NK: Floats, predictions_N: Ints) -> dict[str, float | None]:
    """Compute each metric as scikit-learn does; for two classes the positive class is 1."""
    classes = scores_NK.shape[1]
    values = points.decision_values(points.confusion(labels_N, predictions_N, classes))
    present = len(np.unique(labels_N))
    values["auroc"] = None
    if classes == 2:
        values["auprc"] = None
        if present == 2:
            values["auroc"], values["auprc"] = points.ranking_values(labels_N == 1, scores_NK[:, 1])
    elif present == classes:
        areas = [points.ranking_values(labels_N == label, scores_NK[:, label])[0] for label in range(classes)]
        values["auroc"] = float(np.mean(areas))
    return values


def _statistics(
    labels_N: Ints, scores_NK: Floats, predictions_N: Ints, more: Mapping[str, curves.Reading]
) -> Callable[[Floats], Mapping[str, Floats]]:
    """Return a function from the counts of draws [R, N] to the values of each metric [R]."""
    classes = scores_NK.shape[1]
    ranked = [1] if classes == 2 else list(range(classes))
    complete = len(np.unique(labels_N)) == classes
    readings = {"auroc": curves.area} | ({"auprc": curves.average_precision, **more} if classes == 2 else {})
    rankings = [
        curves.ranking_statistics(labels_N == label, scores_NK[:, label], readings)
        for label in (ranked if complete else ())
    ]

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        confusion = intervals.weighted_confusion(labels_N, predictions_N, counts_RN, classes)
        statistics = {
            "accuracy": intervals.accuracy(confusion),
            "balanced_accuracy": intervals.balanced_accuracy(confusion),
            "mcc": intervals.matthews(confusion),
        }
        if classes == 2:
            statistics["f1"] = intervals.f1(confusion)
        if rankings:
            drawn = [ranking(counts_RN) for ranking in rankings]
            statistics["auroc"] = np.mean([reading["auroc"] for reading in drawn], axis=0)
            if classes == 2:
                statistics |= {name: drawn[0][name] for name in ("auprc", *more)}
        return statistics

    return evaluate
