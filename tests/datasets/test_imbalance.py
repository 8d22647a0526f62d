from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc.datasets.imbalance import apportion, draw_subset, hash_order, subset_counts

NAMES = ["major", "minor"]
ROOT = Path(__file__).parents[2]


def test_hash_order_is_the_documented_hash() -> None:
    ids = [f"img/{k}" for k in range(50)]
    keys = {i: hashlib.blake2b(f"3:split:{i}".encode(), digest_size=8).hexdigest() for i in ids}
    assert [ids[k] for k in hash_order(ids, 3, "split")] == sorted(ids, key=keys.__getitem__)


def test_hash_order_does_not_depend_on_the_listing_order() -> None:
    ids = [f"img/{k}" for k in range(100)]
    mixed = [ids[k] for k in np.random.default_rng(0).permutation(100)]
    assert [ids[k] for k in hash_order(ids, 0, "subset")] == [mixed[k] for k in hash_order(mixed, 0, "subset")]


def test_equal_hashes_are_ordered_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:  # 256 values, 300 ids
        def __init__(self, content: bytes, digest_size: int) -> None:
            self._digest = hashlib.blake2b(content, digest_size=1).digest() + bytes(digest_size - 1)

        def digest(self) -> bytes:
            return self._digest

    monkeypatch.setattr("ttc.datasets.imbalance.blake2b", Short)
    ids = [f"img/{k}" for k in np.random.default_rng(1).permutation(300)]
    expected = sorted(ids, key=lambda i: (hashlib.blake2b(f"3:split:{i}".encode(), digest_size=1).digest(), i))
    assert [ids[k] for k in hash_order(ids, 3, "split")] == expected


def test_names_with_line_feeds_and_bytes_that_are_no_text_are_hashed_one_by_one() -> None:
    ids = ["a\nb", "", "\udcff", *(f"img/{k}" for k in range(50))]
    expected = sorted(
        ids, key=lambda i: hashlib.blake2b(f"3:x:{i}".encode(errors="surrogateescape"), digest_size=8).digest()
    )
    assert [ids[k] for k in hash_order(ids, 3, "x")] == expected
    assert [ids[1:][k] for k in hash_order(ids[1:], 3, "x")] == [i for i in expected if i != "a\nb"]
    assert hash_order([], 3, "x") == []


def test_hash_order_changes_with_seed_and_purpose() -> None:
    ids = [f"img/{k}" for k in range(100)]
    orders = {tuple(hash_order(ids, seed, purpose)) for seed in (0, 1) for purpose in ("split", "subset")}
    assert len(orders) == 4


def test_hash_order_is_the_same_in_another_process() -> None:
    code = "from ttc.datasets.imbalance import hash_order; print(hash_order([str(k) for k in range(20)], 7, 'x'))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(hash_order([str(k) for k in range(20)], 7, "x"))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.floats(0, 1))
def test_apportion_is_exact_and_within_one_of_the_share(sizes: list[int], fraction: float) -> None:
    total = int(fraction * sum(sizes))
    quotas = apportion(sizes, total)
    assert sum(quotas) == total
    for size, quota in zip(sizes, quotas, strict=True):
        assert 0 <= quota <= size
        assert abs(quota - size * total / max(sum(sizes), 1)) < 1


@pytest.mark.parametrize(
    ("total", "ratios", "expected"),
    [
        (5000, (0.99, 0.01), [4950, 50]),
        (100, (0.71, 0.29), [71, 29]),
        (100, (1 - 0.29, 0.29), [71, 29]),
        (5000, (0.9, 1 - 0.9), [4500, 500]),
        (640, (0.97, 0.03), [620, 19]),
        (999, (0.5, 0.5), [499, 499]),
    ],
)
def test_ratio_counts_are_the_floor_without_rounding_error(
    total: int, ratios: tuple[float, float], expected: list[int]
) -> None:
    assert subset_counts([10_000, 10_000], NAMES, ratios, total) == expected


@pytest.mark.parametrize("percent", range(1, 100))
def test_every_percentage_of_5000_is_exact(percent: int) -> None:
    counts = subset_counts([6000, 5000], NAMES, (1 - percent / 100, percent / 100), None)
    assert counts == [5000 - 50 * percent, 50 * percent]


def test_total_is_capped_by_the_smallest_class() -> None:
    assert subset_counts([900, 300], NAMES, (0.9, 0.1), 5000) == [270, 30]


def test_without_ratios_the_cap_keeps_the_shares() -> None:
    assert subset_counts([900, 300], NAMES, None, 100) == [75, 25]
    assert subset_counts([900, 300], NAMES, None, 5000) == [900, 300]


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ((0.9, 0.2), r"--class-ratios 0.9 0.2 sums to 1.1, not 1"),
        ((1.0,), r"has 1 values for 2 classes"),
        ((1.0, 0.0), r"must all be above 0"),
        ((float("nan"), 1.0), r"must all be above 0"),
        ((0.999, 0.001), r"0.999 0.001 of 300 samples leaves class 'minor' without a training sample"),
    ],
)
def test_bad_ratios_are_named(ratios: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subset_counts([900, 300], NAMES, ratios, None)


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_nested_across_ratios(seed: int) -> None:
    ids = [f"img/{k}" for k in range(400)]
    labels = [k % 2 for k in range(400)]
    few = set(draw_subset(ids, labels, [190, 10], seed))
    more = set(draw_subset(ids, labels, [150, 50], seed))
    minority = {k for k in range(400) if labels[k] == 1}
    assert few & minority < more & minority, f"seed {seed}"
    assert more - minority < few - minority, f"seed {seed}"
    assert [sum(labels[k] == c for k in few) for c in (0, 1)] == [190, 10]
