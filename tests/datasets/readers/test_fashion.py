from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.datasets import DatasetSettings, load_dataset

REAL = Path(os.environ.get("TTC_FASHION_ROOT", "/usr/share/datasets/fashion-mnist"))


def _idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def _write(folder: Path, compressed: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for prefix, per_class in (("train", 40), ("t10k", 5)):
        labels = np.tile(np.arange(10), per_class)
        contents = {
            f"{prefix}-images-idx3-ubyte": _idx(random.integers(0, 256, (len(labels), 28, 28))),
            f"{prefix}-labels-idx1-ubyte": _idx(labels),
        }
        for name, content in contents.items():
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def test_a_file_of_several_gzip_members_filled_up_with_zeros_is_one_file(tmp_path: Path) -> None:
    plain = load_dataset(DatasetSettings("fashion", str(_write(tmp_path / "plain", compressed=True))))
    for path in _write(tmp_path / "parts", compressed=True).iterdir():
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]) + bytes(512))
    parts = load_dataset(DatasetSettings("fashion", str(tmp_path / "parts")))
    assert parts.split_digest() == plain.split_digest()
    assert torch.equal(parts.images.data, plain.images.data)  # type: ignore[union-attr]  # in memory


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("layout", ["FashionMNIST/raw", ""])
def test_layouts(tmp_path: Path, layout: str, compressed: bool) -> None:
    _write(tmp_path / layout, compressed)
    dataset = load_dataset(DatasetSettings("fashion", str(tmp_path)))
    assert dataset.class_counts("train") == [190, 190]
    assert dataset.class_counts("val") == [10, 10]
    assert dataset.class_counts("test") == [25, 25]
    assert dataset.class_names[1] == "Dress/Coat/Shirt/Sneaker/Bag"
    assert dataset.ids[-1] == "fashion/test/00049"
    assert dataset.minority_class is None


def test_pixels_and_labels_stay_together(tmp_path: Path) -> None:
    _write(tmp_path, compressed=True)
    dataset = load_dataset(DatasetSettings("fashion", str(tmp_path), classes=(("6",), ("T-shirt/top",))))
    images = np.random.default_rng(0).integers(0, 256, (400, 28, 28))
    assert dataset.class_names == ["Shirt", "T-shirt/top"]
    for row in (0, 11, 79):
        source = int(dataset.ids[row].split("/")[-1])
        assert source % 10 == (6, 0)[int(dataset.labels[row])]
        assert torch.equal(dataset.images[torch.tensor([row])][0, 0].long(), torch.from_numpy(images[source]))


def test_missing_root_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs --data-root"):
        load_dataset(DatasetSettings("fashion"))
    with pytest.raises(ValueError, match=r"has no train-images-idx3-ubyte.gz"):
        load_dataset(DatasetSettings("fashion", str(tmp_path)))


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda c: c[: len(c) // 2], "is damaged"),
        ("train-images-idx3-ubyte.gz", _flip, "is damaged"),
        ("train-images-idx3-ubyte.gz", lambda _: b"<html>not found</html>", "is damaged"),
        ("train-images-idx3-ubyte.gz", lambda c: gzip.compress(gzip.decompress(c)[:-1]), "header promises"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(_idx(np.zeros((400, 1)))), "with 1 axes"),
        ("train-labels-idx1-ubyte.gz", lambda _: gzip.compress(_idx(np.zeros(399))), "400 images and .* 399 labels"),
        ("t10k-labels-idx1-ubyte.gz", lambda _: gzip.compress(_idx(np.full(50, 10))), "label 10, above 9"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: object, message: str) -> None:
    path = _write(tmp_path, compressed=True) / name
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(DatasetSettings("fashion", str(tmp_path)))
    assert name.split("-")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no Fashion-MNIST files in {REAL} (set TTC_FASHION_ROOT)")
def test_official_files() -> None:
    settings = DatasetSettings("fashion", str(REAL), class_ratios=(0.99, 0.01), train_samples=5000)
    dataset = load_dataset(settings)
    assert dataset.class_counts("train") == [4950, 50]
    assert dataset.class_counts("val") == [1500, 1500]
    assert dataset.class_counts("test") == [5000, 5000]
    assert dataset.class_counts("pool") == [23550, 28450]
    assert dataset.minority_class == 1
    assert dataset.images[torch.tensor([0])].shape == (1, 1, 28, 28)
