"""Data of another source: what cannot be read is refused, or left out and told on request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ttc.datasets import DatasetSettings, FileImages
from ttc.datasets.other import read_other
from ttc.datasets.pixels.preprocessing import Decoding


def test_broken_files_are_left_out_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        for number in range(4):
            pixels = np.full((9, 9), 40 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "ill" / "2.png").write_bytes(b"no image")
    settings = DatasetSettings("imagefolder", data_root=str(tmp_path), on_bad_image="skip")
    run = DatasetSettings("imagefolder", data_root="elsewhere")

    images = FileImages([], Decoding(size=8, channels=1))

    def read(settings: DatasetSettings) -> list[str]:
        nonlocal images
        decoding = Decoding(size=8, channels=1)
        data = read_other(settings, ["ill", "well"], class_map={}, run=run, split=None, decoding=decoding)
        assert isinstance(data.images, FileImages)
        images = data.images
        assert len(data.labels) == len(data.images) == len(data.ids)
        return [Path(path).relative_to(tmp_path).as_posix() for path in data.images.paths]

    logging.getLogger("ttc").propagate = True
    with caplog.at_level(logging.INFO, logger="ttc"):
        assert len(read(settings)) == 7
    assert "ill/2.png" in caplog.text
    assert "1 of 8 images are left out, since they cannot be read" in caplog.text
    assert "mapped to none" not in caplog.text
    assert "ill/2.png" in read(replace(settings, on_bad_image="stop"))  # told when it is decoded
    with pytest.raises(ValueError, match=r"ill/2\.png: .*; repair or remove it, or pass --on-bad-image skip$"):
        images[torch.tensor([2])]


@pytest.mark.parametrize("second", ["1.0", "01", "nan"])
def test_groups_are_looked_at_as_those_of_training(
    second: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["path,label,group"]
    for number in range(8):
        pixels = np.full((9, 9), 30 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ill' if number % 2 else 'well'},{'1' if number < 4 else second}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    settings = DatasetSettings("csv", data_root=str(tmp_path / "t.csv"))
    logging.getLogger("ttc").propagate = True

    def groups() -> list[str] | None:
        decoding = Decoding(size=8, channels=1)
        run = replace(settings, data_root="elsewhere")
        return read_other(settings, ["ill", "well"], class_map={}, run=run, split=None, decoding=decoding).groups

    if second == "nan":
        with caplog.at_level(logging.WARNING, logger="ttc"):
            assert groups() == ["1"] * 4 + ["nan"] * 4
        assert "4 images are of a group called 'nan'" in caplog.text
        return
    with pytest.raises(
        ValueError, match=rf"^--data-root .*t.csv: groups '.+' \(4 images\) and '({second}|1)' .* one group"
    ):
        groups()


def table_of(folder: Path, labels: Sequence[str]) -> DatasetSettings:
    """Write one image per label and a table of them."""
    for number in range(len(labels)):
        Image.fromarray(np.full((9, 9), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    (folder / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return DatasetSettings("csv", data_root=str(folder / "table.csv"))


@pytest.mark.parametrize("classes", [None, (("ill",), ("well",))], ids=["labels", "--classes"])
def test_class_map_leaves_out_a_third_label(tmp_path: Path, classes: tuple[tuple[str, ...], ...] | None) -> None:
    """The run has two classes, by its labels or by --classes; none of the third label is anything to it."""
    settings = table_of(tmp_path, ["ill", "well", "unsure", "sick", "ill"])
    run = DatasetSettings("imagefolder", data_root="elsewhere", classes=classes)
    decoding = Decoding(size=8, channels=1)

    def read(class_map: dict[str, str]) -> list[int]:
        other = read_other(settings, ["ill", "well"], class_map=class_map, run=run, split=None, decoding=decoding)
        return other.labels.tolist()

    assert read({"unsure": "", "sick": "ill"}) == [0, 1, 0, 0]
    if classes is None:
        with pytest.raises(ValueError, match=r"class 'unsure' is none of the run's .* or 'unsure=' to leave it out"):
            read({"sick": "ill"})


def test_no_split_is_told_to_be_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings, decoding = table_of(tmp_path, ["ill", "well"]), Decoding(size=8, channels=1)
    logging.getLogger("ttc").propagate = True
    with caplog.at_level(logging.INFO):
        read_other(settings, ["ill", "well"], class_map={}, run=settings, split=None, decoding=decoding)
    assert "is drawn" not in caplog.text
