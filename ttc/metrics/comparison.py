"""Two classifiers on the same samples: tests of their difference.

Shape suffixes: N samples, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import curves, intervals
from ttc.metrics.delong import delong_test
from ttc.metrics.intervals import Floats


def compare_scores(
    positive_N: NDArray[np.bool_],
    scores: Sequence[Floats],
    decisions: Sequence[NDArray[np.bool_]],
    *,
    groups: Sequence[str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, object]:
    """Test the difference of two classifiers, first minus second, on the same draws of the stratified bootstrap.

    Args:
        positive_N: [N] whether a sample is positive; both classes occur.
        scores: [N] scores of the first and of the second classifier.
        decisions: [N] whether each calls a sample positive.
        groups: [N] group (patient, site) of each sample; both tests then take groups as independent, not samples.
        bootstrap: number of draws, >= 1.
        seed: of the draws.

    Returns:
        "n", "positives", "negatives", "groups" (their number, or None); "auroc" and "balanced_accuracy", each with
        "first", "second", "difference" and "bootstrap" ("low", "high", "p"; None with a single group), the AUROC also
        with "delong", see `delong_test`.

    Note: the bootstrap's p-value is twice the smaller share of draws on one side of zero, with one draw added to
    numerator and denominator, so that it is never 0; equal classifiers have p = 1.
    """
    labels_N = positive_N.astype(np.int64)
    groups_N = intervals.numbered(groups, len(labels_N))
    rankings = [curves.ranking_statistics(positive_N, each, {"auroc": curves.area}) for each in scores]

    def statistics(counts_RN: Floats) -> dict[str, Floats]:
        areas = [ranking(counts_RN)["auroc"] for ranking in rankings]
        confusions = [intervals.weighted_confusion(labels_N, each.astype(np.int64), counts_RN, 2) for each in decisions]
        shares = [intervals.balanced_accuracy(confusion) for confusion in confusions]
        return {"auroc": np.stack(areas, axis=1), "balanced_accuracy": np.stack(shares, axis=1)}

    points = statistics(np.ones((1, len(labels_N))))
    draws = intervals.bootstrap(statistics, labels_N, bootstrap, seed, groups_N)
    result: dict[str, object] = {
        "n": len(labels_N),
        "positives": int(labels_N.sum()),
        "negatives": int(len(labels_N) - labels_N.sum()),
        "groups": None if groups_N is None else int(groups_N.max()) + 1,
    }
    for name, values in points.items():
        first, second = values[0].tolist()
        result[name] = {
            "first": first,
            "second": second,
            "difference": first - second,
            "bootstrap": _difference(draws[name]) if draws else {"low": None, "high": None, "p": None},
        }
    result["auroc"]["delong"] = delong_test(positive_N, scores[0], scores[1], groups_N)  # type: ignore[index]  # a dict
    return result


def _difference(values_R2: Floats) -> dict[str, float]:
    """Return the percentile interval of the difference, and its p-value."""
    differences_R = values_R2[:, 0] - values_R2[:, 1]
    low, high = np.percentile(differences_R, [2.5, 97.5]).tolist()
    smaller = int(min((differences_R <= 0).sum(), (differences_R >= 0).sum()))
    return {"low": low, "high": high, "p": min(1.0, 2.0 * (1 + smaller) / (1 + len(differences_R)))}
