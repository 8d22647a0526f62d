"""Two classifiers on the same samples: tests of their difference.

Shape suffixes: N samples, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttc.metrics import curves, intervals
from ttc.metrics.delong import delong_test
from ttc.metrics.intervals import Floats, Ints

_BLOCK_NUMBERS = 2**21
"""How many ranks are in memory at a time."""


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
        bootstrap: number of draws and of exchanges, >= 1.
        seed: of the draws.

    Returns:
        "n", "positives", "negatives", "groups" (their number, or None); "auroc" and "balanced_accuracy", each with
        "first", "second", "difference", "bootstrap" ("low", "high") and "exchange" ("p"), all None with a single group;
        the AUROC also with "delong", see `delong_test`.

    Note: the exchange test swaps the two classifiers at random, sample by sample or group by group, and counts how
    often the difference is then at least as large. With 10 positive samples a p-value of the bootstrap's draws rejects
    a true null in 8 to 10 % of cases. Scores are compared by their ranks, so that their scales do not matter.

    Source: Bandos, Rockette and Gur, "A permutation test sensitive to differences in areas for comparing ROC curves
        from a paired design", Statistics in Medicine 24 (2005).
    """
    labels_N = positive_N.astype(np.int64)
    groups_N = intervals.numbered(groups, len(labels_N))
    rankings = [curves.ranking_statistics(positive_N, scores_N, {"auroc": curves.area}) for scores_N in scores]

    def statistics(counts_RN: Floats) -> dict[str, Floats]:
        areas = [ranking(counts_RN)["auroc"] for ranking in rankings]
        confusions = [
            intervals.weighted_confusion(labels_N, called_N.astype(np.int64), counts_RN, 2) for called_N in decisions
        ]
        accuracies = [intervals.balanced_accuracy(confusion) for confusion in confusions]
        return {"auroc": np.stack(areas, axis=1), "balanced_accuracy": np.stack(accuracies, axis=1)}

    points = statistics(np.ones((1, len(labels_N))))
    draws = intervals.bootstrap(statistics, labels_N, bootstrap, seed, groups_N)
    result: dict[str, object] = {
        "n": len(labels_N),
        "positives": int(labels_N.sum()),
        "negatives": int(len(labels_N) - labels_N.sum()),
        "groups": None if groups_N is None else int(groups_N.max()) + 1,
    }
    p_values = _exchange(positive_N, scores, decisions, groups_N, bootstrap, seed)
    for name, values in points.items():
        first, second = values[0].tolist()
        result[name] = {
            "first": first,
            "second": second,
            "difference": first - second,
            "bootstrap": _difference(draws[name]) if draws else {"low": None, "high": None},
            "exchange": {"p": p_values[name] if draws else None},
        }
    result["auroc"]["delong"] = delong_test(positive_N, scores[0], scores[1], groups_N)  # type: ignore[index]  # a dict
    return result


def _difference(values_R2: Floats) -> dict[str, float]:
    """Return the percentile interval of the difference."""
    low, high = np.percentile(values_R2[:, 0] - values_R2[:, 1], [2.5, 97.5]).tolist()
    return {"low": low, "high": high}


def _exchange(
    positive_N: NDArray[np.bool_],
    scores: Sequence[Floats],
    decisions: Sequence[NDArray[np.bool_]],
    groups_N: Ints | None,
    draws: int,
    seed: int,
) -> dict[str, float]:
    """Return the p-values of the exchange test; never 0, since what was observed counts as one of the draws."""
    from scipy.stats import rankdata

    generator = np.random.default_rng([seed, 1])
    units_N = np.arange(len(positive_N)) if groups_N is None else groups_N
    ranks_2N = np.stack([rankdata(scores_N) for scores_N in scores])
    counts = np.array([(~positive_N).sum(), positive_N.sum()])
    # What a sample adds to the difference of the balanced accuracies, if nothing is swapped.
    gains_N = (
        np.where(positive_N, 1.0, -1.0) * (decisions[0].astype(np.float64) - decisions[1]) / counts[1 * positive_N]
    )
    observed = {"auroc": abs(_rank_difference(ranks_2N[None], positive_N)[0]), "balanced_accuracy": abs(gains_N.sum())}
    reached = dict.fromkeys(observed, 0)
    block = max(1, _BLOCK_NUMBERS // len(positive_N))
    for first in range(0, draws, block):
        size = min(block, draws - first)
        swapped_RN = generator.random((size, int(units_N.max()) + 1))[:, units_N] < 0.5
        mixed_R2N = np.where(swapped_RN[:, None], ranks_2N[None, ::-1], ranks_2N[None])
        drawn = {
            "auroc": np.abs(_rank_difference(rankdata(mixed_R2N, axis=2), positive_N)),
            "balanced_accuracy": np.abs(np.where(swapped_RN, -1.0, 1.0) @ gains_N),
        }
        for name, values_R in drawn.items():
            reached[name] += int((values_R >= observed[name] * (1.0 - 1e-9) - 1e-12).sum())
    return {name: (1 + count) / (1 + draws) for name, count in reached.items()}


def _rank_difference(ranks_R2N: Floats, positive_N: NDArray[np.bool_]) -> Floats:
    """Return the difference of the AUROCs [R], times the number of pairs."""
    sums_R2 = ranks_R2N @ positive_N.astype(np.float64)
    return np.asarray(sums_R2[:, 0] - sums_R2[:, 1])
