"""Data sets that a process prepares for its forks."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ttc.datasets import DatasetSettings, TensorImages, load_dataset, residence
from ttc.datasets.residence import keep, kept


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(residence, "_KEPT", {})
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 2)
    return path


def test_a_kept_data_set_is_the_one_that_loading_gives(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that loading tells; several seeds share their images."""
    caplog.set_level(logging.INFO, "ttc")
    monkeypatch.setattr(logging.getLogger("ttc"), "propagate", True)
    everything = [DatasetSettings("arrays", str(file), class_ratios=(0.9, 0.1), seed=seed) for seed in (0, 1)]
    fresh, told = [], []
    for settings in everything:
        caplog.clear()
        fresh.append(load_dataset(settings))
        told.append([(record.name, record.levelname, record.getMessage()) for record in caplog.records])
    assert told[0]
    for settings in everything:
        keep(settings, load_dataset)
    for settings, expected, lines in zip(everything, fresh, told, strict=True):
        caplog.clear()
        dataset = load_dataset(settings, expected.preprocessing)
        assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == lines
        assert dataset is not expected
        assert dataset.split_digest() == expected.split_digest()
        assert dataset.content_digest == expected.content_digest
        assert dataset.preprocessing == expected.preprocessing
        assert torch.equal(dataset.images[torch.arange(60)], expected.images[torch.arange(60)])
    both = [kept(settings, None) for settings in everything]
    assert all(dataset is not None and isinstance(dataset.images, TensorImages) for dataset in both)
    assert residence.kept_bytes() == 60 * 8 * 8


def test_what_has_changed_or_is_asked_for_otherwise_is_not_taken(file: Path) -> None:
    settings = DatasetSettings("arrays", str(file))
    keep(settings, load_dataset)
    dataset = kept(settings, None)
    assert dataset is not None
    assert kept(DatasetSettings("arrays", str(file), seed=1), None) is None
    other = load_dataset(DatasetSettings("arrays", str(file), image_size=4)).preprocessing
    assert kept(settings, other) is None
    os.utime(file, ns=(1, 1))
    assert kept(settings, None) is None
