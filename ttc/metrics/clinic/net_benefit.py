"""What decisions at a probability threshold are worth: net benefit, against treating all and treating none.

Shape suffixes: N samples, R draws, T thresholds.

Source: Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical Decision
Making 26 (2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttc.metrics.clinic import calibrators, combined
from ttc.metrics.clinic.operating_points import undefined
from ttc.metrics.intervals import Estimate, Floats, Ints

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
    called_NT = probabilities_N[:, None] >= limits_T
    columns = [called_NT & side_N[:, None] for side_N in (positive_N, ~positive_N)]
    # One product for all counts, which are whole numbers and so the same in any order of summation.
    columns_NX = np.concatenate([*columns, positive_N[:, None], np.ones((len(positive_N), 1))], axis=1)
    price_T = limits_T / (1.0 - limits_T)

    def evaluate(counts_RN: Floats) -> Floats:
        counted_RX, thresholds = counts_RN @ columns_NX, len(limits_T)
        tp_RT, fp_RT = counted_RX[:, :thresholds], counted_RX[:, thresholds:-2]
        positives_R1, totals_R1 = counted_RX[:, -2:-1], counted_RX[:, -1:]
        if prevalence is None:
            return np.asarray((tp_RT - fp_RT * price_T) / totals_R1)
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity_RT, false_RT = tp_RT / positives_R1, fp_RT / (totals_R1 - positives_R1)
        return np.asarray(prevalence * sensitivity_RT - (1.0 - prevalence) * false_RT * price_T)

    return evaluate


@dataclass(frozen=True, eq=False)
class Benefits:
    """The net benefit of calibrated probabilities at several prevalences, as numbers and along the decision curve.

    Attributes:
        positive_N: [N] whether a sample is positive.
        moved: prevalence as a key, "own" for that of the samples -> the prevalence, None for "own", and [N] the
            probabilities that hold there; None without calibrated probabilities.
        decision_thresholds: at which the net benefit is given as a number.
    """

    positive_N: NDArray[np.bool_]
    moved: Mapping[str, tuple[float | None, Floats | None]]
    decision_thresholds: Sequence[float]

    @classmethod
    def of(
        cls,
        positive_N: NDArray[np.bool_],
        calibrated_N2: Floats | None,
        held_shares: Sequence[float],
        prevalences: Sequence[float],
        decision_thresholds: Sequence[float],
    ) -> Benefits:
        """Move probabilities that hold at some shares of the classes to every prevalence.

        Args:
            positive_N: see the class.
            calibrated_N2: [N, 2] calibrated probabilities, or None.
            held_shares: share of each class at which they hold.
            prevalences: further shares of the positive class.
            decision_thresholds: see the class.
        """
        sample_shares = calibrators.shares(positive_N.astype(np.int64), 2)
        moved: dict[str, tuple[float | None, Floats | None]] = {}
        for key, share in {"own": None, **{f"{share:g}": share for share in prevalences}}.items():
            there_N = None
            if calibrated_N2 is not None:
                target = sample_shares if share is None else calibrators.binary(share)
                movable = min(held_shares) > 0.0
                there_N = (calibrators.shift(calibrated_N2, held_shares, target) if movable else calibrated_N2)[:, 1]
            moved[key] = share, there_N
        return cls(positive_N, moved, decision_thresholds)

    def _paths(self, key: str) -> dict[str, float]:
        """Return the path of every number, and its threshold."""
        numbers = {f"net_benefit/{key}/{limit:g}/model": limit for limit in self.decision_thresholds}
        return numbers | {f"net_benefit/{key}/curve/{limit:g}": limit for limit in CURVE_THRESHOLDS}

    def statistics(self, counts_RN: Floats) -> dict[str, Floats]:
        """Return all net benefits [R] of draws by path."""
        benefits: dict[str, Floats] = {}
        for key, (share, there_N) in self.moved.items():
            paths = self._paths(key)
            if there_N is None:
                benefits |= undefined(tuple(paths), counts_RN)
            else:
                evaluate = net_benefit_statistics(self.positive_N, there_N, tuple(paths.values()), share)
                benefits |= dict(zip(paths, evaluate(counts_RN).T, strict=True))
        return benefits

    def limits(self, groups_N: Ints | None) -> dict[str, combined.Limits | None]:
        """Return limits that need no draws, by path."""
        found: dict[str, combined.Limits | None] = {}
        for key, (share, there_N) in self.moved.items():
            if there_N is None:
                continue
            prevalence = float(self.positive_N.mean()) if share is None else share
            for path, limit in self._paths(key).items():
                number = combined.net_benefit_of(prevalence, limit)
                found[path] = combined.share_limits(number, self.positive_N, there_N >= limit, groups_N)
        return found

    def curves(self, estimates: dict[str, Estimate]) -> dict[str, object] | None:
        """Take the decision curves out of the estimates, and return them by prevalence."""
        curves: dict[str, object] = {}
        for key, (share, _) in self.moved.items():
            prevalence = float(self.positive_N.mean()) if share is None else share
            points = [estimates.pop(f"net_benefit/{key}/curve/{limit:g}") for limit in CURVE_THRESHOLDS]
            if any(point["value"] is not None for point in points):
                curves[key] = {
                    "thresholds": list(CURVE_THRESHOLDS),
                    "model": [point["value"] for point in points],
                    "low": [point["low"] for point in points],
                    "high": [point["high"] for point in points],
                    "treat_all": [treat_all(prevalence, limit) for limit in CURVE_THRESHOLDS],
                }
        return curves or None
