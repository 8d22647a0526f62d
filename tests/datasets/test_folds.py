"""Folds of the whole experiment: every sample is tested once, by whole groups, with the due count of every label."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.test_group_splits import few_lesions, largest, mixed, uneven
from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.splits import draw_fold, draw_folds

Sample = tuple[list[str], list[str]]
"""Groups and labels."""


def lonely(random: np.random.Generator) -> Sample:
    """143 samples that stand for themselves, four labels."""
    return [f"im/{k}" for k in range(143)], [str(label) for label in random.choice(4, 143, p=[0.7, 0.2, 0.07, 0.03])]


@pytest.mark.parametrize("structure", [few_lesions, uneven, mixed, lonely])
@pytest.mark.parametrize("folds", [3, 7])
def test_every_fold_has_what_is_due(structure: object, folds: int) -> None:
    draws = set()
    for seed in range(10):
        groups, labels = structure(np.random.default_rng(seed))  # type: ignore[operator]
        drawn = draw_folds(groups, labels, folds, seed)
        assert set(drawn) == set(range(1, folds + 1))
        assert len(set(zip(groups, drawn, strict=True))) == len(set(groups)), f"seed {seed}: a group is divided"
        counts, totals = Counter(zip(labels, drawn, strict=True)), Counter(labels)
        for label in totals:
            slack = largest(groups, labels, label)
            for fold in range(1, folds + 1):
                assert abs(counts[label, fold] - totals[label] / folds) <= slack, f"seed {seed}, {label} in {fold}"
        if structure is lonely:
            sizes = Counter(drawn).values()
            assert max(sizes) - min(sizes) <= 1, "what is left over of the labels goes to the emptiest fold"
        order = np.random.default_rng(1).permutation(len(groups))
        again = draw_folds([groups[k] for k in order], [labels[k] for k in order], folds, seed)
        assert again == [drawn[k] for k in order], "the order of the samples does not matter"
        draws.add(tuple(drawn))
    assert len(draws) == 10, "the seed draws"


@pytest.mark.parametrize("grouped", [False, True])
def test_one_fold_is_tested_and_validation_comes_from_the_others(grouped: bool) -> None:
    groups, labels = few_lesions(np.random.default_rng(0))
    ids = [f"im/{k}" for k in range(1000)]
    tested: Counter[str] = Counter()
    for fold in range(1, 6):
        splits = draw_fold(ids, labels, groups if grouped else None, (fold, 5), 100, 3, {x: x for x in set(labels)})
        tested.update(name for name, split in zip(ids, splits, strict=True) if split == "test")
        counts = Counter(split for split, label in zip(splits, labels, strict=True) if label == "melanoma")
        assert counts == {"test": 4, "val": 2, "train": 14}, f"fold {fold}"
        assert abs(splits.count("val") - 100) <= 10
        if grouped:
            assert len(set(zip(groups, splits, strict=True))) == 100
    assert tested == dict.fromkeys(ids, 1)


def test_what_folds_cannot_be_is_one_line() -> None:
    ids, labels = [f"im/{k}" for k in range(40)], ["ill" if k < 12 else "well" for k in range(40)]
    groups, class_of = [f"p{k // 4}" for k in range(40)], {"ill": "ill", "well": "well"}
    with pytest.raises(ValueError, match=r"--fold 2/4: class 'ill' has 3 groups only.* use at most 3 folds$"):
        draw_fold(ids, labels, groups, (2, 4), 4, 0, class_of)
    with pytest.raises(ValueError, match=r"--fold 1/13: class 'ill' has 12 images only.* at most 12 folds$"):
        draw_fold(ids, labels, None, (1, 13), 4, 0, class_of)
    # Two labels of one class, of three groups each, that both avoid the folds which the rarest label has filled.
    labels, groups = [*"000aaabbb", *["c"] * 60], [*"012345678", *(str(k % 3) for k in range(60))]
    ids = [f"im/{k}" for k in range(69)]
    with pytest.raises(ValueError, match=r"--fold 1/6: the groups cannot be divided so that every fold has class 'ab'"):
        draw_fold(ids, labels, groups, (1, 6), 4, 0, {"a": "ab", "b": "ab"})
    for fold, text in (((0, 5), "write I/K"), ((6, 5), "write I/K"), ((1, 1), "write I/K")):
        with pytest.raises(ValueError, match=text):
            DatasetSettings("digits", fold=fold)
    with pytest.raises(ValueError, match="leave --split-rule 1 out"):
        DatasetSettings("digits", fold=(1, 5), split_rule=1)


def write_arrays(folder: Path) -> DatasetSettings:
    """Write 60 images of 20 patients, with splits of their own."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    splits = ["train"] * 42 + ["val"] * 6 + ["test"] * 12
    values = {"labels": [int(k % 9 < 3) for k in range(60)], "groups": [f"p{k // 3}" for k in range(60)]}
    np.savez(folder / "own.npz", images=pixels, splits=splits, **values)
    return DatasetSettings("arrays", data_root=str(folder / "own.npz"))


