from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.readers.medmnist_sets import PARTS, read_npz, verify_md5
from ttc.datasets.registry import MEDMNIST_NAMES, build_dataset

SIZES = {"train": 24, "val": 6, "test": 12}


def _write(path: Path, labels: int, channels: int, multi_label: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, size in SIZES.items():
        shape = (size, 28, 28) if channels == 1 else (size, 28, 28, channels)
        arrays[f"{part}_images"] = random.integers(0, 256, shape, dtype=np.uint8)
        if multi_label:
            arrays[f"{part}_labels"] = random.integers(0, 2, (size, labels), dtype=np.uint8)
        else:
            arrays[f"{part}_labels"] = (np.arange(size, dtype=np.uint8) % labels)[:, None]
    np.savez_compressed(path, **arrays)
    return arrays


def test_registered_names_are_the_two_dimensional_sets() -> None:
    from medmnist.info import INFO

    assert {name for name in INFO if not name.endswith("3d")} == set(MEDMNIST_NAMES)


def test_binary_set(tmp_path: Path) -> None:
    arrays = _write(tmp_path / "breastmnist.npz", labels=2, channels=1)
    settings = DatasetSettings("breastmnist")
    names = {"0": "malignant", "1": "normal, benign"}
    dataset = build_dataset(settings, read_npz(tmp_path / "breastmnist.npz", settings, names))
    assert dataset.class_names == ["malignant", "normal, benign"]
    assert [len(dataset.indices(part)) for part in SIZES] == list(SIZES.values())
    assert dataset.ids[24] == "breastmnist/val/000000"
    assert torch.equal(dataset.images[dataset.indices("test")][:, 0], torch.from_numpy(arrays["test_images"]))
    assert dataset.labels[dataset.indices("test")].tolist() == arrays["test_labels"][:, 0].tolist()


def test_multi_class_colour_set(tmp_path: Path) -> None:
    _write(tmp_path / "pathmnist.npz", labels=3, channels=3)
    names = {"0": "adipose", "1": "background", "2": "debris"}
    with pytest.raises(ValueError, match=r"3 labels \(0 \(adipose\), .*--positive-classes"):
        read_npz(tmp_path / "pathmnist.npz", DatasetSettings("pathmnist"), names)
    settings = DatasetSettings("pathmnist", positive_classes=("debris",), image_size=20)
    dataset = build_dataset(settings, read_npz(tmp_path / "pathmnist.npz", settings, names))
    assert dataset.class_counts("train") == [16, 8]
    assert dataset.minority_class == 1
    assert dataset.images[torch.tensor([0])].shape == (1, 3, 20, 20)


def test_multi_label_set_is_positive_when_any_named_label_is_set(tmp_path: Path) -> None:
    arrays = _write(tmp_path / "chestmnist.npz", labels=4, channels=1, multi_label=True)
    names = {"0": "atelectasis", "1": "cardiomegaly", "2": "effusion", "3": "infiltration"}
    settings = DatasetSettings("chestmnist", positive_classes=("effusion", "1"))
    dataset = build_dataset(settings, read_npz(tmp_path / "chestmnist.npz", settings, names))
    expected = np.concatenate([arrays[f"{part}_labels"] for part in SIZES])[:, [1, 2]].max(axis=1)
    assert dataset.labels.tolist() == expected.tolist()
    assert dataset.class_names == ["not effusion/cardiomegaly", "effusion/cardiomegaly"]
    for wrong in (DatasetSettings("chestmnist"), DatasetSettings("chestmnist", classes=(("0",), ("1",)))):
        with pytest.raises(ValueError, match="several labels per image"):
            read_npz(tmp_path / "chestmnist.npz", wrong, names)


@pytest.mark.parametrize(("image_size", "file"), [(None, "breastmnist.npz"), (64, "breastmnist_64.npz")])
def test_missing_file_is_named_with_its_remedy(tmp_path: Path, image_size: int | None, file: str) -> None:
    settings = DatasetSettings("breastmnist", str(tmp_path), image_size=image_size)
    with pytest.raises(ValueError, match=r"BreastMNIST\('train', download=True") as caught:
        load_dataset(settings)
    assert str(tmp_path / file) in str(caught.value)


def test_unpublished_content_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "breastmnist.npz", labels=2, channels=1)
    with pytest.raises(ValueError, match="not the published 750601b1f35ba3300ea97c75c52ff8f6"):
        load_dataset(DatasetSettings("breastmnist", str(tmp_path)))


