"""By what a data set is known again, how much of the images is seen, and what is told about depths."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processes import run
from ttc.datasets import DatasetSettings, describe, load_dataset
from ttc.models.pretrained import load_pretrained
from ttc.run import checkpoint

CPU = torch.device("cpu")


def write_images(folder: Path, *, count: int = 30, shape: tuple[int, int] = (16, 16), form: str = "bmp") -> Path:
    """Write two class folders of gray images, all of one length."""
    for name in ("common", "rare"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([number, len(name)]).integers(0, 200, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.{form}")
    return folder


def invert(paths: list[Path]) -> None:
    """Invert images; their length stays."""
    for path in paths:
        pixels = 255 - np.asarray(Image.open(path))
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images and a run on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images")
    words = ("--dataset", "imagefolder", "--data-root", folder / "images", "--image-size", 16, "--batch-size", 16)
    more = ("--method", "simclr", "--encoder", "convnet-w8", "--epochs", 0, "--num-workers", 0, "--output", "run")
    result = run("pretrain", *words, *more, folder=folder)
    assert result.code == 0, result.stderr
    return folder


CHANGES: dict[str, Callable[[Path], None]] = {
    "all inverted": lambda root: invert(sorted(root.rglob("*.bmp"))),
    "one class inverted": lambda root: invert(sorted((root / "rare").iterdir())),
    "a few replaced": lambda root: invert(sorted((root / "common").iterdir())[::9]),
    "two exchanged": lambda root: [
        path.rename(root / name)
        for path, name in zip(
            [(root / "rare" / "000.bmp").rename(root / "a"), (root / "rare" / "001.bmp").rename(root / "b")],
            ("rare/001.bmp", "rare/000.bmp"),
            strict=True,
        )
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_images_with_another_content_are_refused(change: str, trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained / "images", tmp_path / "images"))
    path = str(trained / "run" / "checkpoints" / "last.pt")
    load_pretrained(path, str(root), 0, CPU)  # moved, but the same
    CHANGES[change](root)
    with pytest.raises(ValueError, match="the images have changed since, some have another content") as caught:
        load_pretrained(path, str(root), 0, CPU)
    assert "--data-root" in str(caught.value)


def test_every_script_refuses_them_and_old_checkpoints_are_taken(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained / "images", tmp_path / "images"))
    invert(sorted(root.rglob("*.bmp")))
    path = trained / "run" / "checkpoints" / "last.pt"
    result = run("linear_eval", "--checkpoint", path, "--data-root", root, "--output", "out", folder=tmp_path)
    assert result.code == 1
    assert result.stderr.splitlines()[-1].startswith("error: --checkpoint")
    state = checkpoint.load(path, "pretrain")
    del state["description"]["content_digest"]
    checkpoint.save(tmp_path / "old.pt", "pretrain", {k: v for k, v in state.items() if k not in ("format", "kind")})
    assert load_pretrained(str(tmp_path / "old.pt"), str(root), 0, CPU).description.content_digest is None


def test_a_run_is_not_continued_on_other_images(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    folder = tmp_path / "copy"
    (folder / "run" / "result.json").unlink()
    invert(sorted((folder / "images").rglob("*.bmp")))
    words = ("--dataset", "imagefolder", "--data-root", folder / "images", "--image-size", 16, "--batch-size", 16)
    more = ("--method", "simclr", "--encoder", "convnet-w8", "--epochs", 0, "--num-workers", 0, "--output", "run")
    result = run("pretrain", *words, *more, folder=folder)
    assert result.code == 1
    assert "was trained on other images" in result.stderr.splitlines()[-1]


def test_the_digest_of_images_in_memory_is_that_of_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    from ttc.datasets.readers import digits

    settings = DatasetSettings("digits")
    first, again, resized = (
        load_dataset(each).content_digest for each in (settings, settings, DatasetSettings("digits", image_size=12))
    )
    assert first == again == resized
    source = digits.read(settings)
    source.pixels[:] = 255 - source.pixels  # type: ignore[index]  # digits are in memory
    monkeypatch.setattr(digits, "read", lambda _: source)
    assert load_dataset(settings).content_digest != first


@pytest.mark.parametrize("mode", ["off", "disk"])
def test_the_digest_is_the_same_with_a_cache(mode: str, trained: Path, tmp_path: Path) -> None:
    settings = DatasetSettings(
        "imagefolder", str(trained / "images"), image_size=16, cache=mode, cache_folder=str(tmp_path)
    )
    stored = checkpoint.load(trained / "run" / "checkpoints" / "last.pt", "pretrain")["description"]["content_digest"]
    assert load_dataset(settings).content_digest == stored


@pytest.mark.parametrize("changed", ["all", "one"])
def test_sets_with_equal_names_sizes_and_times_share_no_cache(changed: str, tmp_path: Path) -> None:
    first = write_images(tmp_path / "v1", count=400 if changed == "one" else 30, shape=(4, 4))
    second = Path(shutil.copytree(first, tmp_path / "v2"))
    files = sorted(second.rglob("*.bmp"))
    invert(files if changed == "all" else files[77:78])
    for path in tmp_path.rglob("*.bmp"):
        os.utime(path, ns=(0, 0))
    found = {}
    for root in (first, second):
        for mode in ("off", "disk"):
            settings = DatasetSettings(
                "imagefolder", str(root), image_size=4, cache=mode, cache_folder=str(tmp_path / "c")
            )
            dataset = load_dataset(settings)
            found[root.name, mode] = dataset.images[torch.arange(len(dataset.ids))]
    assert torch.equal(found["v1", "disk"], found["v1", "off"])
    assert torch.equal(found["v2", "disk"], found["v2", "off"])
    assert not torch.equal(found["v1", "off"], found["v2", "off"])


def test_everything_that_changes_pixels_makes_another_cache(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", shape=(8, 20))
    variants: list[dict[str, object]] = [
        {}, {"framing": "pad"}, {"framing": "squash"}, {"stored_size": 12}, {"dicom_window": (1.0, 2.0)},
        {"intensity": (0.0, 9.0)}, {"edition": 1},
    ]  # fmt: skip
    for each in variants:
        load_dataset(
            DatasetSettings(
                "imagefolder", str(root), image_size=8, cache="disk", cache_folder=str(tmp_path / "c"), **each
            )
        )  # type: ignore[arg-type]
    assert len([path for path in (tmp_path / "c").iterdir() if path.is_dir()]) == len(variants)


@pytest.mark.parametrize(
    ("shape", "share"), [((20, 50), "60 %"), ((50, 20), "60 %"), ((20, 21), None), ((8, 100), "92 %")]
)
def test_the_plan_tells_what_is_cut_off(shape: tuple[int, int], share: str | None, tmp_path: Path) -> None:
    root = str(write_images(tmp_path, shape=shape, form="png"))
    lines = [
        line for line in describe(load_dataset(DatasetSettings("imagefolder", root, image_size=8))) if "framing" in line
    ]
    assert lines == (
        [] if share is None else [f"framing: {share} of the images' area is cut off; --framing pad or squash shows all"]
    )
    for framing in ("pad", "squash"):
        dataset = load_dataset(DatasetSettings("imagefolder", root, image_size=8, framing=framing))
        assert not any("framing" in line for line in describe(dataset))


def test_depths_that_differ_in_training_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_images(tmp_path, form="png")
    for path in (root / "rare").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(DatasetSettings("imagefolder", str(root), image_size=16))
    assert "the training images have different depths, 16-bit and 8-bit" in caplog.text
    assert dataset.preprocessing.decoding.white == 4095
    bright = dataset.images[torch.arange(60)].float().mean((1, 2, 3))
    assert float((bright[:30].mean() - bright[30:].mean()).abs()) < 5  # neither class is darker


def test_flags_for_files_are_refused_without_files() -> None:
    given: list[dict[str, object]] = [
        {"framing": "pad"},
        {"intensity": "full"},
        {"dicom_window": (1.0, 2.0)},
        {"stored_size": 9},
    ]
    for each in given:
        with pytest.raises(ValueError, match=r"--.* is for image files; --dataset digits has none"):
            load_dataset(DatasetSettings("digits", **each))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"intensity": (5.0, 5.0)}, "--intensity 5 5: LOW must be below HIGH"),
        ({"intensity": "wide"}, "--intensity wide is unknown"),
        ({"framing": "cut"}, "--framing cut is unknown"),
        ({"dicom_window": (40.0, 0.0)}, "the width 0 must be at least 1"),
    ],
)
def test_wrong_values(values: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DatasetSettings("csv", **values)  # type: ignore[arg-type]
