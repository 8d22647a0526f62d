"""From scores to probabilities: fitted on validation, moved to another prevalence, kept with the head.

A head is fitted with balanced weights or batches, so that its raw scores answer "if all classes were equally frequent".

Shape suffixes: N samples, K classes.

Source: Platt, "Probabilistic outputs for support vector machines", 1999, here of the log-odds and without his targets;
Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural
Computation 14 (2002), for the prior offset and other prevalences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ttc.metrics.clinic.logistic import fit_logistic, logarithms
from ttc.metrics.intervals import Floats, Ints

METHODS = ("auto", "platt", "prior", "isotonic", "none")
FEWEST_FOR_PLATT, FEWEST_FOR_ISOTONIC = 20, 200
"""Validation samples of each class; positive validation samples."""


@dataclass(frozen=True)
class Calibrator:
    """From scores [N, K] to probabilities [N, K]: softmax(slope * log score + offsets), or a monotone table.

    Attributes:
        kind: "platt", "prior" or "isotonic".
        slope: b; 1 for a prior offset alone.
        offsets: one per class; only their differences matter.
        prevalence: share of each class in validation, at which the probabilities hold.
        knots: of "isotonic": log-odds of the score and probability of class 1, both ascending; empty otherwise.
        prior: share of each class for which the head was fitted; empty for equal ones.
    """

    kind: str
    slope: float
    offsets: tuple[float, ...]
    prevalence: tuple[float, ...]
    knots: tuple[tuple[float, float], ...] = ()
    prior: tuple[float, ...] = ()

    def __call__(self, scores_NK: Floats, prevalence: Sequence[float] | None = None) -> Floats:
        """Return the probabilities of scores.

        Args:
            scores_NK: [N, K] raw class probabilities of the head.
            prevalence: [K] share of each class where the probabilities are to hold; None for that of validation.
        """
        from scipy.special import softmax

        logs_NK = logarithms(scores_NK)
        if self.knots:
            log_odds, probabilities = np.array(self.knots).T
            positive_N = np.interp(logs_NK[:, 1] - logs_NK[:, 0], log_odds, probabilities)
            out_NK = np.stack([1.0 - positive_N, positive_N], axis=1)
        else:
            out_NK = np.asarray(softmax(self.slope * logs_NK + np.array(self.offsets), axis=1))
        return out_NK if prevalence is None else shift(out_NK, self.prevalence, prevalence)

    def plain(self) -> dict[str, object]:
        """Return plain values for a file; `Calibrator.of` takes them back."""
        return {**asdict(self), "offsets": list(self.offsets), "prevalence": list(self.prevalence),
                "knots": [list(knot) for knot in self.knots], "prior": list(self.prior)}  # fmt: skip

    @staticmethod
    def of(values: Mapping[str, object]) -> Calibrator:
        """Build a calibrator from what `plain` returned.

        Raises:
            ValueError: the values do not describe a calibrator.
        """
        try:
            kind, slope = str(values["kind"]), float(values["slope"])  # type: ignore[arg-type]  # checked by the call
            offsets, prevalence = (tuple(map(float, values[name])) for name in ("offsets", "prevalence"))  # type: ignore[call-overload]
            knots = tuple((float(at), float(reached)) for at, reached in values["knots"])  # type: ignore[attr-defined]
            prior = tuple(map(float, values.get("prior", ())))  # type: ignore[call-overload]  # not in earlier versions
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no calibrator: {type(error).__name__} {error}") from None
        calibrator = Calibrator(kind, slope, offsets, prevalence, knots, prior)
        numbers = [slope, *offsets, *prevalence, *(number for knot in knots for number in knot), *prior]
        if kind not in METHODS[1:-1] or len(offsets) != len(prevalence) or not np.isfinite(numbers).all():
            raise ValueError("no calibrator: an unknown kind, or numbers that are not finite or of other classes")
        if min(prevalence) <= 0.0 or (kind == "isotonic") != bool(knots) or (knots and len(prevalence) != 2):
            raise ValueError("no calibrator: a class has no share, or the table does not fit the kind")
        if prior and (len(prior) != len(prevalence) or min(prior) <= 0.0):
            raise ValueError("no calibrator: `prior` is not a share above 0 of every class")
        return calibrator


def shift(probabilities_NK: Floats, before: Sequence[float], after: Sequence[float]) -> Floats:
    """Move probabilities from one prevalence to another: their log-odds move by the difference of the log-odds.

    Args:
        probabilities_NK: [N, K], which hold at the prevalence `before`.
        before: [K] share of each class, > 0.
        after: [K] share of each class where they are to hold.
    """
    odds_NK = probabilities_NK * (np.asarray(after, np.float64) / np.asarray(before, np.float64))
    return np.asarray(odds_NK / odds_NK.sum(axis=1, keepdims=True))


def shares(labels_N: Ints, classes: int) -> tuple[float, ...]:
    """Return the share of each class."""
    return tuple((np.bincount(labels_N, minlength=classes) / len(labels_N)).tolist())


def binary(prevalence: float, positive_class: int = 1) -> tuple[float, float]:
    """Return the shares of two classes, [2], from that of the positive one."""
    return (1.0 - prevalence, prevalence) if positive_class == 1 else (prevalence, 1.0 - prevalence)


def check_calibration(method: str, labels_N: Ints, classes: int) -> None:
    """Refuse a calibration for which validation is too small, before anything is fitted.

    Raises:
        ValueError: isotonic with other than two classes or with too few positive samples.
    """
    counts = np.bincount(labels_N, minlength=classes)
    if method == "isotonic" and classes != 2:
        raise ValueError(f"--calibration isotonic is defined for two classes, not {classes}; use platt")
    if method == "isotonic" and counts.min() < FEWEST_FOR_ISOTONIC:
        raise ValueError(
            f"--calibration isotonic needs {FEWEST_FOR_ISOTONIC} validation samples of each class, not {counts.min()}; "
            "use auto"
        )


def fit_calibrator(
    labels_N: Ints, scores_NK: Floats, method: str = "auto", prior: Sequence[float] | None = None
) -> Calibrator | None:
    """Fit a calibrator on the scores of validation.

    Args:
        labels_N: [N] classes of the validation samples.
        scores_NK: [N, K] raw class probabilities of the head.
        method: of METHODS. "auto" is "platt" with at least 20 samples of each class, else "prior".
        prior: [K] share of each class for which the head was fitted; None for equal shares, as with balanced weights
            or batches.

    Returns:
        The calibrator. "platt" becomes "prior" where validation determines no slope above 0: the classes are perfectly
        separated, or ranked no better than by chance. None for "none", and where validation lacks a class.

    Raises:
        ValueError: see `check_calibration`.
    """
    classes = scores_NK.shape[1]
    counts_K = np.bincount(labels_N, minlength=classes)
    if method == "none" or not counts_K.all():
        return None
    check_calibration(method, labels_N, classes)
    prevalence = shares(labels_N, classes)
    expected = np.full(classes, 1.0 / classes) if prior is None else np.asarray(prior, np.float64)
    offsets_K = np.log(np.asarray(prevalence)) - np.log(expected / expected.sum())
    kept = () if prior is None else tuple(map(float, prior))
    if method == "isotonic":
        return Calibrator(method, 1.0, (0.0, 0.0), prevalence, _isotonic(labels_N, scores_NK), kept)
    if method == "platt" or (method == "auto" and counts_K.min() >= FEWEST_FOR_PLATT):
        if classes == 2:
            logs_N2 = logarithms(scores_NK)
            odds_N = logs_N2[:, 1] - logs_N2[:, 0]
            fit = fit_logistic(np.stack([np.ones_like(odds_N), odds_N], axis=1), labels_N == 1)
            if fit is not None and fit.coefficients_P[1] > 0.0:
                intercept, slope = fit.coefficients_P.tolist()
                return Calibrator("platt", slope, (0.0, intercept), prevalence, (), kept)
        elif (slope := _common_slope(labels_N, scores_NK, offsets_K)) is not None:
            return Calibrator("platt", slope, tuple(offsets_K.tolist()), prevalence, (), kept)
    return Calibrator("prior", 1.0, tuple(offsets_K.tolist()), prevalence, (), kept)


def _common_slope(labels_N: Ints, scores_NK: Floats, offsets_K: Floats) -> float | None:
    """Return the b of softmax(b log s + offsets) with the largest likelihood, None where it is not above 0 and finite.

    The likelihood is concave in b, so its slope has at most one root.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    logs_NK = logarithms(scores_NK)
    true_N = logs_NK[np.arange(len(labels_N)), labels_N]

    def ascent(slope: float) -> float:
        return float((true_N - (softmax(slope * logs_NK + offsets_K, axis=1) * logs_NK).sum(axis=1)).mean())

    high = 1.0
    while ascent(high) > 0.0:
        high *= 2.0
        if high > 1e6:
            return None
    return float(brentq(ascent, 0.0, high, xtol=1e-12)) if ascent(0.0) > 0.0 else None


def _isotonic(labels_N: Ints, scores_N2: Floats) -> tuple[tuple[float, float], ...]:
    """Return the monotone table of scikit-learn."""
    from sklearn.isotonic import IsotonicRegression

    logs_N2 = logarithms(scores_N2)
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(logs_N2[:, 1] - logs_N2[:, 0], labels_N == 1)
    return tuple(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))
