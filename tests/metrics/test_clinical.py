"""The one call that gives all metrics: against scikit-learn, naive draws and itself; always JSON-safe."""

from __future__ import annotations

import json
import warnings
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from ttc.metrics.calibration import apply_temperature
from ttc.metrics.clinic.combined import mean_limits
from ttc.metrics.clinical import clinical_metrics
from ttc.metrics.delong import delong
from ttc.metrics.intervals import bootstrap_counts
from ttc.metrics.thresholds import DECISIONS, RULES, choose_thresholds

FIXED = [(f"{kind}_{share}", share) for kind in ("sensitivity_at_specificity", "specificity_at_sensitivity")
         for share in (90, 95)]  # fmt: skip


def sample(seed, n=80, decimals=2):
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % 5 == 0).astype(int)
    scores = np.round(np.clip(generator.normal(0.35 + 0.25 * labels, 0.2), 0, 1), decimals)
    return labels, np.stack([1 - scores, scores], axis=1)


def naive_fixed(labels, scores, name, share):
    """The best of all thresholds, in exact fractions."""
    best = Fraction(0)
    for threshold in [*np.unique(scores), 2.0]:
        called = scores >= threshold
        sensitivity = Fraction(int((called & (labels == 1)).sum()), int((labels == 1).sum()))
        specificity = Fraction(int((~called & (labels == 0)).sum()), int((labels == 0).sum()))
        given, wanted = (specificity, sensitivity) if name.startswith("sensitivity") else (sensitivity, specificity)
        if given >= Fraction(share, 100):
            best = max(best, wanted)
    return float(best)


def naive_auprc(labels, scores, prevalence):
    weights = np.where(labels == 1, prevalence / labels.sum(), (1 - prevalence) / (1 - labels).sum())
    return sk.average_precision_score(labels, scores, sample_weight=weights)


@pytest.mark.parametrize("decimals", [1, 2, 9])
@pytest.mark.parametrize("seed", range(3))
def test_readings_of_the_curves(seed, decimals):
    labels, probabilities = sample(seed, decimals=decimals)
    found = clinical_metrics(labels, probabilities, deploy_prevalence=[0.01, 0.2], bootstrap=0)
    scores = probabilities[:, 1]
    for name, share in FIXED:
        assert found[name]["value"] == pytest.approx(naive_fixed(labels, scores, name, share), abs=1e-12)
    for share in (0.01, 0.2):
        value = found["deployment"][f"{share:g}"]["auprc"]["value"]
        assert value == pytest.approx(naive_auprc(labels, scores, share), abs=1e-10)
    assert found["deployment"]["0.2"]["auprc"]["value"] == pytest.approx(found["auprc"]["value"], abs=1e-12)
    assert found["auroc_delong"] == delong(labels == 1, scores)


def test_intervals_equal_naive_draws():
    (labels, probabilities), (known, known_probabilities) = sample(1), sample(2)
    options = {"validation": (known, known_probabilities), "deploy_prevalence": [0.03]}
    found = clinical_metrics(labels, probabilities, **options, bootstrap=40, seed=5)
    threshold = choose_thresholds((known == 1, known_probabilities[:, 1]))["youden"]
    draws = {"brier": [], "sensitivity_at_specificity_90": [], "youden": [], "auprc": [], "ppv": []}
    for counts in bootstrap_counts(labels, 40, 5):
        for row in counts.astype(int):
            picked = np.repeat(np.arange(len(labels)), row)
            y, scores = labels[picked], probabilities[picked, 1]
            draws["brier"].append(sk.brier_score_loss(y, scores))
            draws["sensitivity_at_specificity_90"].append(naive_fixed(y, scores, "sensitivity", 90))
            draws["youden"].append(sk.recall_score(y, scores >= threshold))
            draws["auprc"].append(naive_auprc(y, scores, 0.03))
            weights = np.where(y == 1, 0.03 / y.sum(), 0.97 / (1 - y).sum())
            draws["ppv"].append(sk.precision_score(y, scores >= threshold, sample_weight=weights))
    elsewhere = found["deployment"]["0.03"]
    pairs = {
        **{name: found[name] for name in ("brier", "sensitivity_at_specificity_90")},
        "youden": found["operating_points"]["youden"]["sensitivity"],
        "auprc": elsewhere["auprc"],
        "ppv": elsewhere["youden"]["ppv"],
    }
    reading, youden = pairs.pop("sensitivity_at_specificity_90"), pairs.pop("youden")
    for estimate, drawn in ((reading, draws["sensitivity_at_specificity_90"]), (youden, None)):
        exact = binomtest(round(estimate["value"] * 16), 16).proportion_ci(method="exact")
        ends = [exact.low, exact.high] if drawn is None else np.percentile(drawn, [2.5, 97.5])
        joined = [min(ends[0], exact.low), max(ends[1], exact.high)]
        assert [estimate["low"], estimate["high"]] == pytest.approx(joined, abs=1e-10)
    for name, estimate in pairs.items():
        ends = np.percentile(draws[name], [2.5, 97.5])
        if name == "brier":  # joined with limits that need no draws
            more = mean_limits((probabilities[:, 1] - labels) ** 2, labels == 1, None)
            ends = [min(ends[0], more[0]), max(ends[1], more[1])]
        assert [estimate["low"], estimate["high"]] == pytest.approx(ends, abs=1e-10), name


