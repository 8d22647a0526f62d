"""DeLong against pROC (tests/metrics/proc/reference.R), against the definition, and against the bootstrap."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ttc.metrics import curves
from ttc.metrics.delong import delong, delong_test
from ttc.metrics.intervals import bootstrap

FOLDER = Path(__file__).parent / "proc"
MARKERS = ("s100b", "ndka", "wfns")
PAIRS = (("s100b", "ndka"), ("s100b", "wfns"), ("wfns", "ndka"))


def asah():
    with (FOLDER / "asah.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return columns["outcome"] == 1, columns


def reference():
    values = defaultdict(dict)
    with (FOLDER / "reference.csv").open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            values[row["subject"]][row["quantity"]] = float(row["value"])
    return values


@pytest.mark.parametrize("marker", MARKERS)
def test_interval_equals_proc(marker):
    positive, columns = asah()
    assert (positive.sum(), (~positive).sum()) == (41, 72)
    found, expected = delong(positive, columns[marker]), reference()[marker]
    assert found["value"] == pytest.approx(expected["auc"], abs=1e-10)
    for name in ("variance", "low", "high"):
        assert found[name] == pytest.approx(expected[name], abs=1e-10), name


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_paired_test_equals_proc(pair):
    positive, columns = asah()
    values = reference()
    found, expected = delong_test(positive, *(columns[name] for name in pair)), values["-".join(pair)]
    for name in ("z", "p", "low", "high"):
        assert found[name] == pytest.approx(expected[name], abs=1e-10), name
    first, second = (values[name] for name in pair)
    variance = first["variance"] + second["variance"] - 2 * expected["covariance"]
    assert found["variance"] == pytest.approx(variance, abs=1e-10)
    assert found["difference"] == pytest.approx(first["auc"] - second["auc"], abs=1e-10)


def naive(positive, scores):
    """The structural components of the paper, pair by pair."""
    wins = [[(p > n) + 0.5 * (p == n) for n in scores[~positive]] for p in scores[positive]]
    return np.mean(wins, axis=1), np.mean(wins, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed):
    generator = np.random.default_rng(seed)
    positive = np.arange(40) % 4 == 0
    first, second = (np.round(generator.normal(positive * 0.8, 1.0), 1) for _ in range(2))
    (over_a, under_a), (over_b, under_b) = naive(positive, first), naive(positive, second)
    single = delong(positive, first)
    assert single["value"] == pytest.approx(over_a.mean(), abs=1e-12)
    assert single["variance"] == pytest.approx(over_a.var(ddof=1) / 10 + under_a.var(ddof=1) / 30, abs=1e-12)
    paired = delong_test(positive, first, second)
    over, under = np.cov(over_a, over_b) / 10, np.cov(under_a, under_b) / 30
    contrast = np.array([1, -1])
    assert paired["variance"] == pytest.approx(contrast @ (over + under) @ contrast, abs=1e-12)


def test_agrees_with_the_bootstrap():
    """Seed 0; 160 positive and 640 negative samples, where both are near their limit."""
    generator = np.random.default_rng(0)
    positive = np.arange(800) % 5 == 0
    scores = generator.normal(positive * 1.2, 1.0)
    ranking = curves.ranking_curves(positive, scores)
    draws = bootstrap(lambda counts: {"auroc": curves.area(ranking(counts))}, positive.astype(int), 4000, 0)["auroc"]
    found = delong(positive, scores)
    assert draws.std() == pytest.approx(np.sqrt(found["variance"]), rel=0.05)
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.005)


def test_scale_of_the_scores_does_not_matter():
    positive, columns = asah()
    assert delong(positive, np.exp(columns["s100b"]) * 7) == delong(positive, columns["s100b"])


def test_undefined():
    scores = np.array([0.1, 0.4, 0.8])
    none = {"value": None, "variance": None, "low": None, "high": None}
    assert delong(np.ones(3, bool), scores) == delong(np.zeros(3, bool), scores) == none
    assert delong(np.array([False, False, True]), scores) == {**none, "value": 1.0}
    positive = np.array([True, False, True, False])
    equal = delong_test(positive, np.array([0.3, 0.2, 0.1, 0.4]), np.array([3.0, 2.0, 1.0, 4.0]))
    assert (equal["difference"], equal["variance"], equal["z"], equal["p"]) == (0.0, 0.0, None, None)
    assert delong_test(np.ones(2, bool), scores[:2], scores[:2])["difference"] is None
    constant = delong(positive, np.zeros(4))
    assert constant == {"value": 0.5, "variance": 0.0, "low": None, "high": None}
