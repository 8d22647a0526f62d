from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ttc.datasets import DatasetSettings, load_dataset

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


@pytest.fixture
def folder(tmp_path: Path, write_png: Callable[[Path], Path]) -> Path:
    for number in range(60):
        write_png(tmp_path / "images" / f"{number:02d}.png")
    return tmp_path


def _table(folder: Path, header: str, rows: Sequence[str], encoding: str = "utf-8") -> DatasetSettings:
    (folder / "table.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return DatasetSettings("csv", str(folder / "table.csv"), image_size=8)


def _rows(count: int = 60) -> list[str]:
    return [f"images/{k:02d}.png,{'sick' if k % 3 == 0 else 'well'}" for k in range(count)]


def test_minimal_table(folder: Path) -> None:
    dataset = load_dataset(_table(folder, "path,label", _rows(), encoding="utf-8-sig"))
    assert dataset.class_names == ["sick", "well"]
    assert dataset.class_counts("train") == [14, 28]
    assert dataset.class_counts("test") == [4, 8]
    assert dataset.minority_class == 0
    assert dataset.ids[7] == "images/07.png"


def test_rows_and_splits_do_not_depend_on_the_line_order(folder: Path) -> None:
    first = load_dataset(_table(folder, "path,label", _rows()))
    second = load_dataset(_table(folder, "label,path", [",".join(reversed(r.split(","))) for r in _rows()[::-1]]))
    assert first.ids == second.ids
    assert first.split_digest() == second.split_digest()


@pytest.mark.parametrize(
    ("labels", "expected"), [(("10", "9"), ["9", "10"]), (("b", "a"), ["a", "b"]), (("10", "x"), ["10", "x"])]
)
def test_labels_sort_as_numbers_when_all_are_numbers(
    folder: Path, labels: tuple[str, str], expected: list[str]
) -> None:
    rows = [f"images/{k:02d}.png,{labels[k % 2]}" for k in range(60)]
    assert load_dataset(_table(folder, "path,label", rows)).class_names == expected


def test_split_column_is_kept(folder: Path) -> None:
    rows = [f"{row},{SPLITS[k // 3 % 10]}" for k, row in enumerate(_rows())]
    dataset = load_dataset(_table(folder, "path,label,split", rows))
    assert Counter(dataset.splits.tolist()) == {"train": 36, "val": 12, "test": 12}


def test_groups_are_never_divided(folder: Path) -> None:
    rows = [f"{row},patient{k // 4}" for k, row in enumerate(_rows())]
    dataset = load_dataset(_table(folder, "path,label,group", rows))
    assert dataset.groups is not None
    assert len(set(zip(dataset.groups, dataset.splits.tolist(), strict=True))) == 15


def test_a_runs_split_file_can_be_read_back(folder: Path) -> None:
    rows = [f"{row},patient{k // 2}" for k, row in enumerate(_rows())]
    settings = dataclasses.replace(_table(folder, "path,label,group", rows), class_ratios=(0.2, 0.8))
    dataset = load_dataset(settings)
    assert "pool" in dataset.splits
    (folder / "elsewhere").mkdir()
    dataset.save_split(folder / "elsewhere" / "split.csv")
    again = load_dataset(DatasetSettings("csv", str(folder / "elsewhere" / "split.csv"), image_size=8))
    assert again.split_digest() == dataset.split_digest()
    assert again.groups == dataset.groups
    assert again.mean == dataset.mean


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("file,label", ["images/00.png,1"], r"no column 'path' among file, label"),
        ("path;label", ["images/00.png;1"], r"no column 'path'"),
        ("path,label", [], r"has no rows"),
        ("path,label", ["images/00.png,1", "images/01.png,"], r"line 3: column 'label' is empty"),
        ("path,label", ["images/00.png,1", "images/01.png"], r"line 3: not 2 cells"),
        ("path,label", ["images/00.png,1,x"], r"line 2: not 2 cells"),
        ("path,label,split", ["images/00.png,1,train", "images/01.png,0,dev"], r"line 3: unknown split 'dev'"),
        ("path,label,split", ["images/00.png,1,train", "images/01.png,0,"], r"line 3: column 'split' is empty"),
        ("path,label,split", ["images/00.png,1,test", "images/01.png,0,val"], r"no row has split 'train'"),
        ("path,label", [*_rows(), "images/00.png,sick"], r"id 'images/00.png' occurs twice"),
        ("path,label", [*_rows(59), "images/99.png,well"], r"cannot read image .*99.png: No such file"),
        ("path,label", [f"images/{k:02d}.png,1" for k in range(9)], r"1 labels \(1\); two are needed"),
    ],
)
def test_malformed_tables_are_explained(folder: Path, header: str, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(_table(folder, header, rows))
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files(folder: Path) -> None:
    for root, message in (
        (folder / "no.csv", "No such file"),
        (folder, "regular file"),
        (None, "needs --data-root"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset(DatasetSettings("csv", None if root is None else str(root)))
    with pytest.raises(ValueError, match="no UTF-8 CSV file"):
        load_dataset(_table(folder, "path,label", ["images/00.png,größe"], encoding="latin-1"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("group", r"group 'patient' is in two splits, train \(.*\) and val"),
        ("id", r"path '.*00.png' is in two splits, train \(a\) and val \(b\)"),
    ],
)
def test_leaks_are_named(folder: Path, column: str, message: str) -> None:
    splits = [SPLITS[k // 3 % 10] for k in range(60)]
    cells = [f"{k}" for k in range(60)]
    rows = _rows()
    if column == "group":
        cells[0] = cells[18] = "patient"
    else:
        cells[0], cells[18] = "a", "b"
        rows[18] = rows[0]
    table = [f"{row},{split},{cell}" for row, split, cell in zip(rows, splits, cells, strict=True)]
    with pytest.raises(ValueError, match=message):
        load_dataset(_table(folder, f"path,label,split,{column}", table))


def test_missing_file_can_be_skipped(folder: Path) -> None:
    settings = _table(folder, "path,label", [*_rows(59), "images/99.png,well"])
    dataset = load_dataset(dataclasses.replace(settings, on_bad_image="skip"))
    assert len(dataset.ids) == 59
    assert [path for path, _ in dataset.bad_images] == [str(folder / "images" / "99.png")]
