"""Losses that are no numbers, and embeddings that collapse."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.datasets import Dataset, DatasetSettings, load_dataset
from ttc.run import checkpoint
from ttc.training.monitor import CollapseWatch, LossMonitor, class_views


def add(monitor: LossMonitor, step: int, loss: float, features: Tensor | None = None) -> None:
    features = torch.ones(3, 2, 4) if features is None else features
    monitor.add(step, torch.tensor(loss), {"objective": torch.tensor(loss)}, torch.tensor([4, 5, step]), features)


def test_losses_are_averaged_since_the_last_read(tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=4.0)
    assert monitor.read() == {}
    for step, loss in enumerate((1.0, 2.0, 6.0), 1):
        add(monitor, step, loss)
    found = monitor.read()
    assert found["train/loss"] == pytest.approx(3.0)
    assert found["train/loss_over_collapse"] == pytest.approx(0.75)
    assert found["train/objective"] == pytest.approx(3.0)
    assert monitor.read() == {}
    add(monitor, 4, 8.0)
    assert monitor.read()["train/loss"] == pytest.approx(8.0)


def test_without_a_collapse_value_there_is_no_ratio(tmp_path: Path) -> None:
    monitor = LossMonitor(tmp_path, collapse_value=None)
    add(monitor, 1, 1.0)
    assert "train/loss_over_collapse" not in monitor.read()


def test_what_is_pending_passes_through_a_checkpoint(tmp_path: Path) -> None:
    """Stopped after any step, and after several, the next process reads what one process would have read."""
    losses = (0.1, 0.7, 1e-3, 5.3)
    whole = LossMonitor(tmp_path, collapse_value=4.0)
    for step, loss in enumerate(losses, 1):
        add(whole, step, loss)
    expected, path = whole.read(), tmp_path / "last.pt"
    assert whole.pending() == {}
    for stops in ({1}, {2}, {3}, {1, 2, 3}):
        monitor = LossMonitor(tmp_path, collapse_value=4.0)
        for step, loss in enumerate(losses, 1):
            add(monitor, step, loss)
            if step in stops:
                checkpoint.save(path, "test", {"pending": monitor.pending()})
                monitor = LossMonitor(tmp_path, collapse_value=4.0)
                monitor.restore(checkpoint.load(path, "test")["pending"], torch.device("cpu"))
        assert monitor.read() == expected
        assert monitor.read() == {}


def test_what_other_ranks_left_is_averaged(tmp_path: Path) -> None:
    rows = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [6.0, 60.0]]])
    monitor = LossMonitor(tmp_path, collapse_value=None)
    monitor.restore({"names": ["objective"], "steps": [1, 2], "rows": rows}, torch.device("cpu"))
    assert monitor.read() == {"train/loss": 3.0, "train/objective": 30.0}


def test_a_bad_step_is_never_handed_on_and_is_found_behind_restored_ones(tmp_path: Path) -> None:
    before = LossMonitor(tmp_path, collapse_value=None)
    add(before, 1, 1.0)
    add(before, 2, 2.0)
    monitor = LossMonitor(tmp_path, collapse_value=None)
    monitor.restore(before.pending(), torch.device("cpu"))
    add(monitor, 3, 1.0)
    add(monitor, 4, float("nan"))
    with pytest.raises(ValueError, match="the loss of step 4 is not a finite number"):
        monitor.pending()
    assert json.loads((tmp_path / "bad_step.json").read_text())["sample_ids"] == [4, 5, 4]


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
    """Embeds every image in the same place, as nothing at all, or by its brightest pixels; counts in eval mode only."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.unused = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm1d(16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = images.flatten(1)[:, :16]
        self.norm(rows)
        if self.kind != "spread":
            rows = torch.full_like(rows, 0.0 if self.kind == "dead" else 1.0)
        return rows, nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetSettings(name="digits", class_ratios=(0.9, 0.1)))


def view_generator(digits: Dataset) -> ViewGenerator:
    return ViewGenerator(PRESETS["digits"], 8, digits.mean, digits.std, 0)


def watch(digits: Dataset, kind: str = "spread") -> CollapseWatch:
    return CollapseWatch(Fixed(kind), digits, view_generator(digits))


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ttc"), "propagate", True)
    return caplog


def test_a_collapse_is_told_once_and_not_at_the_start(digits: Dataset, warnings_of: pytest.LogCaptureFixture) -> None:
    watched, latest = watch(digits, "collapsed"), {"train/loss": 5.0}
    for epoch, count, told in ((2, 0, 0), (3, 1, 1), (4, 2, 1), (5, 3, 1)):
        found = watched.measure(epoch, latest)
        assert found["watch/mean_cosine"] == pytest.approx(1.0)
        assert found["watch/collapsed"] == count
        assert len(warnings_of.records) == told
        latest |= found
    assert "collapse: mean cosine 1.000" in warnings_of.records[0].getMessage()
    assert watch(digits).measure(6, latest)["watch/collapsed"] == 0


