"""What is told of the files of each class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.depths import files_by_class, lines_of, warnings_of


def write(folder: Path, *, top: int = 255, mode: str = "L", width: int = 18, low: float = 0.0) -> None:
    folder.mkdir(parents=True)
    for number in range(20):
        values = np.random.default_rng([number, top, len(folder.name)]).uniform(low, 1, (18, width))
        pixels = (values * top).round().astype(np.uint8 if top == 255 else np.uint16)
        (Image.fromarray(pixels) if top > 255 else Image.fromarray(pixels).convert(mode)).save(folder / f"{number}.png")


def classes_of(folder: Path, **settings: object) -> list[str]:
    dataset = load_dataset(DatasetSettings("imagefolder", str(folder), image_size=16, **settings))  # type: ignore[arg-type]
    return warnings_of(files_by_class(dataset))


def test_classes_of_one_kind(tmp_path: Path) -> None:
    for name in ("common", "rare"):
        write(tmp_path / name, top=4095)
    dataset = load_dataset(DatasetSettings("imagefolder", str(tmp_path), image_size=16))
    found = files_by_class(dataset)
    assert warnings_of(found) == []
    assert [each.depths for each in found] == [{"16-bit": 20}] * 2
    assert found[0].range == pytest.approx((20, 4075), abs=25)
    assert found[0].histogram.sum() == pytest.approx(1)
    assert np.abs(found[0].histogram - 1 / 64).max() < 0.01  # uniform values
    assert all(len(line) <= 120 and "values" in line for line in lines_of(found))
    assert json.loads(json.dumps(found[1].as_dict()))["modes"] == {"PNG I;16": 20}


@pytest.mark.parametrize(
    ("rare", "told"),
    [
        ({"top": 4095}, ["classes differ in depth: 16-bit are 100 % of rare and 0 % of common"]),
        ({"mode": "RGB"}, ["classes differ in mode: PNG L are 100 % of common and 0 % of rare"]),
        ({"low": 0.5}, ["classes differ in range: the darkest 0.5 % lie at 128 of 255 in rare and at 1 in common"]),
        ({}, []),
    ],
)
def test_differences_between_classes(rare: dict[str, object], told: list[str], tmp_path: Path) -> None:
    write(tmp_path / "common")
    write(tmp_path / "rare", **rare)  # type: ignore[arg-type]
    found = classes_of(tmp_path)
    if rare == {"top": 4095}:  # which is another mode, too
        found = found[:1]
    assert [line.split(";")[0] for line in found] == told


def test_framing_is_told_above_ten_percent(tmp_path: Path) -> None:
    for name in ("common", "rare"):
        write(tmp_path / name, width=45)
    (line,) = classes_of(tmp_path)
    assert line.startswith("framing cuts off 60 % of the images' area, up to 60 %")
    assert classes_of(tmp_path, framing="pad") == classes_of(tmp_path, framing="squash") == []


def test_data_in_memory() -> None:
    found = files_by_class(load_dataset(DatasetSettings("digits")))
    assert [each.depths for each in found] == [{"in memory": each.images} for each in found]
    assert warnings_of(found) == []