def test_only_validation_chooses():
    (labels, probabilities), (known, known_probabilities) = sample(1), sample(2)
    found = clinical_metrics(labels, probabilities, validation=(known, known_probabilities), bootstrap=0)
    swapped = clinical_metrics(1 - labels, probabilities, validation=(known, known_probabilities), bootstrap=0)
    for name in ("thresholds", "temperature"):
        assert swapped["details"][name] == found["details"][name]
    assert found["details"]["thresholds"] == choose_thresholds((known == 1, known_probabilities[:, 1]))
    for rule, threshold in found["details"]["thresholds"].items():
        (tn, fp), (fn, tp) = sk.confusion_matrix(labels, probabilities[:, 1] >= threshold).tolist()
        assert found["details"]["confusion"][rule] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
        assert found["operating_points"][rule]["sensitivity"]["value"] == tp / (tp + fn)
    scaled = apply_temperature(probabilities, found["details"]["temperature"])
    again = clinical_metrics(labels, scaled, bootstrap=0)
    for name in ("brier", "ece"):
        assert found[f"{name}_scaled"]["value"] == pytest.approx(again[name]["value"], abs=1e-12)
    assert found["details"]["reliability_scaled"] == again["details"]["reliability"]


def test_positive_class_zero_mirrors_everything():
    (labels, probabilities), (known, known_probabilities) = sample(1), sample(2)
    groups = [f"site{number % 3}" for number in range(len(labels))]
    options = {"groups": groups, "deploy_prevalence": [0.05], "bootstrap": 30}
    one = clinical_metrics(labels, probabilities, validation=(known, known_probabilities), **options)
    zero = clinical_metrics(
        1 - labels, probabilities[:, ::-1], validation=(1 - known, known_probabilities[:, ::-1]), positive_class=0,
        **options,
    )  # fmt: skip
    assert zero.pop("class_counts") == one.pop("class_counts")[::-1]
    assert (zero.pop("positive_class"), one.pop("positive_class")) == (0, 1)
    assert zero == one


