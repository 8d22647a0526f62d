"""What decisions at a probability threshold are worth: net benefit, against treating all and treating none.

Shape suffixes: N samples, R draws, T thresholds.

Source: Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical Decision
Making 26 (2006).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.intervals import Floats

CURVE_THRESHOLDS = (
    *(round(0.01 * step, 2) for step in range(1, 11)),
    *(round(0.05 * step, 2) for step in range(3, 20)),
)
"""Where the decision curve is drawn."""


def treat_all(prevalence: float, threshold: float) -> float:
    """Return the net benefit of calling every sample positive; that of calling none positive is 0."""
    return prevalence - (1.0 - prevalence) * threshold / (1.0 - threshold)


def net_benefit_statistics(
    positive_N: NDArray[np.bool_],
    probabilities_N: Floats,
    thresholds: Sequence[float],
    prevalence: float | None = None,
) -> Callable[[Floats], Floats]:
    """Return a function from the counts of draws [R, N] to net benefits [R, T].

    NB(t) = TP/n - FP/n * t / (1 - t), where a sample is called positive if its probability reaches t: a true positive
    counts 1, a false one as much as the threshold says that it is worth.

    Args:
        positive_N: [N] whether a sample is positive.
        probabilities_N: [N] probability of the positive class, which must hold at the prevalence.
        thresholds: t in (0, 1).
        prevalence: share of the positive class where decisions are made, in (0, 1): TP/n is then the sensitivity times
            it, FP/n one minus the specificity times the rest. None takes that of each draw.

    Returns:
        NaN where a prevalence is given and a class has no sample.
    """
    limits_T = np.asarray(thresholds, dtype=np.float64)
    called_NT = (probabilities_N[:, None] >= limits_T).astype(np.float64)
    tp_NT, fp_NT = called_NT * positive_N[:, None], called_NT * ~positive_N[:, None]
    price_T = limits_T / (1.0 - limits_T)

    def evaluate(counts_RN: Floats) -> Floats:
        positives_R1 = (counts_RN @ positive_N.astype(np.float64))[:, None]
        totals_R1 = counts_RN.sum(axis=1)[:, None]
        tp_RT, fp_RT = counts_RN @ tp_NT, counts_RN @ fp_NT
        if prevalence is None:
            return np.asarray((tp_RT - fp_RT * price_T) / totals_R1)
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity_RT, false_RT = tp_RT / positives_R1, fp_RT / (totals_R1 - positives_R1)
        return np.asarray(prevalence * sensitivity_RT - (1.0 - prevalence) * false_RT * price_T)

    return evaluate