def test_md5_of_known_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    verify_md5(tmp_path / "abc", "900150983cd24fb0d6963f7d28e17f72")


def test_damaged_and_pickled_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "breastmnist.npz"
    _write(path, labels=2, channels=1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        read_npz(path, DatasetSettings("breastmnist"), {"0": "a", "1": "b"})
    hostile = np.array([{}], dtype=object)
    np.savez(path, **{f"{part}_{kind}": hostile for part in PARTS for kind in ("images", "labels")})
    with pytest.raises(ValueError, match=r"is damaged .*allow_pickle=False"):
        read_npz(path, DatasetSettings("breastmnist"), {"0": "a", "1": "b"})


def test_three_dimensional_sets_are_no_choice() -> None:
    with pytest.raises(ValueError, match="organmnist3d holds volumes"):
        load_dataset(DatasetSettings("organmnist3d"))


def test_a_file_of_ones_own_needs_its_sum_beside_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path / "octmnist.npz", labels=4, channels=1)
    settings = DatasetSettings("octmnist", str(tmp_path), positive_classes=("drusen", "choroidal neovascularization"))
    own = tmp_path / "octmnist.npz.md5"
    own.write_text(f"{hashlib.md5((tmp_path / 'octmnist.npz').read_bytes()).hexdigest()}  octmnist.npz\n")
    dataset = load_dataset(settings)
    assert dataset.class_names[1] == "drusen/choroidal neovascularization"
    assert dataset.class_counts("train") == [12, 12]
    assert "is not the published file, says octmnist.npz.md5 beside it" in caplog.text
    for wrong in ("0" * 32, ""):
        own.write_text(wrong)
        with pytest.raises(ValueError, match="delete it and fetch it again"):
            load_dataset(settings)


def test_patients_of_a_table_beside_the_file(samples: Callable[[str], Path], tmp_path: Path) -> None:
    for path in samples("medmnist").glob("chestmnist.npz*"):
        shutil.copy(path, tmp_path)
    settings = DatasetSettings("chestmnist", str(tmp_path), positive_classes=("effusion",))
    plain = load_dataset(settings)
    assert plain.groups is None
    table = tmp_path / "chestmnist_groups.csv"
    rows = [i.split("/")[1:] for i in plain.ids]
    lines = [f"{split},{int(row)},{split}-patient{int(row) // 3}" for split, row in rows]
    table.write_text("\n".join(["split,row,group", *reversed(lines)]) + "\n")
    assert load_dataset(settings).groups == [line.split(",")[2] for line in lines]
    table.write_text("\n".join(["split,row,group", *(line.replace("test-", "val-") for line in lines)]) + "\n")
    with pytest.raises(ValueError, match=r"group 'val-patient0' is in two splits, val .* and test"):
        load_dataset(settings)
    table.write_text("\n".join(["split,row,group", *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match="has no group for 1 image, the first is chestmnist/train/000000"):
        load_dataset(settings)
    for text, message in (
        ("split,row\n", "no column 'group' .* it needs the columns split, row and group"),
        ("split,row,group\ntrain,first,a\n", "line 2: row 'first' is no whole number"),
        ("split,row,group\ntrain,0,a\ntrain,0,b\n", "line 3: row 0 of split 'train' again"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_dataset(settings)
