"""Matched runs of two methods: each test against what it claims, and the level under a true null hypothesis."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ttc.metrics.clinic.matched import Pair, compare_matched
from ttc.metrics.delong import delong_test


def runs(seeds=3, positives=12, negatives=40, gap=0.0, seed=0, spread=0.3, groups=1):
    """Two methods on the same images: images are hard or easy for both, networks differ, and each errs on its own."""
    generator = np.random.default_rng(seed)
    positive = np.arange(positives + negatives) < positives
    units = [f"p{k // groups}" for k in range(len(positive))]
    common = generator.normal(1.2 * positive, 1.0)
    of_method = generator.normal(0.0, 0.4, (2, len(positive)))
    pairs = []
    for number in range(seeds):
        quality = generator.normal([gap, 0.0], spread)
        noise = generator.normal(0.0, 0.3, (2, len(positive)))
        first, second = common + of_method + positive * quality[:, None] + noise
        pairs.append(Pair(number, positive, (first, second), (first > 0.6, second > 0.6), units))
    return pairs


def folds_of(pair, count, shift=0.0):
    """Divide the images of a pair among folds; the scores of each fold have a scale of their own."""
    fold = np.arange(len(pair.positive_N)) % count
    return [
        Pair(
            pair.seed,
            pair.positive_N[fold == k],
            tuple(scores[fold == k] + shift * k for scores in pair.scores),
            tuple(decided[fold == k] for decided in pair.decisions),
            [unit for unit, own in zip(pair.units, fold, strict=True) if own == k],
        )
        for k in range(count)
    ]


def areas(pair):
    return np.array([sk.roc_auc_score(pair.positive_N, scores) for scores in pair.scores])


def test_values_are_means_over_seeds():
    pairs = runs(gap=0.5)
    found = compare_matched(pairs, draws=20)
    assert (found["seeds"], found["pairs"], found["units"]) == (3, 3, 52)
    expected = np.array([areas(pair) for pair in pairs])
    assert [found["auroc"]["first"], found["auroc"]["second"]] == pytest.approx(expected.mean(axis=0), abs=1e-12)
    assert found["auroc"]["by_seed"] == pytest.approx(expected[:, 0] - expected[:, 1], abs=1e-12)
    recalls = [[sk.balanced_accuracy_score(pair.positive_N, called) for called in pair.decisions] for pair in pairs]
    assert found["balanced_accuracy"]["by_seed"] == pytest.approx(-np.diff(recalls, axis=1)[:, 0], abs=1e-12)


def test_folds_are_ranked_apart_and_decided_together():
    whole = runs(seeds=2, positives=15, negatives=46, gap=0.4)
    parts = [part for pair in whole for part in folds_of(pair, 3, shift=5.0)]
    found = compare_matched(parts, draws=20)
    expected = [np.mean([np.subtract(*areas(part)) for part in parts[3 * k : 3 * k + 3]]) for k in (0, 1)]
    assert found["auroc"]["by_seed"] == pytest.approx(expected, abs=1e-12)
    plain = compare_matched(whole, draws=20)["balanced_accuracy"]
    assert found["balanced_accuracy"]["by_seed"] == pytest.approx(plain["by_seed"], abs=1e-12)
    assert found["balanced_accuracy"]["first"] == pytest.approx(plain["first"], abs=1e-12)
    assert found["units"] == 61
    alone = compare_matched(parts[:3], draws=20)["auroc"]
    differences = [np.subtract(*areas(part)) for part in parts[:3]]
    error = np.sqrt(np.var(differences, ddof=1) * (1 / 3 + 1 / 2))
    assert alone["both"]["test"] == "folds of one seed"
    assert alone["both"]["p"] == pytest.approx(2 * stats.t.sf(abs(np.mean(differences)) / error, 2), rel=1e-9)
    assert alone["seeds"] == {"p": None, "smallest": None}
    assert compare_matched(whole[:1], draws=20)["auroc"]["both"] is None


@pytest.mark.parametrize("groups", [1, 4])
def test_seeds_that_agree_leave_the_variance_over_images(groups):
    """Equal seeds: no variance over them, and the one over images is DeLong's, with groups Obuchowski's."""
    (pair,) = runs(seeds=1, gap=0.5, groups=groups)
    twins = [Pair(k, pair.positive_N, pair.scores, pair.decisions, pair.units) for k in range(4)]
    both = compare_matched(twins, draws=20)["auroc"]["both"]
    owners = np.array([int(unit[1:]) for unit in pair.units])
    expected = delong_test(pair.positive_N, *pair.scores, owners if groups > 1 else None)
    assert both["df"] == pytest.approx(6.0)
    half = stats.t.ppf(0.975, 6) * np.sqrt(expected["variance"])
    assert both["high"] - both["low"] == pytest.approx(2 * half, rel=1e-9 if groups == 1 else 0.02)


def test_exchange_and_signs_equal_all_that_there_are():
    """Six images in two seeds: 64 exchanges, which take an image in both seeds; three seeds have eight signs."""
    generator = np.random.default_rng(5)
    positive, units = np.arange(6) < 3, list("abcdef")
    pairs = [
        Pair(k, positive, (first, second), (first > 0.4, second > 0.4), units)
        for k, (first, second) in enumerate(generator.normal(0.8 * positive, 1.0, (3, 2, 6)))
    ]

    def differences(swapped):
        areas_of, recalls = [], []
        for pair in pairs:
            ranked = [np.argsort(np.argsort(scores)) for scores in pair.scores]
            mixed = [np.where(swapped, ranked[1 - k], ranked[k]) for k in (0, 1)]
            called = [np.where(swapped, pair.decisions[1 - k], pair.decisions[k]) for k in (0, 1)]
            areas_of.append(np.subtract(*(sk.roc_auc_score(positive, each) for each in mixed)))
            recalls.append(np.subtract(*(sk.balanced_accuracy_score(positive, each) for each in called)))
        return np.mean(areas_of), np.mean(recalls)

    every = np.abs([differences(np.array(swaps)) for swaps in itertools.product([False, True], repeat=6)])
    expected = (every >= every[0] - 1e-9).mean(axis=0)
    found = compare_matched(pairs, draws=4000)
    for name, share in zip(("auroc", "balanced_accuracy"), expected, strict=True):
        assert found[name]["images"]["p"] == pytest.approx(share, abs=0.03), name
    by_seed = np.array(found["auroc"]["by_seed"])
    sums = [abs(np.dot(signs, by_seed)) for signs in itertools.product([1, -1], repeat=3)]
    assert found["auroc"]["seeds"] == {"p": np.mean(np.array(sums) >= sums[0] - 1e-12), "smallest": 0.25}


def rejected(repetitions, **settings):
    """Count how often the tests over both and over images find a difference where methods are equally good."""
    counts = np.zeros(2, dtype=int)
    for seed in range(repetitions):
        found = compare_matched(runs(seed=seed, **settings), draws=99, seed=seed)["auroc"]
        counts += [found["both"]["p"] < 0.05, found["images"]["p"] <= 0.05]
    return counts


def test_the_test_over_both_keeps_its_level_where_networks_differ():
    """60 repetitions: at most 9 with a level of 6 % (binomial 99.7 %); over images alone it is no test of methods."""
    both, images = rejected(60, seeds=3, spread=0.6)
    assert both <= 9
    assert images >= 15


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (2, 0.6), (3, 0.0), (3, 0.3), (3, 0.6), (5, 0.0), (5, 0.6)])
def test_the_level_is_kept_for_any_number_of_seeds(seeds, spread):
    """600 repetitions: 6 % is 36, up to 51 by chance (binomial 99.5 %)."""
    assert rejected(600, seeds=seeds, spread=spread)[0] <= 51


def test_a_real_difference_is_found():
    found = compare_matched(runs(seeds=5, positives=40, negatives=120, gap=1.2, spread=0.1), draws=200)["auroc"]
    assert found["both"]["p"] < 0.01
    assert found["images"]["p"] < 0.01
    assert found["both"]["low"] > 0
    assert found["seeds"] == {"p": 0.0625, "smallest": 0.0625}, "five seeds that agree cannot get below 0.05"
