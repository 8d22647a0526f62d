"""The folds of one experiment as one test: every sample has a prediction of the model that has not seen it.

Shape suffixes: N samples, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import calibration, curves, intervals
from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic import operating_points
from ttc.metrics.clinic.calibrators import binary, shares, shift
from ttc.metrics.intervals import Floats, Ints


def pooled_metrics(
    positive_N: NDArray[np.bool_],
    scores_N: Floats,
    probabilities_N: Floats | None,
    thresholds: Sequence[Mapping[str, float | None]],
    fold_N: Ints,
    *,
    groups: Sequence[str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, object]:
    """Evaluate the predictions of all folds together.

    Args:
        positive_N: [N] whether a sample is positive.
        scores_N: [N] score of the positive class, in [0, 1], of the model that was tested on the sample.
        probabilities_N: [N] what the calibrator of that model makes of it, at the prevalence of its own fold; None
            where a fold has none.
        thresholds: of each fold, by rule, as its own validation chose them.
        fold_N: [N] number of each sample's fold, from 0 and without gaps; every fold has both classes.
        groups: [N] group of each sample, or None; a group is in one fold.
        bootstrap: draws, 0 leaves all intervals out.
        seed: of the draws.

    Returns:
        In the form of `clinical_metrics`: "n", "class_counts", "intervals"; "auroc" and "auprc" of the calibrated
        probabilities ("ranked_by" says so, or "scores" where there are none); "balanced_accuracy", "accuracy", "f1"
        and "mcc" of the decisions at a score of 0.5; "operating_points" by rule, of the decisions at each fold's own
        threshold; "calibration/after"; and "auroc_mean_of_folds", where scores are compared within a fold only.

    Note: scores of different models have different scales, which calibrators make comparable. A calibrator states
        probabilities at the prevalence of its fold; all are moved to that of all samples, since the difference tells
        something of the labels that no model knows.

    Source: Forman and Scholz, "Apples-to-apples in cross-validation studies", SIGKDD Explorations 12 (2010): a pooled
        AUROC and the mean over folds are two numbers.
    """
    labels_N, groups_N = positive_N.astype(np.int64), intervals.numbered(groups, len(positive_N))
    made_N2 = None if probabilities_N is None else _at_one_prevalence(labels_N, probabilities_N, fold_N)
    report: dict[str, object] = {
        "intervals": {"draws": bootstrap, **intervals.basis(labels_N, 2, groups_N)},
        **classification_metrics(
            labels_N,
            scores_N if made_N2 is None else made_N2[:, 1],
            (scores_N >= 0.5).astype(np.int64),
            groups=groups,
            bootstrap=bootstrap,
            seed=seed,
        ),
        "ranked_by": "scores" if made_N2 is None else "probabilities",
        "auroc_mean_of_folds": _mean_area(positive_N, scores_N, fold_N, groups, bootstrap, seed),
        "operating_points": {},
    }
    points = report["operating_points"]
    assert isinstance(points, dict)
    for rule in thresholds[0]:
        own = [each[rule] for each in thresholds]
        limits_N = np.array([np.nan if limit is None else limit for limit in own])[fold_N]
        points[rule] = _decided(positive_N, scores_N >= limits_N, None in own, rule, groups_N, bootstrap, seed)
    if made_N2 is not None:
        report["calibration"] = {"after": _calibration(labels_N, made_N2, groups_N, bootstrap, seed)}
    return report


def _at_one_prevalence(labels_N: Ints, probabilities_N: Floats, fold_N: Ints) -> Floats:
    """Return [N, 2] probabilities at the prevalence of all samples."""
    everywhere, moved_N2 = binary(float(labels_N.mean())), np.empty((len(labels_N), 2))
    for fold in range(int(fold_N.max()) + 1):
        rows = fold_N == fold
        made_N2 = np.stack([1.0 - probabilities_N[rows], probabilities_N[rows]], axis=1)
        moved_N2[rows] = shift(made_N2, shares(labels_N[rows], 2), everywhere)
    return moved_N2


def _mean_area(
    positive_N: NDArray[np.bool_],
    scores_N: Floats,
    fold_N: Ints,
    groups: Sequence[str] | None,
    bootstrap: int,
    seed: int,
) -> intervals.Estimate:
    """Return the mean of the folds' AUROCs; the bootstrap draws within each fold."""
    values, draws = [], []
    for fold in range(int(fold_N.max()) + 1):
        rows = np.flatnonzero(fold_N == fold)
        measure = curves.ranking_statistics(positive_N[rows], scores_N[rows], {"auroc": curves.area})
        values.append(float(measure(np.ones((1, len(rows))))["auroc"][0]))
        groups_N = None if groups is None else intervals.numbered([groups[row] for row in rows.tolist()], len(rows))
        labels_N = positive_N[rows].astype(np.int64)
        draws.append(intervals.bootstrap(measure, labels_N, bootstrap, seed + fold, groups_N).get("auroc"))
    known = [each for each in draws if each is not None]
    drawn_R = np.mean(known, axis=0) if bootstrap and len(known) == len(draws) else None
    return intervals.estimate(float(np.mean(values)), drawn_R)


def _decided(
    positive_N: NDArray[np.bool_],
    called_N: NDArray[np.bool_],
    missing: bool,
    rule: str,
    groups_N: Ints | None,
    bootstrap: int,
    seed: int,
) -> dict[str, intervals.Estimate]:
    """Return what decisions reach; exact intervals for shares, those of the bootstrap for the rest."""
    limit = {rule: None if missing else 0.5}
    calls_N, path = called_N.astype(np.float64), f"operating_points/{rule}/"
    measure = operating_points.decisions(positive_N, calls_N, limit, ())
    draws = intervals.bootstrap(measure, positive_N.astype(np.int64), bootstrap, seed, groups_N)
    exact = operating_points.exact_intervals(positive_N, calls_N, limit, groups_N) if bootstrap else {}
    found = {}
    for name, values in measure(np.ones((1, len(calls_N)))).items():
        estimate = intervals.estimate(float(values[0]), draws.get(name))
        if name in exact and estimate["value"] is not None:
            estimate = {**exact[name], "value": estimate["value"]}
        found[name.removeprefix(path)] = estimate
    return found


def _calibration(
    labels_N: Ints, made_N2: Floats, groups_N: Ints | None, bootstrap: int, seed: int
) -> dict[str, intervals.Estimate]:
    measure = calibration.calibration_statistics(labels_N, made_N2)
    draws = intervals.bootstrap(measure, labels_N, bootstrap, seed, groups_N)
    # The bootstrap of the calibration error lies above it.
    found = {
        name: intervals.estimate(float(values[0]), None if name == "ece" else draws.get(name))
        for name, values in measure(np.ones((1, len(labels_N)))).items()
    }
    for name, fit in calibration.intercept_and_slope(labels_N, made_N2, groups_N).items():
        found[name] = fit if bootstrap else {"value": fit["value"], "low": None, "high": None}
    return found
