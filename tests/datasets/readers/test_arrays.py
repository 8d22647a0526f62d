from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.datasets import DatasetSettings, load_dataset
from ttc.evaluation.new_images import _arrays


def arrays(count: int = 60, **changes: object) -> dict[str, object]:
    """Return gray images of 60 cells of 20 pictures, every third a platelet."""
    return {
        "images": np.random.default_rng(0).integers(0, 256, (count, 9, 9), dtype=np.uint8),
        "label": np.array(["Platelets" if k % 3 == 0 else "RBC" for k in range(count)]),
        **changes,
    }


def settings(folder: Path, content: dict[str, object], **flags: object) -> DatasetSettings:
    np.savez(folder / "cells.npz", **content)  # type: ignore[arg-type]  # arrays
    return dataclasses.replace(DatasetSettings("arrays", str(folder / "cells.npz")), **flags)  # type: ignore[arg-type]


@pytest.mark.parametrize("colours", [(), (1,), (3,)])
@pytest.mark.parametrize("labels", ["label", "labels", "cell"])
def test_plain_arrays(colours: tuple[int, ...], labels: str, tmp_path: Path) -> None:
    content = arrays(group=np.array([k // 3 for k in range(60)]))
    pixels = np.random.default_rng(1).integers(0, 256, (60, 9, 9, *colours), dtype=np.uint8)
    content |= {"images": pixels, labels: content.pop("label")}
    dataset = load_dataset(settings(tmp_path, content, label_column="cell" if labels == "cell" else None))
    assert dataset.class_names == ["Platelets", "RBC"]
    assert (dataset.image_size, dataset.channels) == (9, colours[0] if colours else 1)
    assert dataset.ids[7] == "arrays/000007"
    assert np.array_equal(dataset.images.data[5].numpy()[0], pixels[5].reshape(9, 9, -1)[..., 0])  # type: ignore[union-attr]
    assert dataset.groups is not None
    assert len(set(zip(dataset.groups, dataset.splits.tolist(), strict=True))) == 20


def test_splits_ids_and_numbers(tmp_path: Path) -> None:
    splits = np.array(["Train", "train", "validation", " test "] * 15)
    content = arrays(label=np.repeat([0.0, 1.0], 30)[:, None], split=splits, id=np.arange(60).astype("S"))
    dataset = load_dataset(settings(tmp_path, content))
    assert dataset.class_names == ["0", "1"]
    assert dataset.ids[59] == "59"
    assert dataset.splits.tolist() == ["train", "train", "val", "test"] * 15


def test_arrays_may_be_called_by_the_singular_or_the_plural(tmp_path: Path) -> None:
    numbers = np.arange(60)
    splits = np.array(["train", "train", "val", "test"])[numbers // 3 % 4]
    content = arrays(split=splits, group=numbers // 3, id=numbers)
    content["image"] = content.pop("images")
    singular = load_dataset(settings(tmp_path, content))
    plural = load_dataset(settings(tmp_path, {f"{name}s": values for name, values in content.items()}))
    assert singular.splits.tolist() == splits.tolist()
    assert singular.ids == [str(number) for number in range(60)]
    assert (singular.split_digest(), singular.groups) == (plural.split_digest(), plural.groups)
    assert singular.content_digest == plural.content_digest
    for end in ("", "s"):
        np.savez(tmp_path / "new.npz", **{f"image{end}": content["image"], f"id{end}": numbers})
        ids, images = _arrays(tmp_path / "new.npz", 9, 1)
        assert ids == singular.ids
        assert torch.equal(images.data, singular.images.data)  # type: ignore[union-attr]  # both are in memory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.zeros((60, 2))}, r"array label has the shape \[60, 2\] for 60 images"),
        ({"images": np.zeros((60, 9, 9), np.float32)}, r"images is float32 \[60, 9, 9\]; save it as uint8 \[N, S, S\]"),
        ({"images": np.zeros((60, 9, 8), np.uint8)}, r"images is uint8 \[60, 9, 8\]"),
        ({"images": np.zeros((60, 9, 9, 4), np.uint8)}, r"\[60, 9, 9, 4\]"),
        ({"images": np.zeros((0, 9, 9), np.uint8)}, r"\[0, 9, 9\]"),
        ({"label": np.array([""] * 60)}, r"array label is empty at image 0"),
        ({"split": np.array(["dev"] * 60)}, r"unknown split 'dev'"),
        ({"group": np.array([{}] * 60)}, r"cannot be read \(the array group holds Python objects, .*plain arrays"),
    ],
)
def test_other_arrays_are_explained(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(settings(tmp_path, arrays(**changes)))
    assert "\n" not in str(caught.value)


def test_missing_arrays_and_files(tmp_path: Path) -> None:
    content = arrays()
    del content["label"]
    with pytest.raises(ValueError, match=r"no array 'label' among images; add it, or name it with --label-column"):
        load_dataset(settings(tmp_path, content))
    with pytest.raises(ValueError, match="it has no array 'cell'"):
        load_dataset(settings(tmp_path, arrays(), label_column="cell"))
    for name, text in (("gone.npz", None), ("text.npz", "no archive")):
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*pass an .npz file"):
            load_dataset(DatasetSettings("arrays", str(tmp_path / name)))


def test_copies_in_own_arrays_are_refused(tmp_path: Path) -> None:
    content = arrays()
    content["images"][1] = content["images"][0]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"arrays/00000[01] .* and arrays/00000[01] .* are the same image"):
        load_dataset(settings(tmp_path, content))


def test_the_flag_that_names_no_array_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no array 'ill' among images, label; correct --label-column ill"):
        load_dataset(settings(tmp_path, arrays(), label_column="ill"))
