from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import run
from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.report import contact_sheet, examine


@pytest.fixture
def table(tmp_path: Path, write_png: Callable[[Path], Path]) -> Path:
    """Eighty gray images of 10 x 12 px, eight of each label in val and test, one patient per image."""
    rows = ["path,label,split,group"]
    for number in range(80):
        write_png(tmp_path / f"{number:02d}.png")
        split = ("val", "test", "train", "train", "train")[number % 5]
        rows.append(f"{number:02d}.png,{'ill' if number % 2 else 'well'},{split},patient{number}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


def settings(table: Path, **more: object) -> DatasetSettings:
    return DatasetSettings("csv", str(table), image_size=10, **more)  # type: ignore[arg-type]


def test_sound_data(table: Path) -> None:
    report = examine(settings(table))
    assert report.problems == []
    assert report.values["class_counts"] == {"train": [24, 24], "val": [8, 8], "test": [8, 8], "pool": [0, 0]}
    assert report.values["formats"] == {"PNG L": 80}
    assert report.values["width_px"] == {"min": 10, "median": 10, "max": 10}
    assert report.values["height_px"] == {"min": 12, "median": 12, "max": 12}
    assert report.values["mean"] == report.dataset.mean
    assert all(len(line) <= 100 for line in report.lines)


@pytest.mark.parametrize("cache", ["off", "disk"])
def test_all_problems_are_listed(table: Path, cache: str) -> None:
    folder = table.parent
    (folder / "07.png").write_bytes(b"")
    (folder / "39.png").unlink()
    shutil.copy(folder / "00.png", folder / "06.png")  # val and test
    shutil.copy(folder / "03.png", folder / "13.png")  # one split, one label
    Image.open(folder / "12.png").save(folder / "14.png", format="bmp")  # one split, one label, another format
    shutil.copy(folder / "23.png", folder / "24.png")  # one split, two labels
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(folder / "02.png")
    table.write_text(table.read_text().replace("patient11\n", "patient10\n"))
    report = examine(settings(table, cache=cache))
    assert sorted(line.split(":")[0] for line in report.problems) == [
        "group 'patient10' is in the splits val and test; keep each group in one split",
        "one image under two labels",
        "the same content in two splits",
        f"unreadable image {folder / '07.png'}",
        f"unreadable image {folder / '39.png'}",
    ]
    assert f"2 images equal another one of their split and class, such as {folder / '03.png'}" in str(report.warnings)
    assert report.values["copies"] == 4
    assert report.values["copies_across_splits"] == [[f"{folder / '00.png'} (val)", f"{folder / '06.png'} (test)"]]
    assert report.values["copies_under_two_labels"] == [[f"{folder / '23.png'} (ill)", f"{folder / '24.png'} (well)"]]
    assert report.values["unreadable_by_class"] == {"ill": 2}
    assert report.values["formats"] == {"PNG L": 76, "PNG RGB": 1, "BMP L": 1}
    assert report.values["width_px"] == {"min": 10, "median": 10.0, "max": 20}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda text: re.sub("ill(,train,patient.3\n)", r"Ill\1", text),
            "labels 'ill' (33 images) and 'Ill' (7",
        ),
        (lambda text: text.replace("patient3\n", "patient3.0\n").replace("patient8\n", "patient3\n"), None),
        (
            lambda text: text.replace("patient", "").replace(",3\n", ",3.0\n").replace(",8\n", ",3\n"),
            "groups '3' (1 im",
        ),
    ],
)
def test_what_training_refuses_is_a_problem(table: Path, change: Callable[[str], str], problem: str | None) -> None:
    """And the reverse: where the report has no problem, training starts."""
    table.write_text(change(table.read_text()))
    chosen = settings(table, positive_classes=("ill",))
    report = examine(chosen)
    if problem is None:
        assert report.problems == []
        load_dataset(chosen)
        return
    assert report.problems[0].startswith(problem)
    with pytest.raises(ValueError, match="look like one"):
        load_dataset(chosen)


def test_few_groups_and_few_images_are_warnings(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    for number, row in enumerate(rows):
        row[3] = f"ill{number % 5}" if row[1] == "ill" else row[3]
    table.write_text("\n".join(["path,label,split,group", *(",".join(row) for row in rows)]) + "\n")
    line = (
        "class 0 (ill) is carried by 5 groups only (3 in train, 1 in val, 1 in test), two of them have 16 of its 40 "
        "images: a result says nothing about new groups; collect more, and never believe one seed"
    )
    report = examine(settings(table))
    assert report.problems == []
    assert line in report.warnings
    assert report.warnings[-1].startswith("few images: 8 of class 0 (ill) in val, 8 of class 1 (well) in val, 8 of ")
    load_dataset(settings(table))
    assert line in caplog.text


def test_formats_that_are_left_out_and_links_to_nowhere(tmp_path: Path, write_png: Callable[[Path], Path]) -> None:
    for number in range(40):
        write_png(tmp_path / "data" / ("ill" if number % 4 == 0 else "well") / f"{number}.png")
    for name in ("a.heic", "b.heic", "c.txt"):
        (tmp_path / "data" / "ill" / name).write_bytes(b"x")
    (tmp_path / "data" / "ill" / "link.png").symlink_to(tmp_path / "gone.png")
    report = examine(DatasetSettings("imagefolder", str(tmp_path / "data"), image_size=8))
    assert report.values["left_out"] == {"ill": {".heic": 2, ".txt": 1}}
    assert report.warnings[0].startswith("label ill: left out, since no image format that is read: 2 .heic, 1 .txt")
    assert report.values["unreadable_by_class"] == {"ill": 1}
    assert [line for line in report.lines if line.startswith("unreadable")] == ["unreadable: 1 (1 ill)"]


def test_data_in_memory(tmp_path: Path) -> None:
    report = examine(DatasetSettings("digits"))
    assert report.values["formats"] == {"in memory": 1797}
    assert report.values["groups"] is None


def test_contact_sheet(table: Path, tmp_path: Path) -> None:
    dataset = examine(settings(table)).dataset
    assert contact_sheet(dataset, 1, tmp_path / "sheet.png") == 24
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 114 - 2, 24 + 3 * 114)
        pixels = np.asarray(sheet.convert("L")).astype(int)
    for column in range(8):
        assert pixels[24:136, 114 * column : 114 * column + 112].std() > 20
    # Images with dark edges would run into each other.
    assert (pixels[24:, 112:114] == 255).all()
    assert (pixels[136:138, :] == 255).all()


def test_the_script(table: Path, tmp_path: Path) -> None:
    words = ("--dataset", "csv", "--data-root", table, "--image-size", 16, "--output", "report", "--json", "mine.json")
    done = run("scripts.check_dataset", *words, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "unreadable: 0" in done.stdout
    assert "warning: few images" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "class-0-ill.png",
        "class-1-well.png",
        "histograms.pdf",
        "histograms.png",
        "report.json",
    ]
    assert (tmp_path / "mine.json").read_text() == (tmp_path / "report" / "report.json").read_text()
    (table.parent / "07.png").write_bytes(b"")
    done = run("scripts.check_dataset", *words, folder=tmp_path)
    assert done.code == 1
    assert "07.png" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: --dataset csv has 1 problem, see report/report.json"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["problems"]
