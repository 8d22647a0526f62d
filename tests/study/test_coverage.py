"""The simulation behind docs/coverage.md: its small run keeps the promises, and the page shows a long one that does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from study import coverage
from study.coverage import table
from tests.processes import ROOT
from ttc.metrics.intervals import FEW

LEAST = 0.93


def check(rows: list, rejected: dict[str, float], slack: float) -> None:  # type: ignore[type-arg]  # of Row
    """Compare with what is promised, less what chance may take in the simulation."""
    for number, truth, kind, positives, held, _, least in rows:
        assert held >= LEAST - slack, (number, truth, kind, positives, held)
        assert least > 0.001
    for name, share in rejected.items():
        assert share <= 0.06 + slack, name


def test_small_run() -> None:
    rows, rejected = table(30)
    check(rows, rejected, slack=3 * math.sqrt(0.07 * 0.93 / 30))


@pytest.mark.slow
def test_long_run() -> None:
    rows, rejected = table(2000)
    check(rows, rejected, slack=0.0)


def test_page_shows_what_was_promised() -> None:
    text = (ROOT / "docs" / "coverage.md").read_text()
    single, whole = (
        [line.split("|") for line in part.splitlines() if line[:1] == "|"]
        for part in text.split("## Whole evaluations")
    )
    shares = [float(line[5]) for line in single if len(line) == 9 and line[5].strip()[0].isdigit()]
    rejected = [float(line[2]) for line in single if len(line) == 4 and "exchange test" in line[1]]
    assert (len(shares), len(rejected)) == (30, 2)
    assert min(shares) >= 100 * LEAST
    assert max(rejected) <= 6.0
    lines = [[cell.strip() for cell in line[1:6]] for line in whole if line[5].strip()[0].isdigit()]
    assert len(lines) == 2 * len(coverage.TOTALS) * len(coverage.POSITIVES) * len(coverage.NUMBERS)
    below = text.splitlines()[-1]
    for number, _, kind, positives, share in lines:
        assert share.endswith("~") == (float(share.split()[0]) < 100 * LEAST)
        if share.endswith("~"):
            assert f"{number}, {kind}, {positives}" in below
            # Tables mark such numbers as rough; else it may be chance of the simulation, two standard errors.
            chance = 200 * math.sqrt(LEAST * (1 - LEAST) / 200)
            assert int(positives.split()[0]) < FEW or float(share.split()[0]) > 100 * LEAST - chance


def test_truth_of_whole_evaluations_is_that_of_a_large_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    gap, generator, samples = 1.8, np.random.default_rng(0), 400_000
    truths = coverage.truths(gap, 0.1)
    labels = np.arange(samples) < samples // 10
    chances = expit(gap * (generator.normal(size=samples) + gap * labels) - gap**2 / 2 + logit(0.1))
    called = chances >= 0.5
    treated = chances >= coverage.BENEFIT
    net = (treated & labels).mean() - (treated & ~labels).mean() * coverage.BENEFIT / (1 - coverage.BENEFIT)
    expected = [
        None, called[labels].mean(), average_precision_score(labels, chances), balanced_accuracy_score(labels, called),
        f1_score(labels, called), net, ((chances - labels) ** 2).mean(),
    ]  # fmt: skip
    assert list(truths) == list(coverage.NUMBERS)
    for truth, value in list(zip(truths.values(), expected, strict=True))[1:]:
        assert truth == pytest.approx(value, abs=0.005)
    for name, value in (("TOTALS", (100,)), ("POSITIVES", (20,)), ("DRAWS", 20)):
        monkeypatch.setattr(coverage, name, value)
    rows = list(coverage.evaluations(3, np.random.default_rng(0)))
    assert [row[0] for row in rows] == 2 * list(coverage.NUMBERS.values())
    assert all(row[5] > 0 and row[3] == "20 of 100" for row in rows)
