"""Intervals without draws: against R (tests/metrics/r/reference.R), a published table, scipy, and their promises."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit
from scipy.stats import binomtest

from ttc.metrics.calibration import intercept_and_slope
from ttc.metrics.clinic.auroc import auroc, clustered_limits, joined_limits, newcombe
from ttc.metrics.clinic.independent import difference
from ttc.metrics.clinic.proportions import clopper_pearson, effective_samples, proportion
from ttc.metrics.intervals import Estimate, basis

FOLDER = Path(__file__).parent

with (FOLDER / "r" / "reference.csv").open() as file:
    REFERENCE = list(csv.DictReader(line for line in file if not line.startswith("#")))


def rows(what: str) -> list[tuple[list[float], list[float]]]:
    """Return the arguments and the limits of one kind of lines."""
    chosen = [row for row in REFERENCE if row["what"] == what]
    arguments = [[float(row[name]) for name in ("first", "second", "third") if row[name]] for row in chosen]
    return list(zip(arguments, ([float(row["low"]), float(row["high"])] for row in chosen), strict=True))


def test_limits_equal_r() -> None:
    for (hits, samples), limits in rows("clopper-pearson"):
        assert np.ravel(clopper_pearson(hits, samples)) == pytest.approx(limits, abs=1e-10)
    for arguments, limits in rows("newcombe"):
        assert np.ravel(newcombe(*arguments)) == pytest.approx(limits, abs=1e-9), arguments


@pytest.mark.parametrize(
    ("hits", "samples", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_limits_equal_the_published_table(hits: int, samples: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 5."""
    found = proportion(np.arange(samples) < hits)
    assert [found["low"], found["high"]] == pytest.approx([low, high], abs=5e-5)


def test_limits_of_all_shares_equal_scipy() -> None:
    for samples in (1, 7, 30):
        hits = np.arange(samples + 1)
        exact = [binomtest(int(k), samples).proportion_ci(method="exact") for k in hits]
        assert np.transpose(clopper_pearson(hits, samples)) == pytest.approx(np.array(exact), abs=1e-10)


def test_calibration_equals_rs_regression() -> None:
    with (FOLDER / "proc" / "asah.csv").open() as file:
        table = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in table]) for name in ("outcome", "s100b", "wfns")}
    wfns, s100b = ((columns[name] - columns[name].mean()) / columns[name].std(ddof=1) for name in ("wfns", "s100b"))
    chances = expit(-2 + 1.3 * wfns + 0.6 * s100b)
    found = intercept_and_slope(columns["outcome"].astype(np.int64), np.stack([1 - chances, chances], axis=1))
    for name in ("intercept", "slope"):
        (row,) = (row for row in REFERENCE if row["what"] == name)
        for end in ("value", "low", "high"):
            assert found[name][end] == pytest.approx(float(row[end]), abs=1e-7), name  # type: ignore[literal-required]


def test_groups_of_equal_samples_count_once_and_independent_ones_fully() -> None:
    generator = np.random.default_rng(0)
    hits = generator.random(40) < 0.3
    assert effective_samples(np.repeat(hits, 6), np.repeat(np.arange(40), 6)) == pytest.approx(40, abs=1e-9)
    # 400 groups of five independent samples: nearly as good as 2,000 samples.
    many = generator.random(2000) < 0.3
    assert 1500 < effective_samples(many, np.repeat(np.arange(400), 5)) <= 2000
    assert effective_samples(np.ones(50, dtype=bool), np.repeat(np.arange(10), 5)) == 10


