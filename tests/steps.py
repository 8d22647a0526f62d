"""Steps of pretrain.py's own loop, on any device, with nothing logged between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import pretrain
from ttc import distributed
from ttc.datasets import TensorImages, load_dataset, resident
from ttc.flags import settings
from ttc.training.monitor import LossMonitor
from ttc.training.training_state import TrainingState


class Silent:
    """Stands for the reporter between two log steps; ends the run after some."""

    epochs = 1

    def __init__(self, folder: Path, steps: int) -> None:
        self.monitor, self.left = LossMonitor(folder, None), steps

    def logs_at(self, step: int) -> bool:
        return False

    def step_ended(self, *, last_of_epoch: bool) -> bool:
        self.left -= 1
        return self.left == 0


def trainer(
    words: Sequence[str], device: torch.device, folder: Path, *, images_on_device: bool
) -> tuple[TrainingState, Callable[[int], bool]]:
    """Set up a run on digits; return its state, and what trains more steps and tells whether the run is finished."""
    given = pretrain.build_parser().parse([*words, "--batch-size", "32", "--lr", "0.1"])
    args = given.namespace()
    dataset = load_dataset(settings.dataset_settings(args))
    if images_on_device:
        object.__setattr__(dataset, "images", resident(dataset.images, device, free_bytes=1 << 30))
        assert isinstance(dataset.images, TensorImages)
        assert dataset.images.data.device == device
    sampler = settings.batch_sampler(args, dataset, 1)
    world = distributed.World(0, 1, 0, device)
    state = pretrain.build_state(args, given, dataset, sampler, device)
    views = state.description.view_generator()
    embedder = pretrain.build_embedder(args, state, dataset, views, world)

    def train(steps: int) -> bool:
        return pretrain.train(
            state,
            embedder=embedder,
            dataset=dataset,
            sampler=sampler,
            views=views,
            reporter=Silent(folder, steps),  # type: ignore[arg-type]  # what the loop needs of it
            world=world,
            rate_at=lambda step: 0.1,
            clip_norm=args.clip_gradient_norm,
            num_workers=0,
        )

    return state, train
