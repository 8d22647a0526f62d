"""Metrics of each group (site, device, patient) of a split.

Shape suffixes: N samples, K classes, G samples of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttc.metrics import intervals
from ttc.metrics.clinic.auroc import auroc
from ttc.metrics.clinic.operating_points import reached
from ttc.metrics.intervals import Floats, Ints


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
        Rows with "group", "n", "accuracy", and for two classes "positives", "auroc", "sensitivity" and
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
            decided = reached(positive_G, scores_G, threshold, np.ones((1, len(labels_G))))
            row |= {"positives": int(positive_G.sum()), "auroc": auroc(positive_G, scores_G)}
            for name in ("sensitivity", "specificity"):
                row[name] = intervals.estimate(float(decided[name][0]), None)["value"]
        rows.append(row)
    return rows