def test_groups_have_their_own_row():
    (labels, probabilities), known = sample(1), sample(2)
    groups = np.array(["small"] * 20 + ["large"] * 60)
    found = clinical_metrics(labels, probabilities, validation=known, groups=list(groups), bootstrap=0)
    rows = found["details"]["groups"]
    assert [row["group"] for row in rows] == ["large", "small"]
    threshold = found["details"]["thresholds"]["youden"]
    for row in rows:
        y, scores = labels[groups == row["group"]], probabilities[groups == row["group"], 1]
        assert (row["n"], row["positives"]) == (len(y), y.sum())
        assert row["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, scores), abs=1e-12)
        assert row["accuracy"] == pytest.approx(((scores >= 0.5) == y).mean(), abs=1e-12)
        assert row["sensitivity"] == pytest.approx(sk.recall_score(y, scores >= threshold), abs=1e-12)
        assert row["specificity"] == pytest.approx(sk.recall_score(1 - y, scores < threshold), abs=1e-12)
    alone = clinical_metrics(labels, probabilities, groups=["one"] * 80, bootstrap=0)["details"]["groups"][0]
    assert (alone["sensitivity"], alone["specificity"]) == (None, None)


CASES = {
    "no validation": (sample(1), None),
    "one class": ((np.zeros(10, int), sample(1)[1][:10]), sample(2)),
    "one class in validation": (sample(1), (np.ones(10, int), sample(1)[1][:10])),
    "constant": ((sample(1)[0], np.full((80, 2), 0.5)), (sample(1)[0], np.full((80, 2), 0.5))),
    "one sample": ((np.array([1]), np.array([[0.2, 0.8]])), sample(2)),
    "one positive": ((np.arange(80) // 79, sample(1)[1]), sample(2)),
    "saturated": ((np.array([0, 1, 1, 0]), np.eye(2)[[0, 1, 0, 0]]), (np.array([0, 1, 0]), np.eye(2)[[0, 1, 1]])),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("draws", [0, 20])
def test_json_safe_and_complete_where_something_is_undefined(case, draws):
    (labels, probabilities), validation = CASES[case]
    options = {"groups": ["a"] * len(labels), "deploy_prevalence": [0.1], "bootstrap": draws}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clinical_metrics(labels, probabilities, validation=validation, **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    complete = clinical_metrics(*sample(1), validation=sample(2), deploy_prevalence=[0.1], bootstrap=draws)
    assert found.keys() == complete.keys()
    assert found["operating_points"].keys() == complete["operating_points"].keys() == RULES.keys()
    for rule, reached in found["operating_points"].items():
        assert tuple(reached) == DECISIONS
        if found["details"]["thresholds"][rule] is None:
            assert found["details"]["confusion"][rule] is None
            assert all(estimate["value"] is None for estimate in reached.values())
    if case == "no validation":
        assert [rule for rule, value in found["details"]["thresholds"].items() if value is not None] == ["half"]
        assert found["brier_scaled"]["value"] is None
        assert found["details"]["temperature"] is found["details"]["reliability_scaled"] is None
    if case == "one class":
        assert found["sensitivity_at_specificity_90"] == {"value": None, "low": None, "high": None}
        assert found["operating_points"]["half"]["sensitivity"]["value"] is None


def test_several_classes():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 90)
    probabilities = generator.dirichlet([1, 1, 1], 90)
    found = clinical_metrics(
        labels, probabilities, validation=(labels, probabilities), groups=["a", "b", "c"] * 30, bootstrap=10
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["brier"]["low"] <= found["brier"]["value"] <= found["brier"]["high"]
    assert "operating_points" not in found
    assert {row["n"] for row in found["details"]["groups"]} == {30}


@pytest.mark.parametrize(
    ("labels", "probabilities", "options", "message"),
    [
        ([0, 1], [0.2, 0.8], {}, r"must be \[n, classes\]"),
        ([0, 1], [[0.2, 0.9], [0.5, 0.5]], {}, "1 rows are no probabilities"),
        ([0, 1], [[-0.2, 1.2], [np.nan, 0.5]], {}, "2 rows are no probabilities"),
        ([0, 2], [[0.2, 0.8], [0.5, 0.5]], {}, "labels must be integers from 0"),
        ([0, 1], [[0.2, 0.8], [0.5, 0.5]], {"groups": ["a"]}, "groups has 1 entries for 2 labels"),
        ([0, 1], [[0.2, 0.8], [0.5, 0.5]], {"validation": ([0], [[0.5, 0.6]])}, "validation probabilities: 1 rows"),
        ([0, 1], [[0.2, 0.8], [0.5, 0.5]], {"validation": ([], np.zeros((0, 2)))}, "n >= 1"),
    ],
)
def test_bad_input_is_refused(labels, probabilities, options, message):
    with pytest.raises(ValueError, match=message):
        clinical_metrics(labels, probabilities, **options)
