from __future__ import annotations

import csv
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ttc.datasets import DatasetSettings, load_dataset

Samples = Callable[[str], Path]


@pytest.fixture
def root(samples: Samples, tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples("ukbb"), tmp_path / "ukbb"))


def settings(root: Path, **more: object) -> DatasetSettings:
    return DatasetSettings("ukbb-cardiac", str(root), **more)  # type: ignore[arg-type]


def change_images(root: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> list[str]:
    images = torch.load(root / "cardiac.pt", weights_only=True)
    change(images)
    torch.save(images, root / "cardiac.pt")
    return sorted(images)


def participants(root: Path) -> list[str]:
    with (root / "labels.csv").open(newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_split_by_participant(root: Path) -> None:
    dataset = load_dataset(settings(root))
    assert (dataset.class_names, dataset.image_size, dataset.channels) == (["no", "yes"], 128, 3)
    assert [dataset.class_counts(split) for split in ("train", "val", "test")] == [[36, 10], [2, 1], [2, 1]]
    assert dataset.minority_class == 1
    images = torch.load(root / "cardiac.pt", weights_only=True)
    expected = torch.stack([images[each] for each in sorted(images)]) * 255
    assert torch.equal(dataset.images[torch.arange(52)], expected.round().to(torch.uint8))


def test_no_id_is_written_anywhere(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = participants(root)
    change_images(root, lambda images: (images.pop(ids[0]), images[ids[1]].fill_(torch.nan)))
    with caplog.at_level(logging.DEBUG):
        dataset = load_dataset(settings(root, on_bad_image="skip"))
        dataset.save_split(tmp_path / "split.csv")
    assert "1 participant has an image but no label, or the reverse" in caplog.text
    assert "left out image ukbb-cardiac/000000: holds NaN or infinity" in caplog.text
    written = (
        caplog.text + (tmp_path / "split.csv").read_text() + str(asdict(dataset.settings)) + str(dataset.bad_images)
    )
    assert not [each for each in ids if each in written]
    assert len(dataset.ids) == 50


def test_the_split_of_a_participant_does_not_depend_on_the_order_of_the_file(root: Path) -> None:
    first = load_dataset(settings(root))
    ids = participants(root)
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    images = torch.load(root / "cardiac.pt", weights_only=True)
    torch.save({int(each): images[each] for each in reversed(ids)}, root / "cardiac.pt")
    assert load_dataset(settings(root)).split_digest() == first.split_digest()


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(1 / 255, lambda x: x), (1.0, lambda x: x), (16.0, lambda x: (x - x.min()) * 255 / (x.max() - x.min()))],
    ids=["unit", "bytes", "stretched"],
)
def test_value_ranges(root: Path, scale: float, expected: Callable[[torch.Tensor], torch.Tensor]) -> None:
    values = torch.arange(3 * 128 * 128).remainder(200).float().reshape(3, 128, 128) + 20
    first = change_images(root, lambda images: images.update({sorted(images)[0]: values * scale}))[0]
    assert first == min(participants(root))
    found = load_dataset(settings(root)).images[torch.tensor([0])][0]
    assert torch.equal(found, expected(values).round().to(torch.uint8))


def test_another_label_column(root: Path) -> None:
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("id,label", "id,cad_broad").replace(",1\n", ",True\n"))
    with pytest.raises(ValueError, match=r"no column 'label' among id, cad_broad; .*--label-column"):
        load_dataset(settings(root))
    assert load_dataset(settings(root, label_column="cad_broad")).minority_class == 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("labels.csv", lambda b: b.replace(b"id,", b"eid,"), "no column 'id' among eid, label"),
        ("labels.csv", lambda b: b.replace(b",0", b",unknown", 1), "line 2 has no 0 or 1"),
        ("labels.csv", lambda b: b + b.splitlines(keepends=True)[1], "line 54 has an id again"),
        ("labels.csv", lambda b: b"id,label\nsomebody,1\n", "no participant has both an image and a label"),
        ("labels.csv", lambda b: b"\xff\xfe", "is no UTF-8 CSV file"),
        ("cardiac.pt", lambda b: b[: len(b) // 2], "is damaged or holds more than tensors"),
        ("cardiac.pt", lambda b: b"text", "is damaged or holds more than tensors"),
    ],
)
def test_damage_is_one_line_without_ids(root: Path, name: str, change: Callable[[bytes], bytes], message: str) -> None:
    ids = participants(root)
    (root / name).write_bytes(change((root / name).read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(settings(root))
    assert "\n" not in str(caught.value)
    assert not [each for each in ids if each in str(caught.value)]


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hostile",)


def test_hostile_and_foreign_files(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Hostile(), [torch.zeros(1)], {"9": 1.0}):
        torch.save(content, root / "cardiac.pt")
        with pytest.raises(ValueError, match=r"holds more than tensors|no dictionary of tensors"):
            load_dataset(settings(root))
    assert not (tmp_path / "hostile").exists()


def test_images_of_another_shape_and_wrong_folders(root: Path, tmp_path: Path) -> None:
    change_images(root, lambda images: images.update({sorted(images)[2]: torch.zeros(1, 64, 64)}))
    with pytest.raises(ValueError, match=r"image 2 in the order of ids has the shape 1 x 64 x 64, not 3 x 128 x 128"):
        load_dataset(settings(root))
    (root / "second.csv").touch()
    with pytest.raises(ValueError, match=r"has 2 \.csv files"):
        load_dataset(settings(root))
    for wrong, message in ((None, "needs --data-root"), (str(tmp_path / "no"), "is no folder")):
        with pytest.raises(ValueError, match=message):
            load_dataset(DatasetSettings("ukbb-cardiac", wrong))
