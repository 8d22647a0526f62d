"""Metrics of each group (site, device, patient) of a split, and of each value of another column.

Shape suffixes: N samples, K classes, G samples of a group, S samples of a subgroup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import intervals
from ttc.metrics.calibration import intercept_and_slope
from ttc.metrics.clinic.auroc import auroc
from ttc.metrics.clinic.operating_points import reached
from ttc.metrics.clinic.proportions import proportion
from ttc.metrics.intervals import Estimate, Floats, Ints


def group_rows(
    labels_N: Ints, probabilities_NK: Floats, groups: Sequence[str], threshold: float | None
) -> list[dict[str, object]]:
    """Return a row per group, the largest first; only the AUROC has an interval, which takes samples as independent.

    Args:
        labels_N: [N] classes; of two, 1 is the positive one.
        probabilities_NK: [N, K].
        groups: [N].
        threshold: chosen on validation, for sensitivity and specificity; None leaves them undefined.

    Returns:
        Rows with "group", "n", "accuracy", and for two classes "positives", "auroc", "sensitivity" and
        "specificity".
    """
    groups_N, rows = np.asarray(groups), []
    names, sizes = np.unique(groups_N, return_counts=True)
    for number in np.argsort(-sizes, kind="stable").tolist():
        inside_N = groups_N == names[number]
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
            decided = reached(positive_G, scores_G, threshold, np.ones((1, len(labels_G))))
            row |= {"positives": int(positive_G.sum()), "auroc": auroc(positive_G, scores_G)}
            for name in ("sensitivity", "specificity"):
                row[name] = intervals.estimate(float(decided[name][0]), None)["value"]
        rows.append(row)
    return rows


def subgroup_table(
    positive_N: NDArray[np.bool_],
    scores_N: Floats,
    probabilities_N: Floats | None,
    values: Sequence[str],
    threshold: float | None,
    groups: Sequence[str] | None = None,
) -> dict[str, object]:
    """Measure the samples of a split by the values of a column, such as sex, site or age band.

    Args:
        positive_N: [N] whether a sample is positive.
        scores_N: [N] scores.
        probabilities_N: [N] calibrated probabilities of the positive class, or None.
        values: [N] the value of each sample; empty ones form a subgroup "(empty)".
        threshold: that validation chose, for sensitivity and specificity.
        groups: [N] patient or site of each sample, which intervals then take as independent.

    Returns:
        - "rows": a row per value, the largest first: "value", "n", "positives", "intervals" (what they rest on, see
          `intervals.Basis`), "groups" (their number, or None), the estimates "auroc", "sensitivity", "specificity",
          "intercept" (of the calibration, 0 is ideal), and "mean_probability" and "prevalence" (numbers, or None);
        - "gaps": per estimate the largest difference between two rows, "value", with the names "highest" and "lowest";
          None where fewer than two rows define it.
    """
    values_N = np.asarray([value or "(empty)" for value in values])
    groups_N = intervals.numbered(groups, len(scores_N))
    names, sizes = np.unique(values_N, return_counts=True)
    rows: list[dict[str, object]] = []
    for number in np.argsort(-sizes, kind="stable").tolist():
        inside_N = values_N == names[number]
        positive_S, scores_S = positive_N[inside_N], scores_N[inside_N]
        groups_S = None if groups_N is None else np.unique(groups_N[inside_N], return_inverse=True)[1].reshape(-1)
        probabilities_S = None if probabilities_N is None else probabilities_N[inside_N]
        called_S = None if threshold is None else scores_S >= threshold
        missing: Estimate = {"value": None, "low": None, "high": None}
        fit = {"intercept": missing}
        if probabilities_S is not None and positive_S.any() and not positive_S.all():
            probabilities_S2 = np.stack([1.0 - probabilities_S, probabilities_S], axis=1)
            fit = intercept_and_slope(positive_S.astype(np.int64), probabilities_S2, groups_S)
        rows.append(
            {
                "value": str(names[number]),
                "n": len(scores_S),
                "positives": int(positive_S.sum()),
                "intervals": intervals.basis(positive_S.astype(np.int64), 2, groups_S),
                "groups": None if groups_S is None else int(groups_S.max()) + 1,
                "auroc": auroc(positive_S, scores_S, groups_S),
                "sensitivity": missing if called_S is None else _share(called_S, positive_S, groups_S),
                "specificity": missing if called_S is None else _share(~called_S, ~positive_S, groups_S),
                "intercept": fit["intercept"],
                "mean_probability": None if probabilities_S is None else float(probabilities_S.mean()),
                "prevalence": float(positive_S.mean()),
            }
        )
    return {"rows": rows, "gaps": {name: _gap(rows, name) for name in SUBGROUP_ESTIMATES}}


SUBGROUP_ESTIMATES = ("auroc", "sensitivity", "specificity", "intercept")
"""What is compared between subgroups."""


def _share(hits_N: NDArray[np.bool_], among_N: NDArray[np.bool_], groups_N: Ints | None) -> Estimate:
    return proportion(hits_N[among_N], None if groups_N is None else groups_N[among_N])


def _gap(rows: Sequence[Mapping[str, object]], name: str) -> dict[str, object] | None:
    defined = [(row[name]["value"], row["value"]) for row in rows if row[name]["value"] is not None]  # type: ignore[index]  # estimates
    if len(defined) < 2:
        return None
    ordered = sorted(defined, key=lambda pair: pair[0])
    return {"value": ordered[-1][0] - ordered[0][0], "highest": ordered[-1][1], "lowest": ordered[0][1]}
