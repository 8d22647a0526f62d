from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ttc.datasets.cache import open_cache
from ttc.datasets.checks import leaks
from ttc.datasets.checks.leaks import Samples, check_leaks, check_unique_ids, warn_about_equal_pixels
from ttc.datasets.images import FileImages, Images, TensorImages
from ttc.datasets.pixels.preprocessing import Decoding


def test_equal_pixels_across_splits_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    data = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).repeat(1, 1, 2, 2)
    data[4] = data[0]
    data[5] = data[1]
    with caplog.at_level(logging.WARNING, "ttc"):
        splits = ["train", "test", "train", "val", "val", "test"]
        warn_about_equal_pixels(TensorImages(data), Samples(list("abcdef"), splits, list("xxxxxy")))
    assert "1 image has the same pixels as an image of another split, for example e" in caplog.text
    assert "1 image has the same pixels as an image under another label, for example f" in caplog.text


def test_distinct_pixels_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    data = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    warn_about_equal_pixels(TensorImages(data), Samples(list("abcd"), ["train", "test", "val", "train"], ["x"] * 4))
    assert not caplog.text


def test_repeated_id() -> None:
    check_unique_ids(["a", "b"])
    with pytest.raises(ValueError, match="id 'a' occurs twice"):
        check_unique_ids(["a", "b", "a"])


def test_content_check_has_a_limit_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        Path(path).write_bytes(b"same")
    samples, images = Samples(["a", "b"], ["train", "test"], ["x", "x"], None, paths), FileImages(paths, Decoding(4, 1))
    with pytest.raises(ValueError, match="are the same image"):
        check_leaks(samples, images)
    monkeypatch.setattr(leaks, "MAX_HASHED_FILES", 1)
    check_leaks(samples, images)
    assert "is not compared between splits" in caplog.text


@pytest.mark.parametrize("cache", ["off", "ram"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": {"suffix": "bmp"}}, r"0.png \(train\) and .*1.bmp \(test\) are the same image"),
        (
            {"b": {"suffix": "bmp", "split": "train", "label": "y"}},
            r"0.png \(x\) and .*1.bmp \(y\) .* under two labels",
        ),
        ({"b": {"split": "train", "label": "y"}}, r"0.png \(x\) and .*1.png \(y\) .* under two labels"),
        ({"b": {"split": "train", "label": "x"}}, None),
        ({"b": {"split": "train", "label": "x", "suffix": "bmp"}}, None),
    ],
)
def test_copies_are_found_by_their_pixels(
    cache: str, changes: dict[str, dict[str, str]], message: str | None, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 9), dtype=np.uint8)
    paths, splits, labels = [], [], []
    plain = {"suffix": "png", "split": "test", "label": "x"}
    for number, (name, content) in enumerate({"a": 0, "b": 0, "c": 1}.items()):
        chosen = {**plain, **({"split": "train"} if name == "a" else {}), **changes.get(name, {})}
        paths.append(str(tmp_path / f"{number}.{chosen['suffix']}"))
        Image.fromarray(pixels[content]).save(paths[-1])
        splits.append(chosen["split"])
        labels.append(chosen["label"])
    images: Images = FileImages(paths, Decoding(9, 1))
    if cache == "ram":
        images = open_cache(FileImages(paths, Decoding(9, 1)), list("abc"), "ram", None)[0]
    samples = Samples(list("abc"), splits, labels, None, paths)
    if message is None:
        check_leaks(samples, images, decode=True)
        return
    with pytest.raises(ValueError, match=message):
        check_leaks(samples, images, decode=True)
    if "suffix" in changes["b"] and cache == "off":
        check_leaks(samples, images)  # bytes differ


@pytest.mark.parametrize(
    ("paths", "labels", "splits", "message"),
    [
        (["a.png", "./a.png"], "xx", ["train", "train"], r"a.png is listed twice \(ids '0' and '1'\)"),
        (["a.png", "b/../a.png"], "xy", ["train", "test"], r"a.png has two labels, 'x' and 'y'"),
        (["a.png", "a.png"], "xx", ["train", "test"], r"path .*a.png' is in two splits"),
    ],
)
def test_one_file_is_one_sample(
    paths: list[str], labels: str, splits: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    Image.new("L", (4, 4)).save("a.png")
    with pytest.raises(ValueError, match=message):
        check_leaks(Samples(["0", "1"], splits, labels, None, paths), FileImages(paths, Decoding(4, 1)))
    if splits == ["train", "train"]:  # runs of earlier versions are evaluated as they were trained
        check_leaks(Samples(["0", "1"], splits, labels, None, paths), FileImages(paths, Decoding(4, 1)), rule=1)
