"""The simulation behind docs/coverage.md: its small run keeps the promises, and the page shows a long one that does."""

from __future__ import annotations

import math

import pytest

from study.coverage import table
from tests.processes import ROOT

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
    lines = [line.split("|") for line in (ROOT / "docs" / "coverage.md").read_text().splitlines() if line[:1] == "|"]
    shares = [float(line[5]) for line in lines if len(line) == 9 and line[5].strip()[0].isdigit()]
    rejected = [float(line[2]) for line in lines if len(line) == 4 and "exchange test" in line[1]]
    assert (len(shares), len(rejected)) == (30, 2)
    assert min(shares) >= 100 * LEAST
    assert max(rejected) <= 6.0
