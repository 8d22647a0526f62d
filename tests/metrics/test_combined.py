"""Limits that need no draws: against their formulas by scipy, and how often they hold the truth with few positives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from ttc.metrics.classification import classification_metrics
from ttc.metrics.clinic import combined
from ttc.metrics.clinic.net_benefit import treat_all
from ttc.metrics.clinical import clinical_metrics


def sample(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % 6 == 0).astype(int)
    return labels, np.clip(generator.normal(0.35 + 0.25 * labels, 0.2), 0.01, 0.99)


def exact(hits: int, n: int) -> tuple[float, float, float]:
    found = binomtest(int(hits), int(n)).proportion_ci(method="exact")
    return hits / n, found.low, found.high


def naive(name: str, labels: np.ndarray, called: np.ndarray) -> tuple[float, float]:
    """Zou and Donner's limits, on confusion matrices with one side moved to the end of its interval."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    (s, s_low, s_high), (f, f_low, f_high) = (
        exact(called[labels == side].sum(), (labels == side).sum()) for side in (1, 0)
    )

    def number(sensitivity: float, false: float) -> float:
        if name == "balanced_accuracy":
            return (sensitivity + 1 - false) / 2
        true = sensitivity * positives
        return 2 * true / (2 * true + false * negatives + positives - true)

    value = number(s, f)
    below = (value - number(s_low, f)) ** 2 + (value - number(s, f_high)) ** 2
    above = (number(s_high, f) - value) ** 2 + (number(s, f_low) - value) ** 2
    return value - math.sqrt(below), value + math.sqrt(above)


@pytest.mark.parametrize("seed", range(3))
def test_decisions_and_precision_equal_their_formulas(seed: int) -> None:
    labels, scores = sample(seed)
    called = scores >= 0.5
    values = {"balanced_accuracy": balanced_accuracy_score(labels, called), "f1": f1_score(labels, called)}
    numbers = {"balanced_accuracy": combined.balanced_accuracy_of, "f1": combined.f1_of(10, 50)}
    metrics = classification_metrics(labels, scores, bootstrap=2)
    for name, number in numbers.items():
        limits = combined.share_limits(number, labels == 1, called, None)
        assert limits == pytest.approx(naive(name, labels, called), abs=1e-10)
        # Two draws make an interval that these limits hold on both sides.
        assert (metrics[name]["low"], metrics[name]["high"]) == pytest.approx(limits, abs=1e-12)  # type: ignore[literal-required]
        assert limits[0] < values[name] < limits[1]  # type: ignore[index]
    # Six of ten hits, as an average precision of 0.6 counts.
    assert combined.precision_limits(0.6, labels == 1, None) == pytest.approx(exact(6, 10)[1:], abs=1e-10)
    assert metrics["auprc"]["low"] < average_precision_score(labels, scores) < metrics["auprc"]["high"]


def test_net_benefit_is_between_that_of_its_shares() -> None:
    positive, called = np.arange(40) < 10, np.arange(40) % 4 == 0
    (s, s_low, s_high), (f, f_low, f_high) = exact(3, 10), exact(7, 30)
    low, high = combined.share_limits(combined.net_benefit_of(0.1, 0.2), positive, called, None)  # type: ignore[misc]
    value = 0.1 * s - 0.9 * f / 4
    assert low == pytest.approx(value - math.hypot(0.1 * (s - s_low), 0.9 * (f_high - f) / 4), abs=1e-10)
    assert high == pytest.approx(value + math.hypot(0.1 * (s_high - s), 0.9 * (f - f_low) / 4), abs=1e-10)
    assert combined.net_benefit_of(0.1, 0.2)(1.0, 1.0) == pytest.approx(treat_all(0.1, 0.2), abs=1e-12)
    labels, scores = sample(0)
    both = np.stack([1 - scores, scores], axis=1)
    found = clinical_metrics(labels, both, calibrated=both, decision_thresholds=[0.2], bootstrap=2)
    limits = combined.share_limits(combined.net_benefit_of(1 / 6, 0.2), labels == 1, scores >= 0.2, None)
    model = found["net_benefit"]["own"]["0.2"]["model"]  # type: ignore[index]
    assert (model["low"], model["high"]) == pytest.approx(limits, abs=1e-12)
    curve = found["details"]["decision_curve"]["own"]  # type: ignore[index]
    assert curve["low"][curve["thresholds"].index(0.2)] == pytest.approx(limits[0], abs=1e-12)  # type: ignore[index]


def test_mean_of_strata_equals_welch() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(50) < 6
    errors = generator.exponential(np.where(positive, 0.4, 0.05))
    parts = [errors[side] * side.mean() for side in (positive, ~positive)]
    variances = [part.var(ddof=1) / len(part) for part in parts]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    factor = math.exp(t.ppf(0.975, freedom) * math.sqrt(sum(variances)) / errors.mean())
    expected = (errors.mean() / factor, errors.mean() * factor)
    assert combined.mean_limits(errors, positive, None) == pytest.approx(expected, abs=1e-12)
    # Copies of a sample in its group say nothing new; groups of one sample are samples.
    copies = combined.mean_limits(np.repeat(errors, 4), np.repeat(positive, 4), np.repeat(np.arange(50), 4))
    assert copies == pytest.approx(expected, abs=1e-12)
    assert combined.mean_limits(errors, positive, np.arange(50)) == pytest.approx(expected, abs=1e-12)


def test_where_nothing_can_be_said_there_are_no_limits() -> None:
    positive = np.arange(20) < 5
    one = np.zeros(20, dtype=np.int64)
    assert combined.share_limits(combined.balanced_accuracy_of, positive, positive, one) is None
    assert combined.share_limits(combined.balanced_accuracy_of, np.zeros(20, dtype=bool), positive, None) is None
    assert combined.precision_limits(0.5, positive, one) is None
    assert combined.precision_limits(0.5, np.zeros(20, dtype=bool), None) is None
    assert combined.mean_limits(np.ones(20), np.arange(20) < 1, None) is None
    assert combined.mean_limits(np.ones(20), positive, None) is None
    single = classification_metrics(positive.astype(int), positive * 0.5 + 0.2, groups=["a"] * 20, bootstrap=20)
    assert single["balanced_accuracy"]["low"] is single["auprc"]["low"] is None


@pytest.mark.parametrize("images", [1, 3])
def test_few_positives_are_covered(images: int) -> None:
    """With 5 of 50 positive, or of 50 patients; the bootstrap alone holds the truth in about 70 %."""
    generator, studies = np.random.default_rng(1), 300
    owners = np.repeat(np.arange(50), images)
    positive, groups = owners < 5, owners if images > 1 else None
    truth, held = (norm.cdf(0.2) + norm.cdf(1.0)) / 2, 0
    for _ in range(studies):
        noise = generator.normal(0, math.sqrt(0.5), 50)[owners] + generator.normal(0, math.sqrt(0.5), len(owners))
        low, high = combined.share_limits(combined.balanced_accuracy_of, positive, noise + 1.2 * positive > 1.0, groups)  # type: ignore[misc]
        held += low <= truth <= high
    assert held / studies >= 0.93
