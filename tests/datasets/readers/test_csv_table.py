from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttc.datasets import DatasetSettings, load_dataset
from ttc.datasets.classes import split_words

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
        ("path,label", [f"images/{k:02d}.png,1" for k in range(9)], r"1 label \(1\); two are needed"),
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


def test_columns_of_other_names(folder: Path) -> None:
    rows = [
        f"n{k},{'sick' if k % 3 == 0 else 'well'},images/{k:02d}.png,p{k // 4},{SPLITS[k // 3 % 10]}" for k in range(60)
    ]
    settings = _table(folder, "image id,finding,file name,patient,fold", rows)
    named = {"path": "file name", "label": "finding", "group": "patient", "split": "fold", "id": "image id"}
    flags = {f"{kind}_column": name for kind, name in named.items()}
    with pytest.raises(ValueError, match=r"group 'p\d+' is in two splits"):  # so the group column is read
        load_dataset(dataclasses.replace(settings, **flags))
    del flags["group_column"]
    dataset = load_dataset(dataclasses.replace(settings, **flags))
    assert dataset.ids[0] == "n0"
    assert Counter(dataset.splits.tolist()) == {"train": 36, "val": 12, "test": 12}
    with pytest.raises(ValueError, match="no column 'patients' among image id"):
        load_dataset(dataclasses.replace(settings, **flags, group_column="patients"))
    with pytest.raises(ValueError, match="two flags name the column 'finding'"):
        load_dataset(dataclasses.replace(settings, **{**flags, "id_column": "finding"}))
    with pytest.raises(ValueError, match="--path-column is for tables; --dataset digits has none"):
        DatasetSettings("digits", path_column="file")


def test_words_for_splits(folder: Path) -> None:
    words = {"train": ("train", "Train", " TRAINING "), "val": ("validation", "valid"), "test": (" test ", "Testing")}
    rows = [f"{row},{words[SPLITS[k // 3 % 10]][k % 2]}" for k, row in enumerate(_rows())]
    dataset = load_dataset(_table(folder, "path,label,split", rows))
    assert Counter(dataset.splits.tolist()) == {"train": 36, "val": 12, "test": 12}


def test_images_that_move_keep_their_draw(folder: Path) -> None:
    """With a relative table, with an absolute one, and with one that is written anew for the other place."""
    (folder / "here").mkdir()
    shutil.move(folder / "images", folder / "here" / "images")
    for kind in ("absolute", "relative"):
        digests = []
        for place in ("here", "there/deeper"):
            if not (folder / place).exists():
                shutil.copytree(folder / "here", folder / place)
            start = f"{folder / place}/" if kind == "absolute" else ""
            settings = _table(folder / place, "path,label", [start + row for row in _rows()])
            digests.append(load_dataset(settings).split_digest())
        assert digests[0] == digests[1], kind
    earlier = [load_dataset(dataclasses.replace(settings, split_rule=rule)).ids[3] for rule in (1, 2)]
    assert earlier == ["images/03.png"] * 2, "a relative path is the id, as before"


def test_a_split_file_is_whole_and_readable_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _table(folder, "path,label", _rows())
    monkeypatch.chdir(folder)
    dataset = load_dataset(DatasetSettings("csv", "table.csv", image_size=8))
    place = folder / "elsewhere"
    place.mkdir()
    dataset.save_split(place / "split.csv")
    monkeypatch.chdir(place)
    again = load_dataset(DatasetSettings("csv", "split.csv", image_size=8))
    assert again.split_digest() == dataset.split_digest()
    whole = (place / "split.csv").read_bytes()
    (place / "split.csv").write_bytes(whole[:1000])  # as a full disk left it
    with pytest.raises(ValueError, match=r"split.csv line \d+: not 5 cells|line \d+: column 'label' is empty"):
        load_dataset(DatasetSettings("csv", "split.csv", image_size=8))
    monkeypatch.chdir(folder)
    dataset.mend_split(place / "split.csv")
    assert (place / "split.csv").read_bytes() == whole


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"positive_classes": split_words("melanoma, in situ")}, ["not melanoma, in situ", "melanoma, in situ"]),
        ({"positive_classes": split_words('nevus,"melanoma, in situ"')}, ["not nevus,melanoma, in situ", None]),
        (
            {"classes": (split_words("nevus,keratosis"), split_words("melanoma, in situ"))},
            ["nevus,keratosis", "melanoma, in situ"],
        ),
    ],
)
def test_a_label_with_a_comma_can_be_named(flags: dict[str, object], expected: list[str | None], folder: Path) -> None:
    labels = ("nevus", "keratosis", '"melanoma, in situ"')
    settings = _table(folder, "path,label", [f"images/{k:02d}.png,{labels[k % 3]}" for k in range(60)])
    names = load_dataset(dataclasses.replace(settings, **flags)).class_names  # type: ignore[arg-type]
    assert names[0] == expected[0]
    assert expected[1] in (None, names[1])


def test_a_word_that_is_a_label_and_a_list_is_ambiguous(folder: Path) -> None:
    labels = ("a", "b", '"a,b"')
    settings = _table(folder, "path,label", [f"images/{k:02d}.png,{labels[k % 3]}" for k in range(60)])
    with pytest.raises(ValueError, match="'a,b' is a label and a list of labels; quote"):
        load_dataset(dataclasses.replace(settings, positive_classes=split_words("a,b")))
    quoted = dataclasses.replace(settings, positive_classes=split_words('"a,b"'))
    assert load_dataset(quoted).class_names == ["not a,b", "a,b"]


@pytest.mark.parametrize(
    ("column", "header", "message"),
    [
        ({"label_column": "1"}, "path,label", "no column '1' among path, label; correct --label-column 1, or rename"),
        ({"group_column": "patient"}, "path,label", "no column 'patient' .*; correct --group-column patient"),
        ({"label_column": "ill"}, "path,Ill", "no column 'ill' among path, Ill; write --label-column Ill"),
    ],
)
def test_the_flag_that_names_no_column_is_told(column: dict[str, str], header: str, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(dataclasses.replace(_table(folder, header, _rows()), **column))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "images/00.png,sick,0",
            "lines 2 and 62: id '0' occurs twice; remove one of these lines, or train with --group-copies drop",
        ),
        ("images/00.png,well,0", "lines 2 and 62: .* its labels are 'sick' and 'well'"),
        ("images/../images/00.png,sick,0", "lines 2 and 62: .*; give each image an id of its own"),
    ],
)
def test_two_rows_of_one_id_are_named_with_the_remedy(row: str, message: str, folder: Path) -> None:
    rows = [f"{row},{number}" for number, row in enumerate(_rows())]
    for number in range(60):  # the pictures of the fixture are all alike
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(
            folder / "images" / f"{number:02d}.png"
        )
    settings = _table(folder, "path,label,id", [*rows, row])
    with pytest.raises(ValueError, match=message):
        load_dataset(settings)
    if "--group-copies drop" in message:
        assert len(load_dataset(dataclasses.replace(settings, group_copies="drop")).ids) == 60
