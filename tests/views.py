"""Augmentations that change one thing, and images to try them on."""

from __future__ import annotations

import torch
from torch import Tensor

from ttc.batches.augment import Augmentation, ViewGenerator

STILL = Augmentation(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0
)


def generator(augmentation: Augmentation, size: int, channels: int = 3, seed: int = 0) -> ViewGenerator:
    """Make views in units of the pixels: mean 0, deviation 1."""
    return ViewGenerator(augmentation, size, (0.0,) * channels, (1.0,) * channels, seed)


def noise(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), generator=made, dtype=torch.uint8)


def views_of(
    images: Tensor, augmentation: Augmentation, size: int | None = None, views: int = 1, seed: int = 0
) -> Tensor:
    ids = torch.arange(len(images))
    made = generator(augmentation, size or images.shape[3], images.shape[1], seed)
    return made.views(images, ids, torch.zeros_like(ids), views)
