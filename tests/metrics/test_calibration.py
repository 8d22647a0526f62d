"""Calibration against scikit-learn, naive loops and a general minimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from ttc.metrics.calibration import (
    BINS,
    apply_temperature,
    calibration_statistics,
    fit_temperature,
    intercept_and_slope,
    reliability,
)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sample(seed, classes=2, n=300, sharpness=3.0):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, n - classes)])
    return labels, softmax(sharpness * generator.normal(np.eye(classes)[labels], 1.0))


def measured(labels, probabilities):
    found = calibration_statistics(labels, probabilities)(np.ones((1, len(labels))))
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_equal_sklearn(seed):
    labels, probabilities = sample(seed)
    found = measured(labels, probabilities)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities[:, 1]), abs=1e-10)
    observed, mean = calibration_curve(labels, probabilities[:, 1], n_bins=BINS)
    curve = reliability(labels, probabilities)
    assert [point["observed"] for point in curve] == pytest.approx(observed, abs=1e-10)
    assert [point["mean_score"] for point in curve] == pytest.approx(mean, abs=1e-10)
    shares = np.array([point["n"] for point in curve]) / len(labels)
    assert shares.sum() == pytest.approx(1)
    assert found["ece"] == pytest.approx((shares * np.abs(observed - mean)).sum(), abs=1e-10)


def test_scores_on_the_edges_fall_into_the_lower_bin():
    labels = np.array([0, 1, 1, 0])
    positive = np.array([0.0, 1.0 / BINS, 2.0 / BINS, 1.0])
    curve = reliability(labels, np.stack([1 - positive, positive], axis=1))
    assert [point["n"] for point in curve] == [2, 1, 1]
    assert (curve[0]["low"], curve[0]["high"], curve[-1]["high"]) == (0.0, pytest.approx(1 / BINS), 1.0)


def test_several_classes_look_at_the_predicted_one():
    labels, probabilities = sample(1, classes=4)
    found = measured(labels, probabilities)
    assert found["brier"] == pytest.approx(np.mean(((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1)), abs=1e-10)
    top, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for number in range(BINS):
        inside = (top > number / BINS) & (top <= (number + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - top[inside].mean())
    assert found["ece"] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("sharpness", [0.3, 3.0, 30.0])
def test_temperature_minimises_the_likelihood(classes, sharpness):
    labels, probabilities = sample(0, classes, sharpness=sharpness)

    def likelihood(log_temperature):
        scaled = softmax(np.log(probabilities) / np.exp(log_temperature))
        return -np.log(scaled[np.arange(len(labels)), labels]).mean()

    best = minimize_scalar(likelihood, bounds=(-4, 6), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(labels, probabilities)
    assert np.log(found) == pytest.approx(best.x, abs=1e-5)
    assert likelihood(np.log(found)) <= best.fun + 1e-12


def test_temperature_undoes_what_made_probabilities_extreme():
    generator = np.random.default_rng(0)
    honest = generator.uniform(0.02, 0.98, 20000)
    labels = (generator.random(20000) < honest).astype(int)
    probabilities = np.stack([1 - honest, honest], axis=1)
    assert fit_temperature(labels, apply_temperature(probabilities, 0.25)) == pytest.approx(4.0, rel=0.05)
    assert fit_temperature(labels, probabilities) == pytest.approx(1.0, rel=0.05)


def test_temperature_of_one_changes_nothing_and_none_changes_the_ranking():
    _, probabilities = sample(2)
    assert apply_temperature(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-14)
    order = np.argsort(probabilities[:, 1])
    assert (np.diff(apply_temperature(probabilities, 3.7)[order, 1]) >= 0).all()


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1]),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
        ([1, 1, 1], [0.7, 0.8, 0.9]),
    ],
    ids=["all right", "worse than chance", "constant", "one class"],
)
def test_no_temperature_where_validation_determines_none(labels, positive):
    positive = np.array(positive)
    assert fit_temperature(np.array(labels), np.stack([1 - positive, positive], axis=1)) is None


def test_saturated_probabilities_are_finite():
    labels, positive = np.array([0, 1, 1, 0, 1]), np.array([0.0, 1.0, 0.0, 0.2, 0.9])
    probabilities = np.stack([1 - positive, positive], axis=1)
    temperature = fit_temperature(labels, probabilities)
    assert temperature is not None
    assert np.isfinite(apply_temperature(probabilities, temperature)).all()


def test_predictions_of_0_and_1_have_no_intercept() -> None:
    """Votes of nearest neighbours are certain where all agree, and wrong now and then: no shift of odds mends that."""
    certain = np.repeat([0.0, 1.0], 50)
    labels = np.repeat([0, 1], 50)
    labels[[0, 1, 60]] = [1, 1, 0]
    found = intercept_and_slope(labels, np.stack([1 - certain, certain], axis=1))
    assert found["intercept"] == {"value": None, "low": None, "high": None}
