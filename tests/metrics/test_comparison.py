"""Paired comparison: against naive draws, and its p-value under a true null hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from ttc.metrics.comparison import compare_scores
from ttc.metrics.delong import delong_test
from ttc.metrics.intervals import bootstrap_counts


def sample(seed, n=60, gap=0.0):
    generator = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    return positive, [np.round(generator.normal(positive * (1.0 + shift), 1.0), 1) for shift in (gap, 0.0)]


@pytest.mark.parametrize("seed", range(3))
def test_equals_naive_draws(seed):
    positive, scores = sample(seed, gap=0.5)
    decisions = [each >= 0.5 for each in scores]
    found = compare_scores(positive, scores, decisions, bootstrap=50, seed=seed)
    assert (found["n"], found["positives"], found["negatives"]) == (60, 20, 40)
    areas, shares = [], []
    for counts in bootstrap_counts(positive.astype(int), 50, seed):
        for row in counts.astype(int):
            picked = np.repeat(np.arange(60), row)
            areas.append([sk.roc_auc_score(positive[picked], each[picked]) for each in scores])
            shares.append([sk.balanced_accuracy_score(positive[picked], each[picked]) for each in decisions])
    for name, draws in (("auroc", areas), ("balanced_accuracy", shares)):
        differences = np.subtract(*np.array(draws).T)
        test = found[name]["bootstrap"]
        assert [test["low"], test["high"]] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-10)
    first, second = (sk.roc_auc_score(positive, each) for each in scores)
    assert found["auroc"]["difference"] == pytest.approx(first - second, abs=1e-12)
    assert found["auroc"]["delong"] == delong_test(positive, *scores)


def test_equal_runs_do_not_differ():
    positive, (scores, _) = sample(0)
    found = compare_scores(positive, [scores, scores], [scores > 0.5] * 2, bootstrap=100)
    for name in ("auroc", "balanced_accuracy"):
        assert found[name]["difference"] == 0
        assert found[name]["bootstrap"] == {"low": 0.0, "high": 0.0}
        assert found[name]["exchange"] == {"p": 1.0}
    assert found["auroc"]["delong"]["p"] is None


def test_order_of_the_runs_only_changes_the_sign():
    positive, (first, second) = sample(1, n=200, gap=1.0)
    one = compare_scores(positive, [first, second], [first > 0.5, second > 0.5], bootstrap=400)
    other = compare_scores(positive, [second, first], [second > 0.5, first > 0.5], bootstrap=400)
    for name in ("auroc", "balanced_accuracy"):
        assert other[name]["difference"] == -one[name]["difference"]
        assert other[name]["exchange"]["p"] == one[name]["exchange"]["p"]
        assert other[name]["bootstrap"]["low"] == pytest.approx(-one[name]["bootstrap"]["high"], abs=1e-12)
    assert one["auroc"]["exchange"]["p"] < 0.05
    assert one["auroc"]["delong"]["p"] < 0.05


def test_both_tests_keep_their_level():
    """120 pairs of equally good scores, seeds 0 to 119: about 5 % may look different (binomial 99.9 %: at most 15)."""
    alarms = {"delong": 0, "exchange": 0}
    for seed in range(120):
        positive, scores = sample(seed, n=90)
        found = compare_scores(positive, scores, [each > 0.5 for each in scores], bootstrap=400, seed=seed)["auroc"]
        for name in alarms:
            alarms[name] += found[name]["p"] < 0.05
    assert max(alarms.values()) <= 15, alarms


def test_exchange_equals_all_swaps_of_a_small_set():
    """Eight samples have 256 swaps, of which the test draws some: its p-value is near the share among all of them."""
    generator = np.random.default_rng(3)
    positive = np.arange(8) < 3
    scores = [generator.normal(2.0 * positive, 1.0), generator.normal(0.3 * positive, 1.0)]
    decisions = [each > 0.5 for each in scores]
    ranks = [np.argsort(np.argsort(each)) for each in scores]

    def differences(swaps):
        first, second = (np.where(swaps, ranks[1 - k], ranks[k]) for k in (0, 1))
        calls = [np.where(swaps, decisions[1 - k], decisions[k]) for k in (0, 1)]
        return (
            sk.roc_auc_score(positive, first) - sk.roc_auc_score(positive, second),
            sk.balanced_accuracy_score(positive, calls[0]) - sk.balanced_accuracy_score(positive, calls[1]),
        )

    every = np.abs([differences(np.array(list(f"{number:08b}")) == "1") for number in range(256)])
    expected = (every >= np.abs(differences(np.zeros(8, bool))) - 1e-9).mean(axis=0)
    found = compare_scores(positive, scores, decisions, bootstrap=4000)
    for name, share in zip(("auroc", "balanced_accuracy"), expected, strict=True):
        assert found[name]["exchange"]["p"] == pytest.approx(share, abs=0.03), name
