"""Between two log steps nothing in the training loop waits for the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pretrain
from tests.views import generator, noise
from tests.waiting import META, waits, without_waiting
from ttc import distributed, from_flags
from ttc.augment import PRESETS
from ttc.datasets import TensorImages, load_dataset, resident
from ttc.losses import METHODS
from ttc.monitor import LossMonitor
from ttc.samplers import BatchSampler


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


class Silent:
    """Stands for the reporter between two log steps; ends the run after three."""

    epochs = 1

    def __init__(self, folder: Path) -> None:
        self.monitor, self.left = LossMonitor(folder, None), 3

    def logs_at(self, step: int) -> bool:
        return False

    def step_ended(self, *, last_of_epoch: bool) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("placed", ["images in main memory", "images on the device"])
@pytest.mark.parametrize(
    "words",
    [
        *(("--method", method) for method in METHODS),
        ("--method", "bcl", "--micro-batch-size", "16", "--minority-cutmix", "0.4"),
        ("--clip-gradient-norm", "1", "--optimizer", "adamw", "--batch-sampler", "balanced"),
    ],
    ids=" ".join,
)
def test_no_step_waits(words: tuple[str, ...], placed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if placed == "images in main memory" and words[0] == "--method" and words[1] != "bcl":
        pytest.skip("differs from the other place in the data only")
    given = pretrain.build_parser().parse([*words, "--batch-size", "32", "--lr", "0.1"])
    args = given.namespace()
    dataset = load_dataset(from_flags.dataset_settings(args))
    if placed == "images on the device":
        object.__setattr__(dataset, "images", resident(dataset.images, META, free_bytes=1 << 30))
        assert isinstance(dataset.images, TensorImages)
        assert dataset.images.data.device == META
    rows = dataset.indices("train")
    sampler = BatchSampler(
        dataset.labels[rows], batch_size=32, kind=args.batch_sampler, seed=0, minority_class=dataset.minority_class
    )
    world = distributed.World(0, 1, 0, META)
    state = pretrain.build_state(args, given, dataset, sampler, META)
    views = state.description.view_generator()
    embedder = pretrain.build_embedder(args, state, dataset, views, world)
    with without_waiting(monkeypatch):
        finished = pretrain.train(
            state,
            embedder=embedder,
            dataset=dataset,
            sampler=sampler,
            views=views,
            reporter=Silent(tmp_path),  # type: ignore[arg-type]  # what the loop needs of it
            world=world,
            rate_at=lambda step: 0.1,
            clip_norm=args.clip_gradient_norm,
            num_workers=0,
        )
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
