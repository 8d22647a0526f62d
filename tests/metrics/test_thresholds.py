"""Thresholds against a search over every cut, and the decisions against scikit-learn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn import metrics as sk

from ttc.metrics.thresholds import RULES, choose_thresholds, confusion_of, decision_metrics, predictive_values


def sample(seed, n=60, decimals=2):
    generator = np.random.default_rng(seed)
    positive = np.arange(n) % 4 == 0
    return positive, np.round(np.clip(generator.normal(0.35 + 0.25 * positive, 0.2), 0, 1), decimals)


def reached(positive, scores, threshold):
    """Sensitivity, specificity and F1 as fractions."""
    called = scores >= threshold
    hits, alarms = int((called & positive).sum()), int((called & ~positive).sum())
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return (
        Fraction(hits, positives),
        Fraction(negatives - alarms, negatives),
        Fraction(2 * hits, hits + alarms + positives),
    )


# Of 10 and 20 positives, and of 40 and 60 negatives, a share can be 90 or 95 % exactly.
@pytest.mark.parametrize("n", [40, 60, 80])
@pytest.mark.parametrize("decimals", [1, 2, 9])
@pytest.mark.parametrize("seed", range(4))
def test_every_rule_is_the_best_of_all_cuts(seed, decimals, n):
    positive, scores = sample(seed, n, decimals)
    cuts = [*np.unique(scores), 2.0]
    every = [reached(positive, scores, cut) for cut in cuts]
    found = {rule: reached(positive, scores, t) for rule, t in choose_thresholds((positive, scores)).items()}
    assert sum(found["youden"][:2]) == max(sensitivity + specificity for sensitivity, specificity, _ in every)
    assert found["f1"][2] == max(f1 for _, _, f1 in every)
    for share in (90, 95):
        least = Fraction(share, 100)
        assert found[f"sensitivity_{share}"] == max((e for e in every if e[0] >= least), key=lambda e: e[1])
        assert found[f"specificity_{share}"] == max((e for e in every if e[1] >= least), key=lambda e: e[0])


def test_thresholds_lie_between_the_scores():
    chosen = choose_thresholds((np.array([False, False, True, True]), np.array([0.0, 0.2, 0.8, 1.0])))
    assert chosen == {**dict.fromkeys(RULES, 0.5)}


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = float(np.nextafter(low, 1))
    threshold = choose_thresholds((np.array([False, True]), np.array([low, high])))["youden"]
    assert low < threshold <= high


def test_no_decision_can_be_the_best():
    """A negative sample has the highest score: a specificity of 95 % allows no alarm at all."""
    positive, scores = np.array([True] * 3 + [False] * 10), np.array([0.5, 0.6, 0.7] + [0.9] * 10)
    assert choose_thresholds((positive, scores))["specificity_95"] > 0.9


@pytest.mark.parametrize(
    "validation",
    [
        None,
        (np.ones(3, bool), np.array([0.1, 0.2, 0.3])),
        (np.zeros(3, bool), np.array([0.1, 0.2, 0.3])),
        (np.array([True, False, True]), np.full(3, 0.4)),
    ],
    ids=["no validation", "positive only", "negative only", "constant"],
)
def test_without_a_choice_there_is_none(validation):
    assert choose_thresholds(validation) == {**dict.fromkeys(RULES), "half": 0.5}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_decisions_equal_sklearn(threshold):
    positive, scores = sample(7)
    called = scores >= threshold
    confusion = confusion_of(positive, scores, threshold, np.ones((1, len(scores))))
    assert confusion[0].tolist() == sk.confusion_matrix(positive, called).tolist()
    found = {name: float(values[0]) for name, values in decision_metrics(confusion).items()}
    expected = {
        "sensitivity": sk.recall_score(positive, called),
        "specificity": sk.recall_score(~positive, ~called),
        "ppv": sk.precision_score(positive, called),
        "npv": sk.precision_score(~positive, ~called),
        "accuracy": sk.accuracy_score(positive, called),
        "balanced_accuracy": sk.balanced_accuracy_score(positive, called),
        "f1": sk.f1_score(positive, called),
        "mcc": sk.matthews_corrcoef(positive, called),
    }
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("prevalence", [0.001, 0.2, 0.9])
def test_predictive_values_equal_those_of_reweighted_samples(prevalence):
    positive, scores = sample(3)
    called = scores >= 0.5
    weights = np.where(positive, prevalence / positive.sum(), (1 - prevalence) / (~positive).sum())
    found = decision_metrics(confusion_of(positive, scores, 0.5, np.ones((1, len(scores)))))
    found = predictive_values(found, prevalence)
    assert found["ppv"][0] == pytest.approx(sk.precision_score(positive, called, sample_weight=weights), abs=1e-10)
    assert found["npv"][0] == pytest.approx(sk.precision_score(~positive, ~called, sample_weight=weights), abs=1e-10)


def test_nothing_called_positive_has_no_ppv():
    positive, scores = sample(3)
    found = decision_metrics(confusion_of(positive, scores, 2.0, np.ones((1, len(scores)))))
    assert np.isnan(found["ppv"][0])
    assert np.isnan(predictive_values(found, 0.1)["ppv"][0])
    assert found["npv"][0] == pytest.approx(0.75)
