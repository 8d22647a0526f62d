"""Between two log steps nothing in the training loop waits for the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.steps import trainer
from tests.views import generator, noise
from tests.waiting import META, waits, without_waiting
from ttc.batches.augment import PRESETS
from ttc.datasets import TensorImages, resident
from ttc.losses import METHODS


def test_the_test_sees_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.zeros(3, device=META)
    for action in (
        lambda: values.sum().item(),
        lambda: bool(values.any()),
        lambda: values.nonzero(),
        lambda: values[values > 0],
        lambda: torch.zeros(3).to(META),
        lambda: values.copy_(torch.zeros(3)),
        lambda: values.new_tensor([1.0, 2.0]),
        lambda: torch.tensor(3.0, device=META),
        lambda: values[torch.tensor([0, 1])],
        lambda: values.index_put_((torch.tensor([0]),), torch.ones(1, device=META)),
    ):
        assert waits(action, monkeypatch)
    for harmless in (lambda: values + 1, lambda: torch.zeros(3).to(META, non_blocking=True), lambda: values.mean()):
        assert not waits(harmless, monkeypatch)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_view_waits(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, ids = noise(4, 3, 12).to(META), torch.arange(4, device=META)
    made = generator(PRESETS[preset], 12)
    with without_waiting(monkeypatch):
        made.views(images, ids, ids, 2)
        made.plain(images)


@pytest.mark.parametrize("placed", ["images in main memory", "images on the device"])
@pytest.mark.parametrize(
    "words",
    [
        *(("--method", method) for method in METHODS),
        ("--method", "bcl", "--micro-batch-size", "16", "--minority-cutmix", "0.4"),
        ("--clip-gradient-norm", "1", "--optimizer", "adamw", "--batch-sampler", "balanced"),
        ("--ema-decay", "0.9"),
        ("--sam-rho", "0.05"),
    ],
    ids=" ".join,
)
def test_no_step_waits(words: tuple[str, ...], placed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if placed == "images in main memory" and words[0] == "--method" and words[1] != "bcl":
        pytest.skip("differs from the other place in the data only")
    state, train = trainer(words, META, tmp_path, images_on_device=placed == "images on the device")
    with without_waiting(monkeypatch):
        finished = train(3)
    assert not finished
    assert state.step == 3


def test_images_move_to_the_device_if_they_take_at_most_half_of_its_memory() -> None:
    images = TensorImages(torch.arange(48, dtype=torch.uint8).view(3, 1, 4, 4))
    assert resident(images, torch.device("cpu")) is images
    assert resident(images, META, free_bytes=95) is images
    moved = resident(images, META, free_bytes=96)
    assert isinstance(moved, TensorImages)
    assert moved.data.device == META
    assert moved[torch.tensor([2, 0])].shape == (2, 1, 4, 4)