def test_a_dead_network_is_a_collapse(digits: Dataset, warnings_of: pytest.LogCaptureFixture) -> None:
    found = watch(digits, "dead").measure(3, {})
    assert found["watch/dead_samples"] == 97
    assert found["watch/collapsed"] == 1
    assert "no unit is active" in warnings_of.records[0].getMessage()


def test_a_loss_at_its_collapse_value_is_told(digits: Dataset, warnings_of: pytest.LogCaptureFixture) -> None:
    watched = watch(digits)
    watched.measure(5, {"train/loss": 5.2}, 5.0)
    watched.measure(5, {}, 5.0)
    watched.measure(5, {"train/loss": 5.01})
    assert not warnings_of.records
    watched.measure(5, {"train/loss": 5.01}, 5.0)
    assert len(warnings_of.records) == 1
    assert "loss 5.010 against 5.000" in warnings_of.records[0].getMessage()


def test_the_watch_repeats_and_touches_neither_network_nor_random_state(digits: Dataset) -> None:
    watched = watch(digits)
    before = {name: value.clone() for name, value in watched._network.state_dict().items()}
    random_state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the global one
    first = watched.measure(1, {})
    assert first == watched.measure(2, {})
    assert all(torch.equal(value, before[name]) for name, value in watched._network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert watched._network.training
    assert all(module.training for module in watched._network.modules())


def test_what_is_watched_agrees_with_its_definition(digits: Dataset) -> None:
    watched = watch(digits)
    found = watched.measure(1, {})
    assert {"watch/SAA_class0", "watch/SAA_class1", "watch/CAC_class0", "watch/effective_rank"} <= found.keys()
    rows = watched._rows
    assert set(digits.splits[rows]) == {"val"}
    views = view_generator(digits).views(digits.images[rows], rows, torch.full_like(rows, -1), 2)
    _, z = watched._network.eval()(views.flatten(0, 1))
    labels = digits.labels[rows].repeat_interleave(2)
    cosine = (z.double() @ z.double().T)[~torch.eye(len(z), dtype=torch.bool)]
    alike = (labels[:, None] == labels)[~torch.eye(len(z), dtype=torch.bool)]
    assert found["watch/mean_cosine_within"] == pytest.approx(float(cosine[alike].mean()), abs=1e-6)
    assert found["watch/mean_cosine_between"] == pytest.approx(float(cosine[~alike].mean()), abs=1e-6)


def test_the_probe_learns_from_balanced_training_images_and_is_tested_on_others(digits: Dataset) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    watched = watch(digits)
    taught, tested = watched._probe_rows, watched._rows
    assert set(digits.splits[taught]) == {"train"}
    assert torch.bincount(digits.labels[taught]).tolist() == [min(digits.class_counts("train"))] * 2
    plain = view_generator(digits).plain(digits.images[torch.cat([taught, tested])]).flatten(1)[:, :16].double().numpy()
    scaler = StandardScaler().fit(plain[: len(taught)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(plain[: len(taught)]), digits.labels[taught])
    scores = model.predict_proba(scaler.transform(plain[len(taught) :]))[:, 1]
    assert watched.measure(1, {})["watch/probe_auroc"] == pytest.approx(roc_auc_score(digits.labels[tested], scores))


def test_the_classes_are_shown_side_by_side(digits: Dataset) -> None:
    charts = watch(digits).charts()
    title = next(title for title in charts if title.startswith("SAA"))
    assert "class1 5,6,7,8,9, minority" in title
    assert charts[title] == ["watch/SAA_class0", "watch/SAA_class1"]
    assert {key for keys in charts.values() for key in keys} <= watch(digits).measure(1, {}).keys()


def test_pictures_show_plain_and_augmented_images_of_each_class(digits: Dataset) -> None:
    pictures = class_views(digits, view_generator(digits))
    assert list(pictures) == digits.class_names
    for label, grid in enumerate(pictures.values()):
        assert grid.shape == (32, 1, 8, 8)
        assert 0 <= float(grid.min()) <= float(grid.max()) <= 1
        train = digits.indices("train")
        rows = train[digits.labels[train] == label][:8]
        torch.testing.assert_close(grid[::4], digits.images[rows].float() / 255, atol=1e-6, rtol=0)
        assert not torch.equal(grid[1::4], grid[2::4])
