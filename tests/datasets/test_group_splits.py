"""Drawn splits: the due count of the rare label with patients of any kind; the draws of earlier versions."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from ttc.datasets.splits import hold_out
from ttc.evaluation.folds import stratified_folds

PARTS = {"test": 0.2, "val": 0.1}
SHARES = {"train": 0.7, **PARTS}
Sample = tuple[list[str], list[str]]
"""Groups and labels."""


def few_lesions(random: np.random.Generator) -> Sample:
    """100 patients of 10 images; 10 of them have two lesions each."""
    groups = [f"p{k // 10}" for k in range(1000)]
    ill = set(random.choice(100, 10, replace=False).tolist())
    return groups, ["melanoma" if k // 10 in ill and k % 10 < 2 else "nevus" for k in range(1000)]


def uneven(random: np.random.Generator) -> Sample:
    """60 patients of 1 to 40 images, 12 of them ill throughout."""
    sizes = np.minimum(random.geometric(0.12, 60), 40)
    ill = set(random.choice(60, 12, replace=False).tolist())
    groups = [f"p{k}" for k, size in enumerate(sizes) for _ in range(size)]
    return groups, ["1" if int(group[1:]) in ill else "0" for group in groups]


def mixed(random: np.random.Generator) -> Sample:
    """80 patients of 3 to 12 images, four labels of which most patients have several."""
    groups = [f"p{k}" for k in range(80) for _ in range(random.integers(3, 13))]
    return groups, [str(label) for label in random.choice(4, len(groups), p=[0.7, 0.2, 0.07, 0.03])]


def largest(groups: list[str], labels: list[str], label: str) -> int:
    return max(Counter(group for group, each in zip(groups, labels, strict=True) if each == label).values())


@pytest.mark.parametrize("structure", [few_lesions, uneven, mixed])
def test_every_split_has_the_rare_images_that_are_due(structure: object) -> None:
    draws = set()
    for seed in range(40):
        groups, labels = structure(np.random.default_rng(seed))  # type: ignore[operator]
        splits = hold_out([str(k) for k in range(len(groups))], labels, groups, ["train"] * len(groups), PARTS, seed)
        assert len(set(zip(groups, splits, strict=True))) == len(set(groups)), f"seed {seed}"
        counts, totals = Counter(zip(labels, splits, strict=True)), Counter(labels)
        for rank, label in enumerate(sorted(totals, key=totals.__getitem__)):
            # The rarest label comes first; the common ones have what whole groups leave.
            slack = largest(groups, labels, label) * (1 if rank == 0 else 3)
            for split, share in SHARES.items():
                assert abs(counts[label, split] - share * totals[label]) <= slack, f"seed {seed}, {label} in {split}"
        draws.add(tuple(splits))
    assert len(draws) == 40, "the seed draws"


def test_ten_patients_with_two_lesions_are_two_per_tenth() -> None:
    for seed in range(40):
        groups, labels = few_lesions(np.random.default_rng(seed))
        splits = hold_out([str(k) for k in range(1000)], labels, groups, ["train"] * 1000, PARTS, seed)
        counts = Counter(split for split, label in zip(splits, labels, strict=True) if label == "melanoma")
        assert counts == {"train": 14, "val": 2, "test": 4}, f"seed {seed}"


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rare", [3, 4, 5])
def test_three_rare_images_are_one_per_split(rare: int, grouped: bool) -> None:
    labels = ["ill" if k < rare else "well" for k in range(60 + rare)]
    ids = [f"im/{k}" for k in range(60 + rare)]
    for seed in range(40):
        splits = hold_out(ids, labels, ids if grouped else None, ["train"] * len(ids), PARTS, seed)
        counts = Counter(split for split, label in zip(splits, labels, strict=True) if label == "ill")
        assert set(counts) == {"train", "val", "test"}, f"seed {seed}"
        assert abs(splits.count("test") - 0.2 * len(ids)) <= 1


def test_the_listing_order_of_groups_does_not_matter() -> None:
    groups, labels = mixed(np.random.default_rng(3))
    ids, order = [str(k) for k in range(len(groups))], np.random.default_rng(1).permutation(len(groups))
    first = hold_out(ids, labels, groups, ["train"] * len(ids), PARTS, 7)
    ids, labels, groups = ([each[k] for k in order] for each in (ids, labels, groups))
    assert hold_out(ids, labels, groups, ["train"] * len(ids), PARTS, 7) == [first[k] for k in order]


@pytest.mark.parametrize("grouped", [False, True])
def test_draws_of_earlier_versions_are_kept(grouped: bool) -> None:
    """The digests were computed with commit 93a57da; without groups only a label that missed a part draws anew."""
    ids = [f"im/{k:04d}.png" for k in range(300)]
    labels = ["c" if k % 100 == 7 else "b" if k % 9 == 0 else "a" for k in range(300)]
    groups = [f"p{k * k % 71}" for k in range(300)] if grouped else None
    digests = [
        hashlib.sha256(",".join(hold_out(ids, labels, groups, ["train"] * 300, PARTS, seed, 1)).encode()).hexdigest()
        for seed in (0, 5)
    ]
    assert [digest[:12] for digest in digests] == EARLIER[grouped]
    common = ["a" if label == "c" else label for label in labels]
    if not grouped:
        assert hold_out(ids, common, None, ["train"] * 300, PARTS, 5, 2) == hold_out(
            ids, common, None, ["train"] * 300, PARTS, 5, 1
        )


EARLIER = {False: ["429b7f543f18", "be3deb3794d9"], True: ["e6c59c9dd653", "15f1bf1d905f"]}


@pytest.mark.parametrize("structure", [few_lesions, uneven])
def test_folds_have_the_rare_images_that_are_due(structure: object) -> None:
    for seed in range(8):  # 40 hold as well, but take 10 s
        groups, labels = structure(np.random.default_rng(seed))  # type: ignore[operator]
        rare = min(set(labels), key=labels.count)
        ill = np.array([int(label == rare) for label in labels])
        folds = stratified_folds(ill, groups, 5, seed)
        slack = largest(groups, labels, rare)
        for fold in range(5):
            assert abs(ill[folds == fold].sum() - ill.sum() / 5) <= slack, f"seed {seed}, fold {fold}"
