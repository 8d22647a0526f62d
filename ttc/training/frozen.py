"""Train the heads of a frozen encoder on features that are computed once, where no view differs from the plain one.

The training loop stays as it is: in the place of images it gets features, [B, F, 1, 1], in the place of views copies of
them, and in the place of the network its heads.

Legend: B samples, V views, F features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ttc.batches.augment import ViewGenerator
from ttc.datasets import Dataset, TensorImages
from ttc.models.networks import PretrainNetwork
from ttc.models.pretrained import embed_shared
from ttc.training.recipe import StepRecipe


class RepeatedViews(ViewGenerator):
    """Views of what does not change."""

    def views(self, images: Tensor, ids: Tensor, draws: Tensor, views: int) -> Tensor:
        """Repeat features [B, F, 1, 1] to [B, V, F, 1, 1]."""
        return images[:, None].expand(-1, views, -1, -1, -1)


class Heads(nn.Module):
    """What a network does after its encoder."""

    def __init__(self, network: PretrainNetwork) -> None:
        """Share the heads of a network."""
        super().__init__()
        self.projection = network.projection
        self._project = network.project

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, F] and z for features [N, F, 1, 1]."""
        return self._project(features.flatten(1))


def precompute(
    network: PretrainNetwork, dataset: Dataset, recipe: StepRecipe, num_workers: int
) -> tuple[Dataset, StepRecipe]:
    """Compute the features of all training samples, the ranks sharing the work.

    Args:
        network: with the frozen encoder.
        dataset: the images.
        recipe: of a step with images.
        num_workers: processes that decode image files.

    Returns:
        The data set with features as images, zero outside of the training split, and the recipe of a step with them.
    """
    rows, device = dataset.indices("train"), next(network.parameters()).device
    features, _ = embed_shared(network, dataset, recipe.views, rows, views=0, num_workers=num_workers)
    images = torch.zeros(len(dataset.ids), network.feature_dim, 1, 1)
    images[rows] = features[:, 0, :, None, None]
    old = recipe.views
    views = RepeatedViews(old.augmentation, 1, tuple(old.mean.flatten().tolist()), tuple(old.std.flatten().tolist()), 0)
    images = images.to(device)
    return replace(dataset, images=TensorImages(images)), replace(recipe, views=views, network=Heads(network))
