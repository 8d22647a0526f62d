from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import run
from ttc.datasets import DatasetSettings
from ttc.datasets.checks.report import contact_sheet, examine


@pytest.fixture
def table(tmp_path: Path, write_png: Callable[[Path], Path]) -> Path:
    """Forty gray images of 10 x 12 px, four of each label in val and test, one patient per image."""
    rows = ["path,label,split,group"]
    for number in range(40):
        write_png(tmp_path / f"{number:02d}.png")
        split = ("val", "test", "train", "train", "train")[number % 5]
        rows.append(f"{number:02d}.png,{'ill' if number % 2 else 'well'},{split},patient{number}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


def settings(table: Path, **more: object) -> DatasetSettings:
    return DatasetSettings("csv", str(table), image_size=16, **more)  # type: ignore[arg-type]


def test_sound_data(table: Path) -> None:
    report = examine(settings(table))
    assert report.problems == []
    assert report.values["class_counts"] == {"train": [12, 12], "val": [4, 4], "test": [4, 4], "pool": [0, 0]}
    assert report.values["formats"] == {"PNG L": 40}
    assert report.values["width_px"] == {"min": 10, "median": 10, "max": 10}
    assert report.values["height_px"] == {"min": 12, "median": 12, "max": 12}
    assert report.values["mean"] == report.dataset.mean
    assert all(len(line) <= 100 for line in report.lines)


@pytest.mark.parametrize("cache", ["off", "disk"])
def test_all_problems_are_listed(table: Path, cache: str) -> None:
    folder = table.parent
    (folder / "07.png").write_bytes(b"")
    (folder / "39.png").unlink()
    shutil.copy(folder / "00.png", folder / "01.png")  # val and test
    shutil.copy(folder / "03.png", folder / "04.png")  # both train: no leak
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(folder / "02.png")
    table.write_text(table.read_text().replace("patient6\n", "patient5\n"))
    report = examine(settings(table, cache=cache))
    assert sorted(line.split(":")[0] for line in report.problems) == [
        "group 'patient5' is in the splits val and test",
        "the same content in two splits",
        f"unreadable image {folder / '07.png'}",
        f"unreadable image {folder / '39.png'}",
    ]
    assert report.values["copies"] == 2
    assert report.values["copies_across_splits"] == [[f"{folder / '00.png'} (val)", f"{folder / '01.png'} (test)"]]
    assert report.values["formats"] == {"PNG L": 37, "PNG RGB": 1}
    assert report.values["width_px"] == {"min": 10, "median": 10.0, "max": 20}


def test_data_in_memory(tmp_path: Path) -> None:
    report = examine(DatasetSettings("digits"))
    assert report.values["formats"] == {"in memory": 1797}
    assert report.values["groups"] is None


def test_contact_sheet(table: Path, tmp_path: Path) -> None:
    dataset = examine(settings(table)).dataset
    assert contact_sheet(dataset, 1, tmp_path / "sheet.png") == 12
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 114 - 2, 24 + 2 * 114)
        pixels = np.asarray(sheet.convert("L")).astype(int)
    for column in range(8):
        assert pixels[24:136, 114 * column : 114 * column + 112].std() > 20
    assert (pixels[138:, 4 * 114 :] == 255).all()
    # Images with dark edges would run into each other.
    assert (pixels[24:, 112:114] == 255).all()
    assert (pixels[136:138, :] == 255).all()


def test_the_script(table: Path, tmp_path: Path) -> None:
    words = ("--dataset", "csv", "--data-root", table, "--image-size", 16, "--output", "report")
    done = run("scripts.check_dataset", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "unreadable: 0" in done.stdout
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "class-0-ill.png",
        "class-1-well.png",
        "report.json",
    ]
    (table.parent / "07.png").write_bytes(b"")
    done = run("scripts.check_dataset", *words, folder=tmp_path)
    assert done.code == 1
    assert "07.png" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: --dataset csv has 1 problems, see report/report.json"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["problems"]
