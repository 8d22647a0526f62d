from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.processes import CONTEXT
from ttc.datasets import CachedImages, Dataset, DatasetSettings, cache, load_dataset
from ttc.datasets.images import FileImages
from ttc.datasets.pixels.preprocessing import Decoding


@pytest.fixture
def root(samples: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples("imagefolder"), tmp_path / "images"))


def load(root: Path, mode: str, **more: object) -> Dataset:
    return load_dataset(DatasetSettings("imagefolder", str(root), image_size=16, cache=mode, **more))  # type: ignore[arg-type]


def pixels(dataset: Dataset) -> torch.Tensor:
    return dataset.images[torch.arange(len(dataset.ids))]


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    decoded: list[int] = []
    decode = cache.decode_bytes

    def counted(content: bytes, decoding: Decoding, number: int | None) -> torch.Tensor:
        decoded.append(len(content))
        return decode(content, decoding, number)

    monkeypatch.setattr(cache, "decode_bytes", counted)
    return decoded


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_the_pixels_are_the_same(root: Path, mode: str) -> None:
    plain, kept = load(root, "off"), load(root, mode)
    assert isinstance(kept.images, CachedImages)
    assert torch.equal(pixels(kept), pixels(plain))
    assert (kept.mean, kept.std, kept.split_digest()) == (plain.mean, plain.std, plain.split_digest())


def test_files_are_decoded_once_for_all_seeds_and_ratios(
    root: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decoded(monkeypatch)
    first = load(root, "disk")
    assert len(decoded) == len(first.ids) == 52
    load(root, "disk", seed=5, class_ratios=(0.8, 0.2), num_workers=2)
    assert len(decoded) == 52
    moved = root.rename(root.with_name("moved"))
    assert torch.equal(pixels(load(moved, "disk")), pixels(first))
    assert len(decoded) == 52
    load(moved, "disk", stored_size=30)
    assert len(decoded) == 104
    assert len([path for path in caches.iterdir() if path.is_dir()]) == 2


def test_a_changed_file_makes_another_cache(root: Path) -> None:
    before = load(root, "disk")
    file = root / "common" / "0003.png"
    shutil.copy(root / "common" / "0004.png", file)
    os.utime(file, ns=(7, 7))
    (root / "common" / "0004.png").unlink()
    after = load(root, "disk")
    assert not torch.equal(pixels(after)[3], pixels(before)[3])
    assert torch.equal(pixels(after)[3], pixels(before)[4])


def test_unreadable_files_are_remembered(root: Path) -> None:
    broken = root / "common" / "0003.png"
    broken.write_bytes(broken.read_bytes()[:100])
    plain = load(root, "off", on_bad_image="skip")
    for _ in range(2):
        kept = load(root, "disk", on_bad_image="skip")
        assert kept.bad_images == plain.bad_images
        assert torch.equal(pixels(kept), pixels(plain))
        with pytest.raises(ValueError, match=r"cannot read image .*0003.png: .*--on-bad-image skip"):
            load(root, "disk")


def test_damage_is_found_on_first_use(root: Path, caches: Path) -> None:
    load(root, "disk")
    (place,) = (path for path in caches.iterdir() if path.is_dir())
    content = bytearray((place / cache.PIXELS).read_bytes())
    content[-5] ^= 1
    (place / cache.PIXELS).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged at image 51; delete this folder") as caught:
        pixels(load(root, "disk"))
    assert str(place) in str(caught.value)
    (place / cache.PIXELS).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        load(root, "disk")
    (place / cache.CONTENTS).write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        load(root, "disk")


def test_equal_files_in_two_splits_are_found_without_reading_them(root: Path) -> None:
    ending = {"train": 1, "val": 4, "test": 7}
    for split in ending:
        for name in ("common", "rare"):
            (root / split / name).mkdir(parents=True)
            # File names that end in 1, 4 or 7: no image is in two splits but the copy.
            for number, file in enumerate(sorted((root / name).glob(f"*{ending[split]}.png"))):
                shutil.copy(file, root / split / name / f"{number}.png")
    shutil.copy(root / "train" / "rare" / "0.png", root / "test" / "rare" / "copy.png")
    for name in ("common", "rare"):
        shutil.rmtree(root / name)
    for mode in ("off", "disk"):
        with pytest.raises(ValueError, match="are the same image"):
            load(root, mode)


def test_memory_is_given_back(root: Path) -> None:
    user = cache.SHARED_MEMORY / f"ttc-{os.getuid()}"
    (user / "999999999").mkdir(parents=True, exist_ok=True)  # of a process that is gone
    kept = load(root, "ram")
    assert not (user / str(os.getpid())).exists()
    assert not (user / "999999999").exists()
    assert pixels(kept).any()


def test_no_room(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot take .* GiB \(Not a directory\); choose another --cache-folder"):
        load(root, "disk", cache_folder=str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    for mode, remedy in (("disk", "choose another --cache-folder"), ("ram", "use --cache disk")):
        with pytest.raises(ValueError, match=rf"No space left on device\); {remedy}"):
            load(root, mode, cache_folder=str(tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def _load_and_tell(root: str, folder: str, results: str) -> None:
    dataset = load_dataset(DatasetSettings("imagefolder", root, image_size=16, cache="disk", cache_folder=folder))
    (Path(results) / str(os.getpid())).write_text(str(int(pixels(dataset).long().sum())))


def test_jobs_that_start_together_build_once(root: Path, tmp_path: Path) -> None:
    folder, results = tmp_path / "cache", tmp_path / "results"
    results.mkdir()
    expected = int(pixels(load(root, "off")).long().sum())
    jobs = [CONTEXT.Process(target=_load_and_tell, args=(str(root), str(folder), str(results))) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert [file.read_text() for file in results.iterdir()] == [str(expected)] * 3
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    assert not list(folder.glob(".*.tmp"))


def test_leftovers_of_a_killed_job_are_removed(root: Path, tmp_path: Path) -> None:
    files = FileImages([str(root / "common" / "0000.png")], Decoding(16, 3))
    images, _ = cache.open_cache(files, ["a"], "disk", str(tmp_path))
    leftover = images.place.with_name(f".{images.place.name}.123.tmp")
    leftover.mkdir()
    shutil.rmtree(images.place)
    cache.open_cache(files, ["a"], "disk", str(tmp_path))
    assert not leftover.exists()


def test_settings() -> None:
    with pytest.raises(ValueError, match="--cache disc is unknown"):
        DatasetSettings("digits", cache="disc")
    with pytest.raises(ValueError, match="--stored-size is for image files"):
        load_dataset(DatasetSettings("digits", stored_size=9))
    assert dataclasses.replace(DatasetSettings("digits"), cache="ram").cache == "ram"
    assert len(load_dataset(DatasetSettings("digits", cache="ram")).ids) == 1797


def test_the_stored_square_is_at_least_the_input(root: Path) -> None:
    assert pixels(load(root, "off", stored_size=20)).shape[-1] == 20
    with pytest.raises(ValueError, match="--stored-size 15 is below the image size 16"):
        load(root, "off", stored_size=15)


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # who is in no list of users
    with pytest.raises(ValueError, match="--cache disk: this user has no home folder; name a folder with"):
        cache.cache_folder(None)
