"""From views to embeddings: the whole batch at once, or in micro-batches with the memory of one.

A contrastive loss compares all samples of a batch, so that accumulating gradients over small batches trains something
else. With gradient caching the whole batch is embedded first, micro-batch by micro-batch, and nothing is kept but the
embeddings. The loss of the whole batch gives their exact gradient. The backward pass then makes the views and the
forward pass of one micro-batch after the other once more, this time with what its gradient needs. That costs one more
forward pass; the memory is that of one micro-batch, plus the embeddings.

* Views are a function of seed, draw, sample and view (see batches/augment.py), and the state of the random generators
  is restored for every micro-batch: the second pass repeats the first bit by bit, dropout included.
* BatchNorm computes its statistics over a micro-batch, of all ranks together. With BatchNorm in the network a run with
  micro-batches therefore differs from one without, as a run with smaller batches would in this respect; without it the
  gradients are equal up to rounding, which in float32 is smaller here than that of the long sums of one shot. The
  running statistics move in the first pass only, in all as far as in one step without micro-batches.
* A rank's micro-batch takes every n-th of its samples. So the micro-batches consist of the same samples for any number
  of ranks.
* Gradients are averaged over ranks once per step, after the last micro-batch: all of them are one backward pass.
* Minority CutMix takes its patches from the whole batch, whose views are then made at once.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021; the second
pass is the recomputation of Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, with micro-batches as
the segments.

Legend: B samples of this rank, V views per sample, C channels, H x W stored pixels, S pixels of a view, F features,
D dimensions of the embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ttc.batches.augment import ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.losses import Objective
from ttc.models.batchnorm import running_statistics_moving_by


def embed_views(network: nn.Module, views_BVCSS: Tensor) -> tuple[Tensor, Tensor]:
    """Send all views of all samples through the network at once.

    Args:
        network: returns (features, z) of images.
        views_BVCSS: float views.

    Returns:
        features [B, V, F] and z [B, V, D].
    """
    images = views_BVCSS.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    features, z = network(images)
    return features.unflatten(0, (len(views_BVCSS), -1)), z.unflatten(0, (len(views_BVCSS), -1))


class MicroBatchEmbedder(nn.Module):
    """Makes the views of a rank's samples and embeds them, one micro-batch after another; DDP wraps it.

    The parameters are those of the network; the objective is only asked which views it wants, and for its keys.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        views: ViewGenerator,
        cutmix: MinorityCutMix,
        *,
        micro_batches: int,
        autocast: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Remember the parts.

        Args:
            network: returns (features, z) of images.
            objective: tells how many views there are and how many the network embeds, and embeds the others itself.
            views: makes the views.
            cutmix: mixes them.
            micro_batches: number of pieces that a batch is embedded in; it divides B.
            autocast: the context of the network's precision.
        """
        super().__init__()
        self.network = network
        self._all_views, self._student_views = objective.views, objective.student_views
        # A bound method: the objective as an attribute would become a part of this module and of its parameters.
        self._add_keys = objective.add_keys
        self._views, self._cutmix, self._autocast, self._micro_batches = views, cutmix, autocast, micro_batches

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the samples of this rank.

        Args:
            images: [B, C, H, W] uint8 on the network's device.
            labels: [B] int64.
            ids: [B] int64, global sample ids.
            draws: [B] int64, how often each sample was drawn before.

        Returns:
            features [B, student views, F] and z [B, V, D], keys of the objective included.
        """
        count, mixed_BVCSS = self._micro_batches, None
        if self._cutmix.area:
            mixed_BVCSS = self._views.views(images, ids, draws, self._all_views)
            mixed_BVCSS = self._cutmix(mixed_BVCSS, labels, ids, draws)
        parts = []
        with running_statistics_moving_by(self.network, 1.0 / count):
            for first in range(count):
                piece = [None if part is None else part[first::count] for part in (images, ids, draws, mixed_BVCSS)]
                parts.append(checkpoint(self._embed, *piece, use_reentrant=False, context_fn=self._contexts))
        features, z = (torch.stack(pieces, 1).flatten(0, 1) for pieces in zip(*parts, strict=True))
        return features, z

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what the first and the second pass of a micro-batch run in."""
        return contextlib.nullcontext(), running_statistics_moving_by(self.network, 0.0)

    def _embed(self, images: Tensor, ids: Tensor, draws: Tensor, mixed_BVCSS: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs = self._views.views(images, ids, draws, self._all_views) if mixed_BVCSS is None else mixed_BVCSS
        with self._autocast():
            features, z = embed_views(self.network, inputs[:, : self._student_views])
        # Keys have no gradient, so that the second pass ends before it comes to them.
        return features, self._add_keys(z, inputs)
