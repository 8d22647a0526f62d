from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from ttc.datasets import DatasetSettings, load_dataset

MakeTree = Callable[[Mapping[str, int]], Path]
FLAT = {"cat": 40, "dog": 20}
SPLIT = {"train/cat": 12, "train/dog": 6, "val/cat": 3, "val/dog": 3, "test/cat": 2, "test/dog": 2}


def _settings(root: Path, **changes: object) -> DatasetSettings:
    return dataclasses.replace(DatasetSettings("imagefolder", str(root), image_size=8), **changes)  # type: ignore[arg-type]


def test_flat_folders_get_seeded_splits(make_tree: MakeTree) -> None:
    dataset = load_dataset(_settings(make_tree(FLAT)))
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.class_counts("train") == [28, 14]
    assert dataset.class_counts("val") == [4, 2]
    assert dataset.class_counts("test") == [8, 4]
    assert dataset.ids[0] == "cat/000.png"
    assert dataset.channels == 1
    assert dataset.images[dataset.indices("val")].shape == (6, 1, 9, 9)


def test_given_splits_are_kept(make_tree: MakeTree) -> None:
    dataset = load_dataset(_settings(make_tree(SPLIT)))
    assert Counter(dataset.splits.tolist()) == {"train": 18, "val": 6, "test": 4}
    assert all(i.startswith(f"{s}/") for i, s in zip(dataset.ids, dataset.splits, strict=True))


def test_split_folders_may_be_spelled_otherwise(make_tree: MakeTree) -> None:
    words = {"train": "Training", "val": "validation", "test": "TEST"}
    root = make_tree({f"{words[name.split('/')[0]]}/{name.split('/')[1]}": count for name, count in SPLIT.items()})
    assert Counter(load_dataset(_settings(root)).splits.tolist()) == {"train": 18, "val": 6, "test": 4}


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("val", {"train": 54, "val": 6, "test": 4}), ("test", {"train": 48, "val": 4, "test": 12})],
)
def test_a_missing_split_is_drawn_from_train(make_tree: MakeTree, missing: str, expected: dict[str, int]) -> None:
    tree = {"train/cat": 40, "train/dog": 20, "val/cat": 2, "val/dog": 2, "test/cat": 2, "test/dog": 2}
    root = make_tree({name: count for name, count in tree.items() if not name.startswith(missing)})
    assert Counter(load_dataset(_settings(root)).splits.tolist()) == expected


def test_folders_can_be_grouped_and_dropped(make_tree: MakeTree) -> None:
    root = make_tree({"cat": 20, "dog": 20, "lion": 20, "wolf": 20})
    with pytest.raises(ValueError, match=r"4 labels \(cat, dog, lion, wolf\)"):
        load_dataset(_settings(root))
    dataset = load_dataset(_settings(root, classes=(("wolf",), ("cat", "lion"))))
    assert dataset.class_names == ["wolf", "cat,lion"]
    assert len(dataset.ids) == 60


def test_other_files_and_hidden_folders_are_left_out(make_tree: MakeTree) -> None:
    root = make_tree(FLAT)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / ".DS_Store").write_text("x")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "__MACOSX").mkdir()
    assert len(load_dataset(_settings(root)).ids) == 60


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"set/train/cat": 2, "set/val/cat": 2}, r"set holds train, val and would become a class; .*use --data-root"),
        ({"train/train/cat": 2, "train/test/cat": 2}, r"class folder .* is called like a split"),
        ({"train/cat": 2, "train/dog": 2, "bird": 2}, r"mixes split folders with 'bird'"),
        ({"train/cat": 2, "val/cat": 2, "Validation/cat": 2}, r"the folders Validation and val are one split"),
        ({"cat": 0, "dog": 0}, r"no image was found in its 2 class folders"),
        ({"val/cat": 2, "test/dog": 2}, r"no train folder"),
        ({"train": 3, "test": 3}, r"has no class folders"),
        ({"": 3}, r"has no class folders"),
        ({"cat": 5, "dog": 0}, r"class folder 'dog' holds no image"),
        ({"cat": 5, "dog/patient1": 3}, r"holds the folder 'patient1'"),
        ({"cat": 5}, r"1 label \(cat\); two are needed"),
        ({"cat": 30, "dog": 1}, r"class 1 \(dog\) has no sample in split"),
    ],
)
def test_wrong_layouts_are_explained(make_tree: MakeTree, tree: dict[str, int], message: str) -> None:
    root = make_tree(tree) if "" not in tree else make_tree({"x": 3}) / "x"
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(_settings(root))
    assert "\n" not in str(caught.value)


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        load_dataset(_settings(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="needs --data-root"):
        load_dataset(DatasetSettings("imagefolder"))


def test_the_same_image_in_two_splits_is_a_leak(make_tree: MakeTree) -> None:
    root = make_tree(SPLIT)
    shutil.copy(root / "train/cat/003.png", root / "test/dog/copy.png")
    with pytest.raises(ValueError, match="are the same image") as caught:
        load_dataset(_settings(root))
    assert "train/cat/003.png (train)" in str(caught.value)
    assert "test/dog/copy.png (test)" in str(caught.value)


def test_copies_inside_one_split_are_allowed(make_tree: MakeTree) -> None:
    root = make_tree(SPLIT)
    shutil.copy(root / "train/cat/003.png", root / "train/cat/copy.png")
    assert len(load_dataset(_settings(root)).ids) == 29


def test_bad_images_stop_the_run_or_are_listed(make_tree: MakeTree) -> None:
    root = make_tree(FLAT)
    clean = load_dataset(_settings(root, class_ratios=(0.75, 0.25)))
    bad = [row for split in ("train", "test") for row in clean.indices(split).tolist()[:1]]
    for row in bad:
        Path(clean.images.paths[row]).write_bytes(b"")  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="--on-bad-image skip"):
        load_dataset(_settings(root, class_ratios=(0.75, 0.25)))
    kept = load_dataset(_settings(root, class_ratios=(0.75, 0.25), on_bad_image="skip"))
    assert [path for path, _ in kept.bad_images] == [clean.images.paths[row] for row in sorted(bad)]  # type: ignore[union-attr]
    assert all(reason for _, reason in kept.bad_images)
    sides = {i: s.replace("pool", "train") for i, s in zip(clean.ids, clean.splits.tolist(), strict=True)}
    for sample_id, split in zip(kept.ids, kept.splits.tolist(), strict=True):
        assert sides[sample_id] == split.replace("pool", "train")
    assert len(kept.ids) == 58
    assert torch.equal(kept.images[torch.tensor([5])][0], kept.images.decode(kept.paths[5]))  # type: ignore[union-attr, index]
