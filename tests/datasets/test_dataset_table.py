from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.datasets import Dataset, DatasetSettings, describe, load_dataset
from ttc.datasets.table import minority_of

IMBALANCED = DatasetSettings("digits", class_ratios=(0.97, 0.03))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(IMBALANCED)


def test_digits_counts(digits: Dataset) -> None:
    assert len(digits.ids) == len(set(digits.ids)) == 1797
    assert len(digits.indices("test")) == 500
    assert len(digits.indices("val")) == 97
    smallest = min(np.add(digits.class_counts("train"), digits.class_counts("pool")))
    assert digits.class_counts("train") == [int(0.97 * smallest), int(0.03 * smallest)]
    assert digits.class_names == ["0,1,2,3,4", "5,6,7,8,9"]
    assert (digits.image_size, digits.channels, digits.minority_class) == (8, 1, 1)
    assert digits.ids[17] == "digits/0017"


def test_digits_pixels_are_scaled_to_bytes(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    scans = torch.from_numpy(load_digits().images)
    pixels = digits.images[torch.arange(1797)][:, 0]
    assert torch.equal(pixels.double(), (scans * 255 / 16).round())


def test_splits_partition_the_rows(digits: Dataset) -> None:
    rows = torch.cat([digits.indices(split) for split in ("train", "val", "test", "pool")])
    assert sorted(rows.tolist()) == list(range(1797))
    assert digits.indices("train").tolist() == sorted(digits.indices("train").tolist())


@pytest.mark.parametrize("seed", range(3))
def test_test_set_and_rows_do_not_depend_on_the_draw(seed: int) -> None:
    variants = [
        load_dataset(DatasetSettings("digits", seed=seed, class_ratios=ratios, train_samples=samples))
        for ratios, samples in ((None, None), ((0.5, 0.5), 200), ((0.9, 0.1), 200), (None, 100))
    ]
    for variant in variants[1:]:
        assert variant.ids == variants[0].ids, f"seed {seed}"
        for split in ("val", "test"):
            assert torch.equal(variant.indices(split), variants[0].indices(split)), f"seed {seed}"
    rare, balanced = (
        {row for row in v.indices("train").tolist() if v.labels[row] == 1} for v in (variants[2], variants[1])
    )
    assert rare < balanced, f"seed {seed}"


def test_test_set_does_not_depend_on_the_grouping(digits: Dataset) -> None:
    other = load_dataset(DatasetSettings("digits", classes=(("6",), ("0", "3"))))
    expected = {digits.ids[row] for row in digits.indices("test").tolist() if digits.ids[row] in set(other.ids)}
    assert {other.ids[row] for row in other.indices("test").tolist()} == expected
    assert len(other.ids) == 181 + 178 + 183


def test_same_seed_same_table_other_seed_other_table(digits: Dataset) -> None:
    assert load_dataset(IMBALANCED).split_digest() == digits.split_digest()
    assert load_dataset(dataclasses.replace(IMBALANCED, seed=1)).split_digest() != digits.split_digest()


def test_settings_rebuild_the_data(digits: Dataset) -> None:
    rebuilt = load_dataset(DatasetSettings(**dataclasses.asdict(digits.settings)))
    assert rebuilt.split_digest() == digits.split_digest()
    assert (rebuilt.mean, rebuilt.std) == (digits.mean, digits.std)


def test_statistics_come_from_the_training_subset(digits: Dataset) -> None:
    train = digits.images[digits.indices("train")].double() / 255
    torch.testing.assert_close(torch.tensor(digits.mean).double(), train.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(torch.tensor(digits.std).double(), train.std(dim=(0, 2, 3), correction=0))


def test_split_csv_holds_every_row(digits: Dataset, tmp_path: Path) -> None:
    digits.save_split(tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "path", "label", "split", "group"]
    assert [row["id"] for row in rows] == digits.ids
    assert [int(row["label"]) for row in rows] == digits.labels.tolist()
    assert [row["split"] for row in rows] == digits.splits.tolist()


def test_images_are_resized_on_request() -> None:
    dataset = load_dataset(DatasetSettings("digits", image_size=16))
    assert dataset.image_size == 16
    assert dataset.images[torch.tensor([0])].shape == (1, 1, 16, 16)


def test_description_is_narrow_and_marks_the_minority(digits: Dataset) -> None:
    lines = describe(digits)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert "minority" in lines[2]
    assert "minority" not in lines[1]
    for label, line in enumerate(lines[1:]):
        for split in ("train", "val", "test", "pool"):
            assert str(digits.class_counts(split)[label]) in line.split()


def test_minority_is_counted() -> None:
    assert minority_of([90, 10], ["a", "b"], None) == 1
    assert minority_of([10, 90], ["a", "b"], None) == 0
    assert minority_of([50, 50], ["a", "b"], None) is None
    assert minority_of([50, 50], ["a", "b"], 0) == 0
    assert minority_of([90, 20, 10], ["a", "b", "c"], None) == 2
    assert minority_of([90, 20, 10], ["a", "b", "c"], 1) == 1


@pytest.mark.parametrize(("override", "message"), [(0, "is the largest class with 90 of 100"), (2, "is no class")])
def test_contradicting_minority_is_refused(override: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"--minority-class {override} .*{message}"):
        minority_of([90, 10], ["a", "b"], override)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cifar"}, r"--dataset cifar is unknown; choose one of digits, fashion"),
        ({"data_root": "/somewhere"}, r"--data-root /somewhere: digits ships with scikit-learn"),
        ({"classes": (("0",), ("11",))}, r"unknown label '11'"),
        ({"class_ratios": (0.9, 0.2)}, r"sums to 1.1, not 1"),
        ({"class_ratios": (0.9999, 0.0001)}, r"without a training sample"),
        ({"train_samples": 1}, r"--train-samples 1 leaves class"),
        ({"minority_class": 0, "class_ratios": (0.9, 0.1)}, r"--minority-class 0 .* is the largest class"),
        ({"on_bad_image": "ignore"}, r"--on-bad-image ignore is unknown"),
        ({"image_size": 0}, r"--image-size 0 must be at least 1"),
        ({"train_samples": 0}, r"--train-samples 0 must be at least 1"),
    ],
)
def test_bad_settings_are_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(DatasetSettings(**{"name": "digits", **changes}))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