def write_medmnist(folder: Path) -> DatasetSettings:
    """Write a set with official splits, and the md5 by which it is accepted."""
    random, arrays = np.random.default_rng(1), {}
    for part, count in (("train", 42), ("val", 6), ("test", 12)):
        arrays[f"{part}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 3 == 0).astype(np.uint8)[:, None]
    path = folder / "breastmnist.npz"
    np.savez(path, **arrays)
    path.with_name("breastmnist.npz.md5").write_text(hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())
    return DatasetSettings("breastmnist", data_root=str(folder))


def write_folder(folder: Path) -> DatasetSettings:
    """Write images in class folders, without splits."""
    from PIL import Image

    random = np.random.default_rng(2)
    for number in range(36):
        place = folder / "images" / ("rare" if number % 4 == 0 else "common")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9), dtype=np.uint8)).save(place / f"{number}.png")
    return DatasetSettings("imagefolder", data_root=str(folder / "images"), image_size=8)


def write_table(folder: Path) -> DatasetSettings:
    """Write a table of the same images, with groups and a column of splits."""
    write_folder(folder)
    lines = [
        f"images/{path.parent.name}/{path.name},{path.parent.name},p{int(path.stem) // 2},"
        f"{'train' if int(path.stem) < 20 else 'test' if int(path.stem) < 28 else 'val'}"
        for path in sorted((folder / "images").rglob("*.png"))
    ]
    (folder / "table.csv").write_text("\n".join(["path,label,group,part", *lines]) + "\n")
    return DatasetSettings("csv", data_root=str(folder / "table.csv"), image_size=8, split_column="part")


@pytest.mark.parametrize(
    ("write", "fixed"),
    [
        (lambda _: DatasetSettings("digits", class_ratios=(0.9, 0.1)), None),
        (write_arrays, "42 train, 6 val, 12 test"),
        (write_medmnist, "42 train, 6 val, 12 test"),
        (write_folder, None),
        (write_table, "20 train, 8 test, 8 val"),
    ],
    ids=["digits", "arrays", "medmnist", "imagefolder", "csv"],
)
def test_every_source_is_tested_as_a_whole(
    write: object, fixed: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ttc")
    settings: DatasetSettings = write(tmp_path)  # type: ignore[operator]
    tested: Counter[str] = Counter()
    for fold in (1, 2, 3):
        caplog.clear()
        dataset = load_dataset(replace(settings, fold=(fold, 3)))
        tested.update(dataset.ids[row] for row in dataset.indices("test").tolist())
        assert all(min(dataset.class_counts(split)) for split in ("train", "val", "test"))
        if dataset.groups is not None:
            sides = [split.replace("pool", "train") for split in dataset.splits.tolist()]
            assert len(set(zip(dataset.groups, sides, strict=True))) == len(set(dataset.groups))
        told = f"fold {fold} of 3 is the test set; folds are drawn over all {len(dataset.ids)} images"
        told += "" if fixed is None else f", and the splits of the data ({fixed}) are not used"
        assert [line for line in caplog.messages if "fold" in line] == [told]
        assert "is drawn for it" not in caplog.text
        assert dataset.split_digest() == load_dataset(dataset.settings).split_digest()
    assert tested == dict.fromkeys(dataset.ids, 1)
    usual = load_dataset(settings)
    assert abs(len(usual.indices("val")) - len(dataset.indices("val"))) <= 3, "validation keeps its size"
