"""Pretraining with SupMin the way that its published code goes about it; what benchmarks/original.py compares with.

Written from the description, with nothing of this project's but the network and the learning rate's formula: a data set
of PIL images whose transform is called once per view, a loader that stacks the views, both views one after the other in
one batch, the masked loss over full matrices, float32 in the usual memory layout, SGD with momentum, a learning rate
that changes once per epoch, and the loss read for a running mean in every step.

Source: Mildenberger et al., CVPR 2025, whose code follows that of Khosla et al., NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import references
from ttc.batches.augment import ViewGenerator
from ttc.models.optim import learning_rate


class TwoViews(Dataset[tuple[Tensor, Tensor, int]]):
    """PIL images that become two views when they are asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        """Make the images.

        Args:
            images: uint8 [N, C, S, S] of one channel or three.
            labels: int64 [N].
            transform: from an image to a view.
        """
        arrays = images.permute(0, 2, 3, 1).squeeze(3).numpy()
        self._images, self._labels = [Image.fromarray(array) for array in arrays], labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return two views and the label."""
        image = self._images[index]
        return self._transform(image), self._transform(image), self._labels[index]


@dataclass(frozen=True)
class Length:
    """How long and how fast a run learns.

    Attributes:
        batch_size: samples of a step.
        epochs: of the run.
        warmup_epochs: the first of them.
        lr: peak learning rate.
        weight_decay: of all parameters.
    """

    batch_size: int
    epochs: int
    warmup_epochs: float
    lr: float
    weight_decay: float


class Published:
    """A run, epoch by epoch."""

    def __init__(
        self, network: nn.Module, images: Tensor, labels: Tensor, views: ViewGenerator, length: Length, seed: int
    ) -> None:
        """Prepare loader and optimizer.

        Args:
            network: returns (features, z) of images; is trained.
            images: uint8 [N, C, S, S], for training.
            labels: int64 [N], 1 for the minority.
            views: tells strength, size, mean and standard deviation.
            length: how long and how fast.
            seed: of the order.
        """
        self.network, self._length, self._epoch = network, length, 0
        mean, std = (tuple(statistic.flatten().tolist()) for statistic in (views.mean, views.std))
        transform = references.per_sample_transform(views.image_size, views.augmentation, mean, std)
        self._loader = DataLoader(
            TwoViews(images, labels, transform),
            batch_size=length.batch_size,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(seed),
        )
        self._optimizer = torch.optim.SGD(
            network.parameters(), lr=length.lr, momentum=0.9, weight_decay=length.weight_decay
        )

    def epoch(self) -> float:
        """Train for an epoch; return the mean of the loss."""
        length, total = self._length, 0.0
        rate = learning_rate(self._epoch, peak=length.lr, steps=length.epochs, warmup_steps=round(length.warmup_epochs))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        for first, second, labels in self._loader:
            _, z = self.network(torch.cat((first, second)))
            z_BVD = torch.stack(z.chunk(2), 1)
            loss = references.masked_published(z_BVD, labels, minority_only=True)
            total += loss.item()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
        self._epoch += 1
        return total / len(self._loader)
