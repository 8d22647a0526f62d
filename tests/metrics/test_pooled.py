"""Pooled folds against naive computations: decisions at each fold's threshold, ranking at one prevalence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from ttc.metrics.clinic.pooled import pooled_metrics

FOLDS = 3


def sample(seed=0, n=180, rare=0.25):
    """Three models whose scores have different scales; groups of three samples, each in one fold."""
    generator = np.random.default_rng(seed)
    fold = np.repeat(np.arange(FOLDS), n // FOLDS)
    positive = generator.random(n) < rare
    positive[::60], positive[1::60] = True, False
    logits = generator.normal(1.5 * positive, 1.0) * np.array([1.0, 3.0, 0.4])[fold] + np.array([0.0, -4.0, 3.0])[fold]
    scores = 1.0 / (1.0 + np.exp(-logits))
    odds = (logits - np.array([0.0, -4.0, 3.0])[fold]) / np.array([1.0, 3.0, 0.4])[fold]
    shares = np.array([positive[fold == k].mean() for k in range(FOLDS)])
    made = 1.0 / (1.0 + np.exp(-(odds + np.log(shares / (1.0 - shares))[fold])))
    thresholds = [{"half": 0.5, "youden": limit, "f1": None if k else 0.4} for k, limit in enumerate((0.6, 0.1, 0.97))]
    return positive, scores, made, thresholds, fold, odds


def values(report, rule):
    return {name: each["value"] for name, each in report["operating_points"][rule].items()}


def test_equals_naive_pooling():
    positive, scores, made, thresholds, fold, odds = sample()
    report = pooled_metrics(positive, scores, made, thresholds, fold, bootstrap=60)
    assert (report["n"], report["class_counts"]) == (180, [(~positive).sum(), positive.sum()])
    assert report["ranked_by"] == "probabilities"
    # At one prevalence the probabilities rank as the odds do that they were made of.
    assert report["auroc"]["value"] == pytest.approx(sk.roc_auc_score(positive, odds), abs=1e-12)
    assert report["auroc"]["value"] > sk.roc_auc_score(positive, scores) + 0.02, "scores of three scales mix"
    assert report["auprc"]["value"] == pytest.approx(sk.average_precision_score(positive, odds), abs=1e-12)
    areas = [sk.roc_auc_score(positive[fold == k], scores[fold == k]) for k in range(FOLDS)]
    assert report["auroc_mean_of_folds"]["value"] == pytest.approx(np.mean(areas), abs=1e-12)
    called = scores >= 0.5
    assert report["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(positive, called))
    called = scores >= np.array([0.6, 0.1, 0.97])[fold]
    youden = values(report, "youden")
    assert youden["sensitivity"] == pytest.approx(called[positive].mean())
    assert youden["specificity"] == pytest.approx((~called[~positive]).mean())
    assert youden["ppv"] == pytest.approx(positive[called].mean())
    assert youden["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(positive, called))
    assert set(values(report, "f1").values()) == {None}, "a fold has no such threshold"
    after = report["calibration"]["after"]
    shares = np.array([positive[fold == k].mean() for k in range(FOLDS)])[fold]
    moved = made / (1 - made) * (1 - shares) / shares * positive.mean() / (1 - positive.mean())
    assert after["brier"]["value"] == pytest.approx(np.mean((moved / (1 + moved) - positive) ** 2), abs=1e-12)
    for name in ("auroc", "auprc", "balanced_accuracy", "auroc_mean_of_folds"):
        assert report[name]["low"] < report[name]["value"] < report[name]["high"], name


def test_groups_widen_intervals_and_missing_probabilities_leave_scores():
    positive, scores, made, thresholds, fold, _ = sample(1)
    positive = np.repeat(positive[::3], 3)
    scores, made = np.repeat(scores[::3], 3), np.repeat(made[::3], 3)
    groups = [f"p{k // 3}" for k in range(180)]
    alone = pooled_metrics(positive, scores, made, thresholds, fold, bootstrap=200)
    together = pooled_metrics(positive, scores, made, thresholds, fold, groups=groups, bootstrap=200)
    for name in ("auroc", "balanced_accuracy", "auroc_mean_of_folds"):
        widths = [report[name]["high"] - report[name]["low"] for report in (alone, together)]
        assert widths[1] > 1.3 * widths[0], name
    assert together["intervals"]["rests_on"].startswith(f"{positive.sum()} positives of {positive.sum() // 3} groups")
    report = pooled_metrics(positive, scores, None, thresholds, fold, bootstrap=0)
    assert report["ranked_by"] == "scores"
    assert report["auroc"]["value"] == pytest.approx(sk.roc_auc_score(positive, scores))
    assert report["auroc"]["low"] is report["auroc_mean_of_folds"]["low"] is None
    assert "calibration" not in report
