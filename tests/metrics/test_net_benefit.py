"""Net benefit by hand on 20 patients, at the samples' own share of positives and at another one."""

from __future__ import annotations

import numpy as np
import pytest

from ttc.metrics.clinic.net_benefit import net_benefit_statistics, treat_all
from ttc.metrics.clinical import clinical_metrics

# 20 patients, 5 of them ill, and what a model gives each of them.
ILL = np.array([1] * 5 + [0] * 15)
CHANCE = np.array([0.9, 0.6, 0.3, 0.15, 0.04] + [0.7, 0.4, 0.22, 0.2, 0.12] + [0.08, 0.06, 0.05] + [0.01] * 7)
BY_HAND = {
    # t: (true positives, false positives)
    0.05: (4, 8),
    0.1: (4, 5),
    0.2: (3, 4),
    0.5: (2, 1),
}


def both(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def test_by_hand() -> None:
    found = clinical_metrics(
        ILL, both(CHANCE), calibrated=both(CHANCE), decision_thresholds=list(BY_HAND), bootstrap=0
    )["net_benefit"]["own"]  # type: ignore[index]  # a mapping
    for t, (true, false) in BY_HAND.items():
        assert found[f"{t:g}"]["model"]["value"] == pytest.approx(true / 20 - false / 20 * t / (1 - t), abs=1e-12)
        assert found[f"{t:g}"]["treat_all"] == pytest.approx(5 / 20 - 15 / 20 * t / (1 - t), abs=1e-12)


def test_another_prevalence_weighs_the_patients_and_moves_the_probabilities() -> None:
    """At 10 % each ill patient stands for 0.1 / 5, each other for 0.9 / 15; the odds are a third of those at 25 %."""
    found = clinical_metrics(
        ILL, both(CHANCE), calibrated=both(CHANCE), deploy_prevalence=[0.1], decision_thresholds=[0.1], bootstrap=0
    )["net_benefit"]["0.1"]["0.1"]  # type: ignore[index]  # a mapping
    odds = CHANCE / (1 - CHANCE) / 3
    called = odds / (1 + odds) >= 0.1
    assert (called[:5].sum(), called[5:].sum()) == (3, 2)
    assert found["model"]["value"] == pytest.approx(0.1 * 3 / 5 - 0.9 * 2 / 15 / 9, abs=1e-12)
    assert found["treat_all"] == pytest.approx(0.1 - 0.9 / 9, abs=1e-12)


def test_draws_equal_repeated_patients() -> None:
    generator = np.random.default_rng(0)
    picks = [generator.integers(0, 20, 20) for _ in range(30)]
    counts = np.stack([np.bincount(pick, minlength=20) for pick in picks]).astype(float)
    found = net_benefit_statistics(ILL == 1, CHANCE, [0.1, 0.3])(counts)
    for row, pick in zip(found, picks, strict=True):
        for value, t in zip(row, (0.1, 0.3), strict=True):
            called = CHANCE[pick] >= t
            gain = (called & (ILL[pick] == 1)).mean() - (called & (ILL[pick] == 0)).mean() * t / (1 - t)
            assert value == pytest.approx(gain, abs=1e-12)


def test_a_threshold_below_all_probabilities_treats_all() -> None:
    found = net_benefit_statistics(ILL == 1, CHANCE, [0.005])(np.ones((1, 20)))
    assert found[0, 0] == pytest.approx(treat_all(0.25, 0.005), abs=1e-12)


def test_curve_and_band() -> None:
    found = clinical_metrics(ILL, both(CHANCE), calibrated=both(CHANCE), bootstrap=50)["details"]["decision_curve"]  # type: ignore[index]  # a mapping
    curve = found["own"]
    assert len({len(values) for values in curve.values()}) == 1
    at = curve["thresholds"].index(0.1)
    assert curve["model"][at] == pytest.approx(4 / 20 - 5 / 20 / 9, abs=1e-12)
    assert curve["low"][at] <= curve["model"][at] <= curve["high"][at]
    assert clinical_metrics(ILL, both(CHANCE), bootstrap=0)["details"]["decision_curve"] is None  # type: ignore[index]
