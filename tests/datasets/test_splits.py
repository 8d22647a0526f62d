from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ttc.datasets.splits import hold_out, missing_parts


def _labels(counts: dict[str, int]) -> list[str]:
    return [label for label, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_stratified_and_exact(seed: int) -> None:
    labels = _labels({"a": 700, "b": 200, "c": 100})
    ids = [str(k) for k in range(1000)]
    splits = hold_out(ids, labels, None, ["train"] * 1000, {"test": 0.2, "val": 0.1}, seed)
    counts = Counter(zip(labels, splits, strict=True))
    assert [counts[label, "test"] for label in "abc"] == [140, 40, 20], f"seed {seed}"
    assert [counts[label, "val"] for label in "abc"] == [70, 20, 10], f"seed {seed}"


def test_counts_are_taken_literally() -> None:
    labels = _labels({"a": 33, "b": 34, "c": 33})
    splits = hold_out([str(k) for k in range(100)], labels, None, ["train"] * 100, {"test": 31, "val": 7}, 0)
    assert Counter(splits) == {"train": 62, "test": 31, "val": 7}


def test_official_splits_do_not_move() -> None:
    splits = ["train"] * 50 + ["test"] * 50
    result = hold_out([str(k) for k in range(100)], ["a"] * 100, None, splits, {"val": 0.1}, 0)
    assert result[50:] == ["test"] * 50
    assert Counter(result[:50]) == {"train": 45, "val": 5}


def test_listing_order_does_not_matter() -> None:
    ids = [f"p/{k}" for k in range(90)]
    labels = _labels({"a": 60, "b": 30})
    by_id = dict(zip(ids, hold_out(ids, labels, None, ["train"] * 90, {"test": 0.2, "val": 0.1}, 4), strict=True))
    order = np.random.default_rng(1).permutation(90)
    mixed = hold_out(
        [ids[k] for k in order], [labels[k] for k in order], None, ["train"] * 90, {"test": 0.2, "val": 0.1}, 4
    )
    assert mixed == [by_id[ids[k]] for k in order]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_shares_stay_close(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = [f"patient{k}" for k in range(100) for _ in range(random.integers(1, 6))]
    sick = set(random.choice(100, 30, replace=False).tolist())
    labels = ["1" if int(group[7:]) in sick else "0" for group in groups]
    ids = [str(k) for k in range(len(groups))]
    splits = hold_out(ids, labels, groups, ["train"] * len(ids), {"test": 0.2, "val": 0.1}, seed)
    assert len(set(zip(groups, splits, strict=True))) == 100, f"seed {seed}"
    counts = Counter(zip(labels, splits, strict=True))
    for label in "01":
        size = labels.count(label)
        assert abs(counts[label, "test"] - 0.2 * size) <= 4, f"seed {seed}"
        assert abs(counts[label, "val"] - 0.1 * size) <= 4, f"seed {seed}"


def test_three_large_groups_are_one_per_split() -> None:
    groups = [f"site{k // 40}" for k in range(120)]
    splits = hold_out([str(k) for k in range(120)], ["a"] * 120, groups, ["train"] * 120, {"test": 0.2, "val": 0.1}, 0)
    assert Counter(splits) == {"train": 40, "test": 40, "val": 40}


def test_many_tiny_labels_do_not_all_fall_to_the_first_letters() -> None:
    labels = [f"{k:03d}" for k in range(200)]
    splits = hold_out([str(k) for k in range(200)], labels, None, ["train"] * 200, {"test": 0.2}, 0)
    rows = [k for k, split in enumerate(splits) if split == "test"]
    assert len(rows) == 40
    assert 8 <= sum(row < 100 for row in rows) <= 32


def test_missing_parts() -> None:
    assert missing_parts(["train"]) == {"test": 0.2, "val": 0.1}
    assert missing_parts(["train", "val"]) == {"test": 0.2}
    assert missing_parts(["train", "test", "val", "pool"]) == {}
