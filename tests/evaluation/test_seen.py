"""Samples of other data that the run was trained on are found by their bytes, their pixels, or their ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings
from ttc.datasets.images import FileImages, TensorImages, tensor_images
from ttc.datasets.other import OtherData
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.evaluation.elsewhere.seen import read_seen, seen_words

DECODING = Decoding(size=8, channels=1)
SETTINGS = DatasetSettings("csv", data_root="run.csv")
SPLITS = ("train", "val", "test", "pool")


@pytest.fixture
def pixels() -> np.ndarray:
    """Return uint8 [4, 8, 8]."""
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Return the folder of a run with one image in each split."""
    lines = ["id,path,label,split,group"]
    for row, split in enumerate(SPLITS):
        Image.fromarray(pixels[row]).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png,{tmp_path / f'{row}.png'},0,{split},")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "split.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "run"


def words(run: Path, images: TensorImages | FileImages, ids: list[str], settings: DatasetSettings = SETTINGS) -> str:
    seen = read_seen([run / "finetune", run])
    assert seen is not None
    other = OtherData(ids, np.zeros(len(ids), dtype=np.int64), None, images, {})
    return seen_words(other, seen, settings, DECODING) or ""


def test_files_of_training_and_validation_are_found(run: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    """The same files, one saved in another format, and an array; the run's test image and the pool may be tested."""
    paths = [str(tmp_path / f"{row}.png") for row in range(4)]
    ids = ["a", "b", "c", "d"]
    line = words(run, FileImages(paths, DECODING), ids)
    assert line.startswith(f"2 of 4 samples were in training or validation of {run} (2 by content, 0 by id), such as a")
    Image.fromarray(pixels[0]).save(tmp_path / "0.tif")
    line = words(run, FileImages([str(tmp_path / "0.tif"), *paths[1:]], DECODING), ids)
    assert line.startswith("2 of 4")
    assert words(run, tensor_images(pixels, 8), ids).startswith("2 of 4")
    assert words(run, FileImages(paths[2:], DECODING), ids[2:]) == ""


def test_ids_count_where_the_images_of_the_run_are_gone(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for row in range(4):
        noise = np.random.default_rng(9 + row).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(other / f"{row}.png")
    images, ids = FileImages([str(other / f"{row}.png") for row in range(4)], DECODING), [f"{n}.png" for n in range(4)]
    assert words(run, images, ids) == "", "other images of the same names"
    (tmp_path / "1.png").unlink()
    assert "1 of 4 samples were in training or validation" in words(run, images, ids)
    assert "(0 by content, 1 by id), such as 1.png" in words(run, images, ids)


def test_images_in_memory_are_compared_by_pixels(tmp_path: Path, pixels: np.ndarray) -> None:
    np.savez(tmp_path / "run.npz", images=pixels, label=np.array(list("abab")))
    lines = [f"arrays/{row:06d},,0,{split}," for row, split in enumerate(SPLITS)]
    (tmp_path / "split.csv").write_text("\n".join(["id,path,label,split,group", *lines]) + "\n")
    settings = DatasetSettings("arrays", data_root=str(tmp_path / "run.npz"))
    ids = [f"arrays/{row:06d}" for row in range(3)]
    changed = np.concatenate([255 - pixels[:1], pixels[1:3]])
    line = words(tmp_path, tensor_images(changed, 8), ids, settings)
    assert "1 of 3 samples" in line
    assert "such as arrays/000001" in line
    (tmp_path / "run.npz").unlink()
    assert words(tmp_path, tensor_images(changed, 8), ids, settings) == "", "ids by position say nothing"
