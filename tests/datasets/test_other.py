"""Data of another source: what cannot be read is refused, or left out and told on request."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
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

    def read(settings: DatasetSettings) -> list[str]:
        decoding = Decoding(size=8, channels=1)
        data = read_other(settings, ["ill", "well"], class_map={}, run=run, split=None, decoding=decoding)
        assert isinstance(data.images, FileImages)
        assert len(data.labels) == len(data.images) == len(data.ids)
        return [Path(path).relative_to(tmp_path).as_posix() for path in data.images.paths]

    logging.getLogger("ttc").propagate = True
    with caplog.at_level(logging.INFO, logger="ttc"):
        assert len(read(settings)) == 7
    assert "ill/2.png" in caplog.text
    assert "1 of 8 images are left out, since they cannot be read" in caplog.text
    assert "mapped to none" not in caplog.text
    assert "ill/2.png" in read(replace(settings, on_bad_image="stop"))  # told when it is decoded
