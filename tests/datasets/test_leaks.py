from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from ttc.datasets import leaks
from ttc.datasets.images import TensorImages
from ttc.datasets.leaks import check_leaks, check_unique_ids, warn_about_equal_pixels


def test_equal_pixels_across_splits_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    data = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).repeat(1, 1, 2, 2)
    data[4] = data[0]
    data[5] = data[1]
    with caplog.at_level(logging.WARNING, "ttc"):
        warn_about_equal_pixels(TensorImages(data), list("abcdef"), ["train", "test", "train", "val", "val", "test"])
    assert "1 images have the same pixels" in caplog.text
    assert "example e" in caplog.text


def test_distinct_pixels_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    data = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    warn_about_equal_pixels(TensorImages(data), list("abcd"), ["train", "test", "val", "train"])
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
    with pytest.raises(ValueError, match="are the same image"):
        check_leaks(["a", "b"], ["train", "test"], None, paths)
    monkeypatch.setattr(leaks, "MAX_HASHED_FILES", 1)
    check_leaks(["a", "b"], ["train", "test"], None, paths)
    assert "is not compared between splits" in caplog.text
