"""All classification metrics of one set of predictions, in one call.

Shape suffixes: N samples, K classes, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttc.metrics import calibration, curves, intervals
from ttc.metrics.classification import classification_metrics
from ttc.metrics.delong import delong
from ttc.metrics.intervals import Estimate, Floats, Ints
from ttc.metrics.thresholds import DECISIONS, choose_thresholds, confusion_of, decision_metrics, predictive_values

Statistics = Callable[[Floats], Mapping[str, Floats]]
"""From the counts of draws [R, N] to values [R] by name; a name with slashes is a path in the result."""


def clinical_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    groups: Sequence[str] | None = None,
    positive_class: int = 1,
    deploy_prevalence: Sequence[float] = (),
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, object]:
    """Evaluate the probabilities of one split.

    Args:
        labels: [N] integers from 0 to K - 1.
        probabilities: [N, K] class probabilities.
        validation: labels and probabilities of the validation split, which thresholds and temperature are chosen on;
            None where there is none.
        groups: [N] group (site, device, patient) of each sample, for the table by group, or None. All intervals are
            then those of samples that share a group: the bootstrap draws whole groups, DeLong's variance is
            Obuchowski's.
        positive_class: the class that the metrics of two classes are about.
        deploy_prevalence: shares of the positive class, in (0, 1), that PPV, NPV and AUPRC are also given for.
        bootstrap: draws of the stratified bootstrap; 0 leaves the intervals out.
        seed: of the draws.

    Returns:
        JSON-safe; an estimate is {"value", "low", "high"} with a 95 % interval, None where not defined.
        - "intervals": "draws", and what was taken as independent: "resampled" ("samples" or "groups") and how many
          "units" there are;
        - all of `classification_metrics`: decisions at 0.5, or the most probable of K > 2 classes;
        - "brier", "ece", and "brier_scaled", "ece_scaled" after temperature scaling: estimates;
        - "details": "temperature", "reliability", "reliability_scaled" (see `calibration.Bin`) and "groups" (a row
          each, or None).
        For two classes also:
        - "auroc_delong": estimate with "variance";
        - "sensitivity_at_specificity_90", "_95", "specificity_at_sensitivity_90", "_95": estimates, points of the ROC
          curve of these samples, so properties of the ranking like the AUROC;
        - "operating_points": rule of `thresholds.RULES` -> estimates of `decision_metrics` at the threshold that
          VALIDATION chose;
        - "deployment": prevalence -> "auprc" and rule -> "ppv", "npv": estimates;
        - in "details": "thresholds" (rule -> number or None), "confusion" (rule -> tn, fp, fn, tp, or None).

    Raises:
        ValueError: wrong shapes, labels out of range, or probabilities that are none.

    Note: without groups the intervals take samples as independent; several images of one patient make them too
    narrow. With fewer than about 20 groups they are rough.
    """
    labels_N, probabilities_NK = _checked(labels, probabilities, "probabilities")
    groups_N = intervals.numbered(groups, len(labels_N))
    result: dict[str, object] = {
        "intervals": {
            "draws": bootstrap,
            "resampled": "samples" if groups_N is None else "groups",
            "units": len(labels_N) if groups_N is None else int(groups_N.max()) + 1,
        },
        **classification_metrics(
            labels_N, probabilities_NK, positive_class=positive_class, groups=groups, bootstrap=bootstrap, seed=seed
        ),
    }
    known = None if validation is None else _checked(*validation, "validation probabilities")
    binary = probabilities_NK.shape[1] == 2
    if binary and positive_class == 0:
        # From here on the positive class of two is 1.
        labels_N, probabilities_NK = 1 - labels_N, probabilities_NK[:, ::-1]
        known = None if known is None else (1 - known[0], known[1][:, ::-1])

    statistics, details = _calibration(labels_N, probabilities_NK, known)
    threshold = None
    if binary:
        positive_N, scores_N = labels_N == 1, probabilities_NK[:, 1]
        thresholds = choose_thresholds(None if known is None else (known[0] == 1, known[1][:, 1]))
        threshold = thresholds["youden"]
        details["thresholds"], details["confusion"] = thresholds, _confusions(positive_N, scores_N, thresholds)
        result["auroc_delong"] = delong(positive_N, scores_N, groups_N)
        statistics.append(_decisions(positive_N, scores_N, thresholds, deploy_prevalence))
        statistics.append(_ranking(positive_N, scores_N, deploy_prevalence))
    details["groups"] = None if groups is None else group_rows(labels_N, probabilities_NK, groups, threshold)

    def together(counts_RN: Floats) -> dict[str, Floats]:
        return {name: values for each in statistics for name, values in each(counts_RN).items()}

    draws = intervals.bootstrap(together, labels_N, bootstrap, seed, groups_N)
    for name, values in together(np.ones((1, len(labels_N)))).items():
        _place(result, name, intervals.estimate(float(values[0]), draws.get(name)))
    return {**result, "details": details}


def _checked(labels: ArrayLike, probabilities: ArrayLike, name: str) -> tuple[Ints, Floats]:
    """Refuse what are no class probabilities, or no labels of these classes."""
    labels_N, probabilities_NK = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if probabilities_NK.ndim != 2 or labels_N.shape != probabilities_NK.shape[:1] or not labels_N.size:
        raise ValueError(f"{name} {probabilities_NK.shape} must be [n, classes], n >= 1, for labels {labels_N.shape}")
    if labels_N.dtype.kind not in "iu" or labels_N.min() < 0 or labels_N.max() >= probabilities_NK.shape[1]:
        raise ValueError(f"{name} has {probabilities_NK.shape[1]} classes; labels must be integers from 0 to one less")
    outside = ~((probabilities_NK >= 0.0) & (np.abs(probabilities_NK.sum(axis=1, keepdims=True) - 1.0) < 1e-4))
    if outside.any():
        raise ValueError(f"{name}: {int(outside.any(axis=1).sum())} rows are no probabilities that sum to 1")
    return labels_N, probabilities_NK


def _calibration(
    labels_N: Ints, probabilities_NK: Floats, known: tuple[Ints, Floats] | None
) -> tuple[list[Statistics], dict[str, object]]:
    """Return the statistics of calibration, as the probabilities are and scaled, and the details."""
    temperature = None if known is None else calibration.fit_temperature(*known)
    details: dict[str, object] = {
        "temperature": temperature,
        "reliability": calibration.reliability(labels_N, probabilities_NK),
        "reliability_scaled": None,
    }
    plain, scaled = calibration.calibration_statistics(labels_N, probabilities_NK), None
    if temperature is not None:
        scaled_NK = calibration.apply_temperature(probabilities_NK, temperature)
        details["reliability_scaled"] = calibration.reliability(labels_N, scaled_NK)
        scaled = calibration.calibration_statistics(labels_N, scaled_NK)

    def rescaled(counts_RN: Floats) -> dict[str, Floats]:
        found = _undefined(("brier", "ece"), counts_RN) if scaled is None else scaled(counts_RN)
        return {f"{name}_scaled": values for name, values in found.items()}

    return [plain, rescaled], details


def _confusions(
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


def _decisions(
    positive_N: NDArray[np.bool_],
    scores_N: Floats,
    thresholds: Mapping[str, float | None],
    prevalences: Sequence[float],
) -> Statistics:
    """Return the statistics of the decisions at every threshold, with predictive values at other prevalences."""

    def evaluate(counts_RN: Floats) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for rule, threshold in thresholds.items():
            reached = _reached(positive_N, scores_N, threshold, counts_RN)
            found |= {f"operating_points/{rule}/{name}": values for name, values in reached.items()}
            for share in prevalences:
                found |= {
                    f"deployment/{share:g}/{rule}/{name}": values
                    for name, values in predictive_values(reached, share).items()
                }
        return found

    return evaluate


def _reached(
    positive_N: NDArray[np.bool_], scores_N: Floats, threshold: float | None, counts_RN: Floats
) -> dict[str, Floats]:
    if threshold is None:
        return _undefined(DECISIONS, counts_RN)
    return decision_metrics(confusion_of(positive_N, scores_N, threshold, counts_RN))


def _ranking(positive_N: NDArray[np.bool_], scores_N: Floats, prevalences: Sequence[float]) -> Statistics:
    """Return the statistics that are read off the ROC curve."""
    readings: dict[str, Callable[[curves.Curves], Floats]] = {}
    for share in (90, 95):
        readings[f"sensitivity_at_specificity_{share}"] = partial(curves.sensitivity_at, specificity=share / 100)
        readings[f"specificity_at_sensitivity_{share}"] = partial(curves.specificity_at, sensitivity=share / 100)
    for prevalence in prevalences:
        readings[f"deployment/{prevalence:g}/auprc"] = partial(curves.average_precision, prevalence=prevalence)
    if positive_N.all() or not positive_N.any():
        return partial(_undefined, tuple(readings))
    return curves.ranking_statistics(positive_N, scores_N, readings)


def _undefined(names: Sequence[str], counts_RN: Floats) -> dict[str, Floats]:
    return {name: np.full(len(counts_RN), np.nan) for name in names}


def _place(result: dict[str, object], path: str, estimate: Estimate) -> None:
    """Put an estimate where the path says."""
    *folders, name = path.split("/")
    inner = result
    for folder in folders:
        inner = inner.setdefault(folder, {})  # type: ignore[assignment]  # folders hold dicts only
    inner[name] = estimate


def group_rows(
    labels_N: Ints, probabilities_NK: Floats, groups: Sequence[str], threshold: float | None
) -> list[dict[str, object]]:
    """Return a row per group, the largest group first; intervals of the AUROC only, of samples as independent.

    Args:
        labels_N: [N] classes; of two, 1 is the positive one.
        probabilities_NK: [N, K].
        groups: [N].
        threshold: chosen on validation, for sensitivity and specificity; None leaves them undefined.

    Returns:
        Rows with "group", "n", "accuracy", and for two classes "positives", "auroc" (DeLong), "sensitivity" and
        "specificity".
    """
    names_N, rows = np.asarray(groups), []
    names, sizes = np.unique(names_N, return_counts=True)
    for number in np.argsort(-sizes, kind="stable").tolist():
        inside_N = names_N == names[number]
        labels_G, probabilities_GK = labels_N[inside_N], probabilities_NK[inside_N]
        binary = probabilities_GK.shape[1] == 2
        decisions_G = probabilities_GK[:, 1] >= 0.5 if binary else probabilities_GK.argmax(axis=1)
        row: dict[str, object] = {
            "group": str(names[number]),
            "n": len(labels_G),
            "accuracy": float((decisions_G == labels_G).mean()),
        }
        if binary:
            positive_G, scores_G = labels_G == 1, probabilities_GK[:, 1]
            reached = _reached(positive_G, scores_G, threshold, np.ones((1, len(labels_G))))
            row |= {"positives": int(positive_G.sum()), "auroc": delong(positive_G, scores_G)}
            for name in ("sensitivity", "specificity"):
                row[name] = intervals.estimate(float(reached[name][0]), None)["value"]
        rows.append(row)
    return rows
