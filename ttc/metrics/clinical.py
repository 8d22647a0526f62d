"""All classification metrics of one set of predictions, in one call.

Shape suffixes: N samples, K classes, R draws, T thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ttc.metrics import calibration, intervals
from ttc.metrics.classification import measured
from ttc.metrics.clinic import calibrators, combined, operating_points
from ttc.metrics.clinic.net_benefit import Benefits, treat_all
from ttc.metrics.clinic.operating_points import Statistics, undefined
from ttc.metrics.clinic.subgroups import group_rows
from ttc.metrics.delong import delong
from ttc.metrics.intervals import Estimate, Floats, Ints
from ttc.metrics.thresholds import choose_thresholds

DECISION_THRESHOLDS = (0.05, 0.1, 0.2)
"""Decision thresholds of the net benefit by default."""


def clinical_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    calibrated: ArrayLike | None = None,
    calibrated_at: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    group_name: str = "groups",
    positive_class: int = 1,
    deploy_prevalence: Sequence[float] = (),
    decision_thresholds: Sequence[float] = DECISION_THRESHOLDS,
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, object]:
    """Evaluate the scores of one split.

    Args:
        labels: [N] integers from 0 to K - 1.
        probabilities: [N, K] raw class probabilities, the scores.
        validation: labels and scores of the validation split, on which thresholds and temperature are chosen; None
            without one.
        calibrated: [N, K] the scores after a calibrator that was fitted on validation; None without one.
        calibrated_at: [K] share of each class at which they hold; None for the shares of the labels.
        groups: [N] group (site, device, patient) of each sample, for the table by group, or None. All intervals are
            then take groups as independent: the bootstrap draws whole groups, DeLong's variance is Obuchowski's,
            exact intervals have the effective number of samples.
        group_name: what a group is, in the plural, for the sentence in "intervals".
        positive_class: the class that the metrics of two classes are about.
        deploy_prevalence: shares of the positive class, in (0, 1), that PPV, NPV, AUPRC and net benefit are also given
            for.
        decision_thresholds: probabilities, in (0, 1), at which the net benefit is given.
        bootstrap: draws of the stratified bootstrap; 0 leaves all intervals out.
        seed: of the draws.

    Returns:
        JSON-safe; an estimate is {"value", "low", "high"} with a 95 % interval, None where not defined.
        - "intervals": "draws", and what they rest on, see `intervals.Basis`;
        - all of `classification_metrics`: decisions at 0.5, or the most probable of K > 2 classes;
        - "brier", "ece" of the scores, and "brier_scaled", "ece_scaled" after temperature scaling: estimates; the
          calibration error has no interval, since the bootstrap's lies above it;
        - "calibration": "before" (the scores) and "after" (the calibrated probabilities) -> "brier", "log_loss",
          "ece", and "intercept", "slope" of `calibration.intercept_and_slope`: estimates;
        - "details": "temperature", "reliability", "reliability_scaled", "reliability_calibrated" (see
          `calibration.Bin`), "calibrated_at" and "groups" (a row each, or None).
        For two classes also:
        - "auroc_delong": estimate with "variance";
        - "sensitivity_at_specificity_90", "_95", "specificity_at_sensitivity_90", "_95": estimates, points of the ROC
          curve of these samples, so properties of the ranking like the AUROC;
        - "operating_points": rule of `thresholds.RULES` -> estimates of `decision_metrics` at the threshold that
          VALIDATION chose;
        - "deployment": prevalence -> "auprc" and rule -> "ppv", "npv": estimates;
        - "net_benefit": "own" (the share in the labels) and every deploy prevalence -> decision threshold -> "model"
          (an estimate) and "treat_all" (a number); treating none has 0;
        - in "details": "thresholds" (rule -> number or None), "confusion" (rule -> tn, fp, fn, tp, or None),
          "decision_curve" (prevalence -> "thresholds", "model", "low", "high", "treat_all": lists; or None).

    Raises:
        ValueError: wrong shapes, labels out of range, or probabilities that do not sum to 1.

    Note: without groups the intervals take samples as independent; several images of one patient make them too
    narrow.
    """
    labels_N, probabilities_NK = _checked(labels, probabilities, "probabilities")
    groups_N, classes = intervals.numbered(groups, len(labels_N)), probabilities_NK.shape[1]
    readings = operating_points.readings(deploy_prevalence) if classes == 2 else {}
    found, drawn = measured(labels_N, probabilities_NK, None, positive_class, groups, bootstrap, seed, readings)
    result: dict[str, object] = {"intervals": {}, **found}
    val_split = None if validation is None else _checked(*validation, "validation probabilities")
    calibrated_NK = None if calibrated is None else _checked(labels_N, calibrated, "calibrated probabilities")[1]
    shares_K = calibrators.shares(labels_N, classes) if calibrated_at is None else tuple(map(float, calibrated_at))
    binary = classes == 2
    if binary and positive_class == 0:
        # From here on the positive class of two is 1.
        labels_N, probabilities_NK, shares_K = 1 - labels_N, probabilities_NK[:, ::-1], shares_K[::-1]
        val_split = None if val_split is None else (1 - val_split[0], val_split[1][:, ::-1])
        calibrated_NK = None if calibrated_NK is None else calibrated_NK[:, ::-1]
    result["intervals"] = {"draws": bootstrap, **intervals.basis(labels_N, classes, groups_N, group_name)}

    statistics, exact, details = _calibration(labels_N, probabilities_NK, val_split, calibrated_NK, groups_N)
    details["calibrated_at"] = None if calibrated_NK is None else list(shares_K)
    threshold = None
    if binary:
        positive_N, scores_N = labels_N == 1, probabilities_NK[:, 1]
        thresholds = choose_thresholds(None if val_split is None else (val_split[0] == 1, val_split[1][:, 1]))
        threshold = thresholds["youden"]
        details["thresholds"] = thresholds
        details["confusion"] = operating_points.confusions(positive_N, scores_N, thresholds)
        result["auroc_delong"] = delong(positive_N, scores_N, groups_N)
        statistics.append(operating_points.decisions(positive_N, scores_N, thresholds, deploy_prevalence))
        statistics.append(operating_points.read(positive_N, scores_N, readings))
        benefits = Benefits.of(positive_N, calibrated_NK, shares_K, deploy_prevalence, decision_thresholds)
        statistics.append(benefits.statistics)
        exact |= operating_points.exact_intervals(positive_N, scores_N, thresholds, groups_N)
    details["groups"] = None if groups is None else group_rows(labels_N, probabilities_NK, groups, threshold)

    estimates = _estimates(statistics, exact, labels_N, groups_N, bootstrap, seed, drawn)
    if binary and bootstrap and 0 < labels_N.sum() < len(labels_N):
        estimates |= _joined(estimates, labels_N, probabilities_NK, calibrated_NK, benefits, details, groups_N)
    details["decision_curve"] = benefits.curves(estimates) if binary else None
    for name, estimate in estimates.items():
        _place(result, name, estimate)
    if binary:
        _place_treat_all(result, labels_N, decision_thresholds)
    return {**result, "details": details}


def _checked(labels: ArrayLike, probabilities: ArrayLike, name: str) -> tuple[Ints, Floats]:
    """Refuse numbers that are not class probabilities, and labels that are not of these classes."""
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
    labels_N: Ints,
    probabilities_NK: Floats,
    validation: tuple[Ints, Floats] | None,
    calibrated_NK: Floats | None,
    groups_N: Ints | None,
) -> tuple[list[Statistics], dict[str, Estimate], dict[str, object]]:
    """Return the statistics of calibration by the bootstrap, those with intervals of their own, and the details."""
    temperature = None if validation is None else calibration.fit_temperature(*validation)
    scaled_NK = None if temperature is None else calibration.apply_temperature(probabilities_NK, temperature)
    details: dict[str, object] = {"temperature": temperature}
    statistics: list[Statistics] = []
    exact: dict[str, Estimate] = {}
    versions = {
        ("{}", "reliability"): probabilities_NK,
        ("{}_scaled", "reliability_scaled"): scaled_NK,
        ("calibration/before/{}", None): probabilities_NK,
        ("calibration/after/{}", "reliability_calibrated"): calibrated_NK,
    }
    for (path, curve), version_NK in versions.items():
        if curve is not None:
            details[curve] = None if version_NK is None else calibration.reliability(labels_N, version_NK)
        measure = None if version_NK is None else calibration.calibration_statistics(labels_N, version_NK)
        statistics.append(partial(_renamed, path, measure))
        missing: Estimate = {"value": None, "low": None, "high": None}
        exact[path.format("ece")] = missing
        if path.startswith("calibration/"):
            fits = {"intercept": missing, "slope": missing}
            if version_NK is not None:
                fits = calibration.intercept_and_slope(labels_N, version_NK, groups_N)
            exact |= {path.format(name): estimate for name, estimate in fits.items()}
    return statistics, exact, details


def _joined(
    estimates: Mapping[str, Estimate], labels_N: Ints, probabilities_N2: Floats, calibrated_N2: Floats | None,
    benefits: Benefits, details: Mapping[str, object], groups_N: Ints | None,
) -> dict[str, Estimate]:  # fmt: skip
    """Return the estimates whose bootstrap intervals are joined with limits that need no draws; for two classes."""
    positive_N, scores_N, thresholds = labels_N == 1, probabilities_N2[:, 1], details["thresholds"]
    assert isinstance(thresholds, Mapping)
    readings = {name: estimate for name, estimate in estimates.items() if "_at_s" in name}
    joined = operating_points.joined_readings(positive_N, scores_N, readings, groups_N)
    limits = combined.decision_limits(positive_N, scores_N, thresholds, groups_N) | benefits.limits(groups_N)
    limits |= _mean_limits(labels_N, probabilities_N2, details["temperature"], calibrated_N2, groups_N)
    return joined | {path: combined.joined(estimates[path], ends) for path, ends in limits.items()}


def _mean_limits(
    labels_N: Ints, probabilities_N2: Floats, temperature: object, calibrated_N2: Floats | None, groups_N: Ints | None
) -> dict[str, combined.Limits | None]:
    """Return limits of Brier score and log loss that need no draws, by path."""
    found: dict[str, combined.Limits | None] = {}
    scaled_N2 = calibration.apply_temperature(probabilities_N2, temperature) if isinstance(temperature, float) else None
    versions = {
        "{}": probabilities_N2, "{}_scaled": scaled_N2, "calibration/before/{}": probabilities_N2,
        "calibration/after/{}": calibrated_N2,
    }  # fmt: skip
    for path, version_N2 in versions.items():
        for name, errors_N in {} if version_N2 is None else calibration.sample_errors(labels_N, version_N2).items():
            if path.startswith("calibration/") or name != "log_loss":
                found[path.format(name)] = combined.mean_limits(errors_N, labels_N == 1, groups_N)
    return found


def _estimates(
    statistics: Sequence[Statistics],
    exact: Mapping[str, Estimate],
    labels_N: Ints,
    groups_N: Ints | None,
    bootstrap: int,
    seed: int,
    drawn: Mapping[str, Floats],
) -> dict[str, Estimate]:
    """Return all estimates by path, in the order of the statistics: intervals of the bootstrap, or of `exact`."""
    named = [(measure, measure(np.ones((1, len(labels_N))))) for measure in statistics]
    points = {name: values for _, measured_there in named for name, values in measured_there.items()}
    left = [measure for measure, measured_there in named if not measured_there.keys() <= drawn.keys()]

    def together(counts_RN: Floats) -> dict[str, Floats]:
        return {name: values for measure in left for name, values in measure(counts_RN).items()}

    draws = intervals.bootstrap(together, labels_N, bootstrap, seed, groups_N) | dict(drawn)
    estimates = {name: intervals.estimate(float(values[0]), draws.get(name)) for name, values in points.items()}
    for name, estimate in exact.items():
        value = estimates[name]["value"] if name in estimates else estimate["value"]
        ends = (estimate["low"], estimate["high"]) if bootstrap and value is not None else (None, None)
        estimates[name] = {"value": value, "low": ends[0], "high": ends[1]}
    return estimates


def _renamed(path: str, measure: Statistics | None, counts_RN: Floats) -> dict[str, Floats]:
    """Return the statistics of one version of the probabilities under their paths in the result."""
    statistics = undefined(calibration.STATISTICS, counts_RN) if measure is None else measure(counts_RN)
    inside = path.startswith("calibration/")
    return {path.format(name): values for name, values in statistics.items() if inside or name != "log_loss"}


def _place_treat_all(result: dict[str, object], labels_N: Ints, decision_thresholds: Sequence[float]) -> None:
    """Put the net benefit of treating all beside that of the model."""
    benefits = result["net_benefit"]
    assert isinstance(benefits, dict)
    for key, entries in benefits.items():
        share = float(labels_N.mean()) if key == "own" else float(key)
        for limit in decision_thresholds:
            entries[f"{limit:g}"]["treat_all"] = treat_all(share, limit)


def _place(result: dict[str, object], path: str, estimate: Estimate) -> None:
    """Put an estimate where its path says."""
    *folders, name = path.split("/")
    inner = result
    for folder in folders:
        inner = inner.setdefault(folder, {})  # type: ignore[assignment]  # folders hold dicts only
    inner[name] = estimate
