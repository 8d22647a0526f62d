"""What a user is told of data that can be read but are doubtful."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.alike import look_alike
from ttc.datasets.checks.doubts import identifies
from ttc.datasets.checks.report import examine

IMAGES = 60


def table(folder: Path, columns: dict[str, list[str]]) -> DatasetSettings:
    """Write pictures and their table; a column has one cell for each, or fewer that are repeated."""
    names, rows = ["path", *columns], []
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(",".join([f"{number}.png", *(cells[number % len(cells)] for cells in columns.values())]))
    (folder / "t.csv").write_text("\n".join([",".join(names), *rows]))
    return DatasetSettings("csv", str(folder / "t.csv"), image_size=6)


def told(settings: DatasetSettings, caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    logging.getLogger("ttc").propagate = True
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="ttc"):
        load_dataset(settings)
    return [record.getMessage() for record in caplog.records if record.levelno == level and record.name == "ttc"]


PATIENTS = [f"{number // 3}" for number in range(IMAGES)]
LABELS = ["ill", "well", "well", "well", "ill"]


@pytest.mark.parametrize("name", ["patient", "Patient ID", "patientId", "PATIENTID", "camera", "site_no", "case_id"])
def test_a_column_of_patients_that_is_not_used_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = table(tmp_path, {"label": LABELS, name: PATIENTS, "hospital": ["a", "b", ""]})
    lines = [line for line in told(settings, caplog) if "--group-column" in line]
    better = "hospital" if name == "case_id" else name  # a place comes after a person, but before a case
    assert len(lines) == 1
    assert lines[0].startswith(f"column `{better}` has {2 if better == 'hospital' else 20} values for 60 rows; images")
    assert lines[0].endswith("--group-column " + ("'Patient ID'" if " " in better else better))
    assert lines[0] in examine(settings).warnings
    assert not [line for line in told(replace(settings, group_column=name), caplog) if "--group-column" in line]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("sex", ["f", "m"]),
        ("anatom_site", ["arm", "leg"]),  # of the body, not of the study
        ("case", ["0", "1"]),
        ("patient", [str(number) for number in range(IMAGES)]),  # one image each
        ("site", ["Oslo"]),
        ("site", ["", "Oslo"]),
    ],
)
def test_other_columns_are_none_of_patients(
    name: str, cells: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = table(tmp_path, {"label": LABELS, name: cells})
    assert not [line for line in told(settings, caplog) if "--group-column" in line]


def test_an_array_of_patients_that_is_not_used_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 6, 6), dtype=np.uint8)
    others = {"subject": np.array(PATIENTS, dtype=object), "site": np.arange(IMAGES)[:, None] % 3, "device": np.ones(2)}
    np.savez(tmp_path / "a.npz", images=pixels, label=np.array(LABELS * 12), **others)  # type: ignore[arg-type]
    lines = told(DatasetSettings("arrays", str(tmp_path / "a.npz")), caplog)
    assert [line.partition(";")[0] for line in lines if "--group" in line] == ["array `site` has 3 values for 60 rows"]


def test_names_of_columns() -> None:
    assert all(map(identifies, ("subject_id", "Participants", "MRN", "animal", "camera-trap", "location", "study_id")))
    assert not any(map(identifies, ("id", "label", "path", "study", "age", "position", "", "1", "center_x")))


def test_groups_called_unknown_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    groups = list(PATIENTS)
    groups[3:9], groups[20], groups[30:32] = ["NaN"] * 6, "missing", ["n/a"] * 2
    settings = table(tmp_path, {"label": LABELS, "group": groups})
    expected = (
        "8 images are of a group called 'NaN' or 'n/a', which seems to mean unknown but counts as one patient; give "
        "each such image a group of its own, or drop these rows"
    )
    assert expected in told(settings, caplog)
    assert expected in examine(settings).warnings
    settings = table(tmp_path, {"label": LABELS, "group": PATIENTS})
    assert not [line for line in told(settings, caplog) if "unknown" in line]


@pytest.mark.parametrize(
    ("words", "fate"),
    [
        ({"positive_classes": ("malignant",)}, "is in class 'not malignant'"),
        ({"classes": (("benign",), ("malignant",))}, "is left out by --classes"),
    ],
)
def test_labels_that_are_merged_or_left_out_are_counted_and_slips_told(
    words: dict[str, tuple[str, ...]], fate: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = ["benign", "malignant", "benign", "malignat", "benign", "malignant"]
    settings = replace(table(tmp_path, {"label": cells}), **words)  # type: ignore[arg-type]
    line = f"label 'malignat' (10 images) {fate} and looks like 'malignant'; correct the data if they are one class"
    assert [each for each in told(settings, caplog) if each.startswith("label")] == [line]
    counts = told(settings, caplog, logging.INFO)
    assert (
        "class 'not malignant' holds the labels benign (30), malignat (10)" in counts
        if "positive_classes" in words
        else "--classes leaves out 10 images: malignat (10)" in counts
    )
    report = examine(settings)
    assert line in report.warnings
    assert any("malignat (10)" in each for each in report.lines)


def test_slips_are_named_where_classes_must_be_chosen(tmp_path: Path) -> None:
    settings = table(tmp_path, {"label": ["benign", "malignant", "malignat"]})
    with pytest.raises(ValueError, match="--positive-classes; malignant and malignat look alike: correct the data"):
        load_dataset(settings)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("malignant", "malignat", True),
        ("basal cell", "Basalcell", True),
        ("bengin", "benign", True),  # two letters are swapped
        ("normal", "formal", False),
        ("stage 1", "stage 2", False),
        ("type A", "type B", False),
        ("typical", "atypical", False),
        ("benign", "malignant", False),
        ("?", "-", False),
    ],
)
def test_what_looks_like_a_slip(first: str, second: str, alike: bool) -> None:
    assert look_alike(first, second) == look_alike(second, first) == alike
