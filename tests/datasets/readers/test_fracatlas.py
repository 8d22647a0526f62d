from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ttc.datasets import DatasetSettings, load_dataset

Samples = Callable[[str], Path]


@pytest.fixture
def archive(samples: Samples, tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples("fracatlas") / "FracAtlas", tmp_path / "FracAtlas"))


def settings(root: Path, **more: object) -> DatasetSettings:
    return DatasetSettings("fracatlas", str(root), image_size=16, **more)  # type: ignore[arg-type]


def test_stratified_split_of_the_unpacked_archive(archive: Path) -> None:
    for root in (archive, archive.parent):
        dataset = load_dataset(settings(root))
        assert dataset.class_names == ["not fractured", "fractured"]
        assert dataset.class_counts("train") == [28, 9]
        assert dataset.class_counts("val") == [4, 1]
        assert dataset.class_counts("test") == [8, 2]
        assert (dataset.channels, dataset.minority_class) == (1, 1)


def test_damaged_files_stop_or_are_left_out(archive: Path) -> None:
    names = ["IMG0000003.jpg", "IMG0000005.jpg"]
    files = [archive / "images" / "Non_fractured" / name for name in names]
    files[0].write_bytes(files[0].read_bytes()[:300])
    files[1].unlink()
    dataset = load_dataset(settings(archive, on_bad_image="skip"))
    assert [path for path, _ in dataset.bad_images] == [str(file) for file in files]
    assert len(dataset.ids) == 50
    with pytest.raises(ValueError, match=r"cannot read image .*IMG0000005.jpg: No such file .*--on-bad-image skip"):
        load_dataset(settings(archive))


def test_files_that_are_not_listed_are_told(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = archive / "dataset.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "IMG0000001" not in line))
    assert len(load_dataset(settings(archive)).ids) == 51
    assert "1 file is not in dataset.csv" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("fractured", "broken", 1), "no column 'fractured' among image_id, hand"),
        (lambda text: text.replace("image_id", "name", 1), "no column 'image_id'"),
        (
            lambda text: text.replace(",0\r\n", ",2\r\n", 1),
            "line 2: 'IMG0000000.jpg' with fractured '2'",
        ),
        (lambda text: text.replace("IMG0000001", "../IMG0000001"), "line 3"),
        (lambda text: text.replace("IMG0000001", "IMG0000000"), "names an image twice"),
    ],
)
def test_damaged_tables(archive: Path, change: Callable[[str], str], message: str) -> None:
    table = archive / "dataset.csv"
    content = table.read_bytes().decode()
    assert change(content) != content
    table.write_bytes(change(content).encode())
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(settings(archive))
    assert "\n" not in str(caught.value)


def test_wrong_roots(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs --data-root"):
        load_dataset(DatasetSettings("fracatlas"))
    with pytest.raises(ValueError, match=r"dataset.csv cannot be read \(No such file .*pass the folder FracAtlas"):
        load_dataset(settings(tmp_path / "nowhere"))
    shutil.rmtree(archive / "images" / "Fractured")
    with pytest.raises(ValueError, match="has no folder images/Fractured"):
        load_dataset(settings(archive))
