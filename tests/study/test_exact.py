"""The sign-flip test against enumeration and a binomial."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from study.exact import sign_flip


@pytest.mark.parametrize("size", [1, 2, 5, 11])
def test_all_patterns_count(size: int) -> None:
    # Few distinct values: many patterns have equal sums, up to rounding.
    values = np.random.default_rng(size).normal(0.3, 0.5, size).round(1)
    signs = itertools.product((-1, 1), repeat=size)
    as_far = [abs(math.fsum(each * values)) > abs(math.fsum(values)) - 1e-9 for each in signs]
    assert sign_flip(values.tolist()) == np.mean(as_far)


def test_ties_zeros_and_many_pairs() -> None:
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.01, -0.01]) == 1.0
    assert sign_flip([0.01, 0.01, 0.0]) == 0.5
    assert sign_flip(np.linspace(0.1, 0.2, 30).tolist()) == 2**-29
    # Equal differences are a binomial.
    assert sign_flip([0.02] * 22 + [-0.02] * 8) == pytest.approx(stats.binomtest(22, 30).pvalue, rel=1e-9)
