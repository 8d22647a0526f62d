"""Copies become one group or are left out before splits are drawn: no image is in two splits, whatever its file is."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.copies import join_copies
from ttc.datasets.checks.leaks import pixel_digests
from ttc.datasets.checks.report import examine
from ttc.datasets.classes import ClassGroups
from ttc.datasets.table import Dataset, Source

COPIES = ((0, 40), (1, 41), (2, 42), (5, 45), (5, 55))
"""Images 40, 41, ... are images 0, 1, ... once more; each has the label of its original."""


def pixels() -> np.ndarray:
    made = np.random.default_rng(0).integers(0, 256, (60, 12, 12), dtype=np.uint8)
    for original, copy in COPIES:
        made[copy] = made[original]
    return made


def write_arrays(folder: Path, **more: list[str]) -> DatasetSettings:
    labels = [int(k % 5 == 0) for k in range(60)]
    for original, copy in COPIES:
        labels[copy] = labels[original]
    np.savez(folder / "own.npz", images=pixels(), label=labels, **more)
    return DatasetSettings("arrays", data_root=str(folder / "own.npz"))


def write_files(folder: Path) -> DatasetSettings:
    """Write the copies in another format, so that no two files have equal bytes."""
    for number, image in enumerate(pixels()):
        original = next((first for first, copy in COPIES if copy == number), number)
        place = folder / "images" / ("rare" if original % 5 == 0 else "common")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02d}.{'png' if number < 40 else 'bmp'}")
    return DatasetSettings("imagefolder", data_root=str(folder / "images"), image_size=12, framing="squash")


def splits_of_contents(dataset: Dataset) -> list[set[str]]:
    found = defaultdict(set)
    for split, digest in zip(dataset.splits.tolist(), pixel_digests(dataset.images), strict=True):
        found[digest].add(split)
    return list(found.values())


@pytest.mark.parametrize("write", [write_arrays, write_files])
@pytest.mark.parametrize("cache", ["off", "ram"])
def test_copies_end_in_one_split(write: object, cache: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ttc")
    settings: DatasetSettings = replace(write(tmp_path), cache=cache)  # type: ignore[operator]
    for seed in (0, 1):
        with pytest.raises(ValueError, match=r"the same image; remove one, or put both in one group \(--group-c"):
            load_dataset(replace(settings, seed=seed))
        for way, count in (("group", 60), ("drop", 55)):
            dataset = load_dataset(replace(settings, seed=seed, group_copies=way))
            assert len(dataset.ids) == count
            assert max(map(len, splits_of_contents(dataset))) == 1, f"{way}, seed {seed}"
            assert load_dataset(dataset.settings, dataset.preprocessing).split_digest() == dataset.split_digest()
    assert "5 images equal another one and share its group" in caplog.text
    assert "5 of 5 copies are left out" in caplog.text


def test_groups_of_copies_are_joined_and_keep_to_fixed_splits(tmp_path: Path) -> None:
    groups = [f"p{k // 2:02d}" for k in range(60)]
    splits = ["train"] * 40 + ["val"] * 6 + ["test"] * 14
    settings = write_arrays(tmp_path, group=groups, split=splits)
    with pytest.raises(
        ValueError, match=r"are the same image; remove one, or put both in one group \(--group-copies\)"
    ):
        load_dataset(settings)
    dataset = load_dataset(replace(settings, group_copies="group"))
    assert dataset.groups is not None
    # 0, 1, 40 and 41 are joined by two pairs; image 4 belongs to the patient of 5, whose copies are 45 and 55.
    joined = [[0, 1, 40, 41], [2, 3, 42, 43], [4, 5, 44, 45, 54, 55]]
    assert [len({dataset.groups[row] for row in rows}) for rows in joined] == [1, 1, 1]
    assert [dataset.splits[rows].tolist() for rows in joined] == [["val"] * 4, ["val"] * 4, ["test"] * 6]
    rest = sorted(set(range(60)) - {row for rows in joined for row in rows})
    assert [dataset.groups[row] for row in rest] == [groups[row] for row in rest]
    assert dataset.splits[rest].tolist() == [splits[row] for row in rest]
    dropped = load_dataset(replace(settings, group_copies="drop"))
    assert sorted(set(dataset.ids) - set(dropped.ids)) == [f"arrays/{row:06d}" for row in (0, 1, 2, 5, 45)]
    assert dropped.splits.tolist().count("test") == 14, "the test set stays what it is"


def test_folds_divide_no_copies(tmp_path: Path) -> None:
    settings = replace(write_arrays(tmp_path), group_copies="group")
    for fold in (1, 2, 3):
        assert max(map(len, splits_of_contents(load_dataset(replace(settings, fold=(fold, 3)))))) == 1


def test_one_image_under_two_labels_stays_a_matter_for_the_user() -> None:
    classes = ClassGroups(["a", "b"], {"a": 0, "b": 1})
    source = Source(["x", "y", "z"], ["a", "b", "a"], classes, ["train"] * 3, {}, pixels=np.zeros((3, 4, 4), np.uint8))
    assert join_copies(source, ["1", "1", "2"], "drop").ids == ["x", "y", "z"]
    assert join_copies(source, ["1", "1", "2"], "group").groups == ["x", "x", "z"]
    assert join_copies(source, ["1", "2", "3"], "group") is source
    assert join_copies(source, ["", "", "2"], "drop") is source, "nothing is known of the first two"


def test_the_report_names_the_flag(tmp_path: Path) -> None:
    settings = write_arrays(tmp_path, split=["train"] * 40 + ["val"] * 6 + ["test"] * 14)
    report = examine(settings)
    assert any("two splits" in line and line.endswith("(--group-copies)") for line in report.problems)
    mended = examine(replace(settings, group_copies="group"))
    assert not mended.problems
    assert any(line.endswith("remove them, or pass --group-copies drop") for line in mended.warnings)
