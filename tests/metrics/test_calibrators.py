"""What makes probabilities of scores: on samples whose probabilities are known, and against general minimisers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax

from ttc.metrics.calibration import calibration_statistics, intercept_and_slope
from ttc.metrics.clinic.calibrators import Calibrator, binary, fit_calibrator, shares, shift


def both(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def study(seed: int, n: int, prevalence: float, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and true probabilities of two normal classes of equal spread."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < prevalence).astype(np.int64)
    x = generator.normal(gap * labels, 1.0)
    return labels, expit(gap * x - gap**2 / 2 + logit(prevalence))


def as_scored(truth: np.ndarray, prevalence: float, head: str) -> np.ndarray:
    """Return what a head says that was fitted in another way than with the natural share of the classes."""
    odds = logit(truth)
    if head != "natural":
        odds = odds - logit(prevalence)
    return expit(1.7 * odds + 0.2 if head == "overconfident" else odds)


@pytest.mark.parametrize("head", ["balanced", "overconfident", "natural"])
@pytest.mark.parametrize("prevalence", [0.02, 0.05, 0.2])
def test_probabilities_are_right(prevalence: float, head: str) -> None:
    (known, known_truth), (labels, truth) = study(1, 6000, prevalence), study(2, 20000, prevalence)
    fitted = fit_calibrator(known, both(as_scored(known_truth, prevalence, head)))
    scores = both(as_scored(truth, prevalence, head))
    found = fitted(scores)
    assert fitted.kind == "platt"
    measured = calibration_statistics(labels, found)(np.ones((1, len(labels))))
    assert measured["ece"][0] <= 0.02
    assert abs(found[:, 1].mean() - prevalence) <= 0.01
    assert np.abs(found[:, 1] - truth).mean() <= 0.01
    order = np.argsort(scores[:, 1], kind="stable")
    assert (np.diff(found[order, 1]) >= 0).all()
    slope = intercept_and_slope(labels, found)["slope"]
    assert slope["low"] - 0.1 <= 1.0 <= slope["high"] + 0.1


def test_platt_is_the_largest_likelihood_without_a_penalty() -> None:
    known, truth = study(3, 300, 0.3)
    scores = both(as_scored(truth, 0.3, "overconfident"))
    found = fit_calibrator(known, scores, "platt")

    def loss(values: np.ndarray) -> float:
        odds = values[0] + values[1] * logit(scores[:, 1])
        return -np.log(expit(np.where(known == 1, odds, -odds))).mean()

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000})
    assert [found.offsets[1], found.slope] == pytest.approx(best.x, abs=1e-5)


def test_few_samples_give_the_prior_offset_alone() -> None:
    labels, truth = (np.arange(100) < 19).astype(np.int64), np.linspace(0.9, 0.05, 100)
    assert fit_calibrator(np.r_[labels, 1], both(np.r_[truth, 0.2])).kind == "platt"
    for prior in (None, (0.6, 0.4)):
        found = fit_calibrator(labels, both(truth), prior=prior)
        offset = logit(0.19) - logit(0.5 if prior is None else prior[1])
        assert (found.kind, found.slope) == ("prior", 1.0)
        assert found(both(truth))[:, 1] == pytest.approx(expit(logit(truth) + offset), abs=1e-12)


@pytest.mark.parametrize("case", ["separated", "worse than chance", "constant"])
def test_where_validation_determines_no_slope_the_prior_offset_is_taken(case: str) -> None:
    labels = (np.arange(80) < 30).astype(np.int64)
    scores = {
        "separated": np.where(labels, 0.8, 0.3) + np.arange(80) / 1000,
        "worse than chance": np.where(labels, 0.3, 0.6) + np.sin(np.arange(80)) / 4,
        "constant": np.full(80, 0.4),
    }[case]
    assert fit_calibrator(labels, both(scores), "platt").kind == "prior"


def test_several_classes() -> None:
    generator = np.random.default_rng(0)
    weights = np.array([0.7, 0.25, 0.05])
    labels = generator.choice(3, 4000, p=weights)
    x = generator.normal(1.5 * np.eye(3)[labels], 1.0)
    truth = softmax(1.5 * x + np.log(weights), axis=1)
    scores = softmax(2.0 * (1.5 * x), axis=1)  # of equal classes, and twice too sure
    found = fit_calibrator(labels, scores)
    assert found.kind == "platt"
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert np.abs(found(scores) - truth).mean() < 0.01
    few = fit_calibrator(labels[:60], scores[:60])
    counts = np.bincount(labels[:60], minlength=3)
    assert few.kind == "prior"
    assert few(scores) == pytest.approx(
        softmax(np.log(scores) + np.log(counts / 60) - np.log(1 / 3), axis=1), abs=1e-12
    )


def test_isotonic_equals_sklearn_and_needs_enough_positives() -> None:
    from sklearn.isotonic import IsotonicRegression

    known, truth = study(4, 2000, 0.3)
    scores = as_scored(truth, 0.3, "overconfident")
    found = fit_calibrator(known, both(scores), "isotonic")
    model = IsotonicRegression(out_of_bounds="clip").fit(scores, known)
    assert found(both(scores))[:, 1] == pytest.approx(model.predict(scores), abs=1e-9)
    with pytest.raises(ValueError, match="--calibration isotonic needs 200 validation samples of each class, not 30"):
        fit_calibrator((np.arange(300) < 30).astype(np.int64), both(np.linspace(0, 1, 300)), "isotonic")
    with pytest.raises(ValueError, match="two classes, not 3"):
        fit_calibrator(np.arange(900) % 3, np.full((900, 3), 1 / 3), "isotonic")


def test_another_prevalence_moves_the_log_odds() -> None:
    _, truth = study(5, 50, 0.3)
    moved = shift(both(truth), binary(0.3), binary(0.02))[:, 1]
    assert logit(moved) == pytest.approx(logit(truth) + logit(0.02) - logit(0.3), abs=1e-9)
    fitted = Calibrator("prior", 1.0, (0.0, 0.4), (0.7, 0.3))
    assert fitted(both(truth), binary(0.02)) == pytest.approx(shift(fitted(both(truth)), (0.7, 0.3), (0.98, 0.02)))
    # What is true of one population is, moved, true of one that differs in its share of positives alone.
    half, rare = study(6, 200, 0.5)[1], study(6, 200, 0.5)[1]
    assert shift(both(half), binary(0.5), binary(0.1))[:, 1] == pytest.approx(expit(logit(rare) + logit(0.1)), abs=1e-9)
    assert shares(np.array([0, 0, 0, 1]), 2) == (0.75, 0.25)


def test_no_calibrator() -> None:
    labels, truth = study(7, 100, 0.3)
    assert fit_calibrator(labels, both(truth), "none") is None
    assert fit_calibrator(labels * 0, both(truth)) is None


@pytest.mark.parametrize("method", ["platt", "prior", "isotonic"])
def test_plain_values_give_the_same_calibrator_back(method: str) -> None:
    labels, truth = study(8, 1500, 0.3)
    found = fit_calibrator(labels, both(truth), method)
    assert Calibrator.of(json.loads(json.dumps(found.plain()))) == found
    for name, value in (("kind", "magic"), ("slope", None), ("offsets", [0.0]), ("prevalence", [1.0, 0.0]),
                        ("slope", float("nan"))):  # fmt: skip
        with pytest.raises(ValueError, match="no calibrator"):
            Calibrator.of({**found.plain(), name: value})


def test_saturated_scores_keep_their_ranking() -> None:
    positive = np.array([0.0, 1e-200, 1e-20, 0.5, 1.0])
    scores = np.stack([1.0 - positive, positive], axis=1)
    scores[-1, 0] = 1e-30
    found = Calibrator("platt", 0.1, (0.0, -3.0), (0.9, 0.1))(scores)[:, 1]
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
