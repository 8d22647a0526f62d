"""Steps of pretrain.py's own loop, on any device, with nothing logged between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import pretrain
from tests.reliability.runs import assert_same_state
from ttc import distributed
from ttc.datasets import TensorImages, TrainingBatches, load_dataset, resident
from ttc.flags import data_settings, settings, setup
from ttc.models.pretrained import embed_training
from ttc.training.monitor import LossMonitor
from ttc.training.training_state import TrainingState


class Silent:
    """Stands for the reporter between two log steps; ends the run after some."""

    def __init__(self, folder: Path, epochs: int, steps: int, world: distributed.World) -> None:
        self.monitor, self.epochs, self.left, self.world = LossMonitor(folder, None), epochs, steps, world

    def logs_at(self, step: int) -> bool:
        return False

    def log_step(self, loss: torch.Tensor, ids: torch.Tensor, features: torch.Tensor) -> None:
        self.left -= 1

    def log_epoch(self) -> None:
        pass

    def stop_requested(self) -> bool:
        return self.left == 0

    def save_checkpoint(self) -> None:
        pass


def trainer(
    words: Sequence[str], device: torch.device, folder: Path, *, images_on_device: bool
) -> tuple[TrainingState, Callable[[int], bool]]:
    """Set up a run on digits; return its state, and what trains more steps and tells whether the run is finished."""
    given = pretrain.build_parser().parse([*words, "--batch-size", "32", "--lr", "0.1"])
    args = given.namespace()
    dataset = load_dataset(data_settings.dataset_settings(args))
    if images_on_device:
        object.__setattr__(dataset, "images", resident(dataset.images, device, free_bytes=1 << 30))
        assert isinstance(dataset.images, TensorImages)
        assert dataset.images.data.device == device
    sampler = settings.batch_sampler(args, dataset, 1)
    world = distributed.World(0, 1, 0, device)
    state = pretrain.build_state(args, given, dataset, sampler, device)
    state.average = setup.weight_average(args, state, sampler)
    recipe = replace(setup.step_recipe(args, state, sampler, world), learning_rate=lambda step: 0.1)

    def train(steps: int) -> bool:
        return pretrain.train(
            state,
            batches=TrainingBatches(dataset, sampler, world, num_workers=0),
            recipe=recipe,
            embed_all=partial(embed_training, state.network, dataset, recipe.views, 0),
            reporter=Silent(folder, args.epochs, steps, world),  # type: ignore[arg-type]  # what the loop needs of it
        )

    return state, train


def assert_continues(
    start: Callable[[], tuple[TrainingState, Callable[[int], bool]]], folder: Path, steps: int
) -> TrainingState:
    """Assert that a run stopped after three steps ends as the uninterrupted one in folder/whole; return the latter."""
    whole, train = start()
    train(steps)
    whole.save(folder / "whole")
    first, train = start()
    train(3)
    first.save(folder / "broken")
    second, train = start()
    second.resume(folder / "broken", "auto")
    train(steps - 3)
    second.save(folder / "broken")
    assert_same_state(folder / "whole" / "last.pt", folder / "broken" / "last.pt")
    return whole
