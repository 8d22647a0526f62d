"""Losses that are no numbers, and embeddings that collapse."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ttc.augment import PRESETS, ViewGenerator
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.monitor import CollapseWatch, LossMonitor


def add(monitor: LossMonitor, step: int, loss: float, features: Tensor | None = None) -> None:
    features = torch.ones(3, 2, 4) if features is None else features
    monitor.add(step, torch.tensor(loss), {"objective": torch.tensor(loss)}, torch.tensor([4, 5, step]), features)


def test_losses_are_averaged_since_the_last_read(tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=4.0)
    assert not monitor.pending
    assert monitor.read() == {}
    for step, loss in enumerate((1.0, 2.0, 6.0), 1):
        add(monitor, step, loss)
    assert monitor.pending
    found = monitor.read()
    assert found["train/loss"] == pytest.approx(3.0)
    assert found["train/loss_over_collapse"] == pytest.approx(0.75)
    assert found["train/objective"] == pytest.approx(3.0)
    assert not monitor.pending
    add(monitor, 4, 8.0)
    assert monitor.read()["train/loss"] == pytest.approx(8.0)


def test_without_a_collapse_value_there_is_no_ratio(tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=None)
    add(monitor, 1, 1.0)
    assert "train/loss_over_collapse" not in monitor.read()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_is_reported_with_its_batch(bad: float, tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=None)
    add(monitor, 7, 1.0)
    add(monitor, 8, bad, torch.tensor([3.0, 4.0, 0.0]).expand(3, 2, 3))
    add(monitor, 9, bad)
    with pytest.raises(ValueError, match=r"the loss of step 8 is not a finite number; see .*bad_step\.json"):
        monitor.read()
    report = json.loads((tmp_path / "bad_step.json").read_text())
    assert report == {"step": 8, "sample_ids": [4, 5, 8], "feature_norms": [5.0] * 6}


def test_features_that_are_no_numbers_count_though_the_loss_is_finite(tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=None)
    features = torch.ones(3, 2, 4)
    features[1, 0, 2] = torch.nan
    add(monitor, 2, 0.0, features)
    with pytest.raises(ValueError, match="the loss of step 2"):
        monitor.read()
    norms = json.loads((tmp_path / "bad_step.json").read_text())["feature_norms"]
    assert norms == [2.0, 2.0, None, 2.0, 2.0, 2.0]


class Fixed(nn.Module):
    """Embeds every image in the same place, or by its brightest pixel."""

    def __init__(self, collapsed: bool) -> None:
        super().__init__()
        self.collapsed = collapsed
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = images.flatten(1)[:, :16]
        rows = torch.ones_like(rows) if self.collapsed else rows
        return rows, nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSettings(name="digits", class_ratios=(0.9, 0.1)))


def watch(digits: Dataset, *, collapsed: bool, value: float | None = None) -> CollapseWatch:
    views = ViewGenerator(PRESETS["digits"], 8, digits.mean, digits.std, 0)
    return CollapseWatch(Fixed(collapsed), digits, views, value)


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ttc"), "propagate", True)
    return caplog


def test_a_collapse_is_told_once_and_not_at_the_start(digits: Dataset, warnings_of: pytest.LogCaptureFixture) -> None:
    watched = watch(digits, collapsed=True)
    assert watched.measure(2, 5.0)["watch/mean_cosine"] == pytest.approx(1.0)
    assert not warnings_of.records
    watched.measure(3, 5.0)
    assert len(warnings_of.records) == 1
    assert "collapse: mean cosine 1.000" in warnings_of.records[0].getMessage()
    watched.measure(4, 5.0)
    assert len(warnings_of.records) == 1


def test_a_loss_at_its_collapse_value_is_told(digits: Dataset, warnings_of: pytest.LogCaptureFixture) -> None:
    watch(digits, collapsed=False, value=5.0).measure(5, 5.2)
    watch(digits, collapsed=False, value=5.0).measure(5, None)
    assert not warnings_of.records
    watch(digits, collapsed=False, value=5.0).measure(5, 5.01)
    assert len(warnings_of.records) == 1
    assert "loss 5.010 against 5.000" in warnings_of.records[0].getMessage()


def test_what_is_watched_repeats_and_leaves_the_network_as_it_was(digits: Dataset) -> None:
    watched = watch(digits, collapsed=False)
    first = watched.measure(1, None)
    assert first == watched.measure(2, None)
    assert {"watch/SAA_class0", "watch/SAA_class1", "watch/CAC_class0", "watch/effective_rank"} <= first.keys()
    assert watched._network.training
    pictures = watched.sample_views()
    assert pictures.shape == (32, 1, 8, 8)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