def few_groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, probabilities of class 1, and seven groups that differ, of different sizes."""
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(7), [4, 6, 8, 10, 12, 14, 16])
    odds = generator.normal(size=len(groups))
    chances = 1 / (1 + np.exp(-(0.8 * odds + generator.normal(size=7)[groups])))
    return (generator.random(len(groups)) < chances).astype(np.int64), 1 / (1 + np.exp(-odds)), groups


def test_calibration_of_few_groups_is_the_sandwich_written_out() -> None:
    labels, probabilities, groups = few_groups()
    odds = np.log(probabilities / (1 - probabilities))
    found = intercept_and_slope(labels, np.stack([1 - probabilities, probabilities], axis=1), groups)
    for name, columns, offsets in (
        ("intercept", np.ones((len(odds), 1)), odds),
        ("slope", np.stack([np.ones_like(odds), odds], axis=1), np.zeros_like(odds)),
    ):

        def loss(guess: np.ndarray, columns: np.ndarray = columns, offsets: np.ndarray = offsets) -> float:
            values = columns @ guess + offsets
            return float((np.logaddexp(0, values) - labels * values).sum())

        guess = optimize.minimize(loss, np.zeros(columns.shape[1]), tol=1e-12).x
        chances = 1 / (1 + np.exp(-(columns @ guess + offsets)))
        bread, meat = np.zeros((len(guess), len(guess))), np.zeros((len(guess), len(guess)))
        for column, chance in zip(columns, chances, strict=True):
            bread += chance * (1 - chance) * np.outer(column, column)
        for group in range(7):
            score = ((labels - chances)[:, None] * columns)[groups == group].sum(0)
            meat += np.outer(score, score)
        variance = 7 / 6 * (np.linalg.inv(bread) @ meat @ np.linalg.inv(bread))[-1, -1]
        both_classes = min(len(set(groups[labels == label])) for label in (0, 1))
        margin = stats.t.ppf(0.975, both_classes - 1) * np.sqrt(variance)
        expected = (guess[-1], guess[-1] - margin, guess[-1] + margin)
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == pytest.approx(expected, rel=1e-5)


def test_effective_samples_of_few_groups_written_out() -> None:
    labels, _, groups = few_groups()
    share = labels.mean()
    spread = sum((labels[groups == group].sum() - share * (groups == group).sum()) ** 2 for group in range(7))
    effective = len(labels) / (spread / (len(labels) * share * (1 - share)))
    assert 7 < effective < len(labels)
    ratio = stats.t.ppf(0.975, effective - 1) / stats.t.ppf(0.975, 6)
    assert effective_samples(labels == 1, groups) == pytest.approx(effective * ratio**2, rel=1e-12)


def test_no_interval_has_zero_width() -> None:
    for positives, negatives in ((1, 1), (1, 50), (5, 5), (10, 90), (60, 1000)):
        areas = np.array([0.0, 0.2, 0.5, 0.98, 1.0])
        for low, high in (newcombe(areas, positives, negatives), joined_limits(areas, positives, negatives)):
            assert (low <= areas).all()
            assert (areas <= high).all()
            assert (high - low > 1e-3).all()
    for area, variance in ((1.0, 0.0), (0.5, 0.0), (0.99, 1e-9), (0.7, 0.01)):
        low, high = clustered_limits(area, variance, 4, 30)
        assert low <= area <= high
        assert high - low > 0.1 or variance == 1e-9
    separated = auroc(np.arange(40) < 10, -np.arange(40.0))
    assert separated["value"] == separated["high"] == 1.0
    assert separated["low"] == pytest.approx(clopper_pearson(10, 10)[0])
    patients = auroc(np.arange(40) < 10, -np.arange(40.0), np.arange(40) // 5)
    assert patients["low"] == pytest.approx(clopper_pearson(2, 2)[0])


def test_near_the_edge_the_exact_interval_of_the_smaller_class_is_joined() -> None:
    assert joined_limits(0.96, 10, 90) == newcombe(0.96, 10, 90)
    assert joined_limits(0.99, 50, 90) == newcombe(0.99, 50, 90)
    for area, sides in ((0.99, (10, 90)), (0.99, (90, 10)), (0.01, (10, 90))):
        low, high = joined_limits(area, *sides)
        exact = clopper_pearson(10 * area, 10)
        assert (low, high) == (min(exact[0], newcombe(area, *sides)[0]), max(exact[1], newcombe(area, *sides)[1]))


@pytest.mark.parametrize(
    ("positives", "groups", "words"),
    [
        (11, 9, "11 positives of 9 patients: rough"),
        (19, None, "19 positives: rough"),
        (20, None, "20 positives"),
        (40, 20, "40 positives of 20 patients"),
        (195, None, "5 negatives: rough"),
    ],
)
def test_words_say_what_an_interval_rests_on(positives: int, groups: int | None, words: str) -> None:
    labels = (np.arange(200) < positives).astype(np.int64)
    numbers = None if groups is None else np.where(labels == 1, np.arange(200) % groups, 200 + np.arange(200))
    numbers = None if numbers is None else np.unique(numbers, return_inverse=True)[1]
    found = basis(labels, 2, numbers, "patients")
    assert (found["rests_on"], found["rough"]) == (words, words.endswith("rough"))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_difference_equals_the_published_table(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), interval estimation for the difference, table II, method 10."""
    parts: list[Estimate] = []
    for hits, samples in (first, second):
        ends = binomtest(hits, samples).proportion_ci(method="wilson")
        parts.append({"value": hits / samples, "low": ends.low, "high": ends.high})
    found = difference(*parts)
    assert [found["low"], found["high"]] == pytest.approx([low, high], abs=5e-5)
