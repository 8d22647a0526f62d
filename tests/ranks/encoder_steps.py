"""The first step of supmin with any encoder, whole, in micro-batches or with recomputed blocks, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tests.ranks.parity import LABELS
from tests.views import noise
from ttc import distributed
from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.losses import build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.layers import recompute_blocks
from ttc.models.networks import PretrainNetwork
from ttc.training.embedder import MicroBatchEmbedder

BATCH = 12


@dataclass
class Step:
    """Loss of the global batch, gradients of the network, its buffers."""

    loss: float
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


class _Exact(PretrainNetwork):
    """PretrainNetwork without its rounding of z to float32."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images.double())
        assert self.projection is not None
        return features, functional.normalize(self.projection(features), dim=1)


def step(world: distributed.World, name: str, size: int, micro_batches: int, recompute: bool) -> Step:
    """Make the first step on this rank's share of the batch."""
    share = BATCH // world.size
    ids = torch.arange(BATCH) * 3
    every = noise(BATCH, 3, size, seed=1), LABELS, ids, torch.zeros_like(ids)
    batch = [part[world.rank * share : (world.rank + 1) * share] for part in every]
    torch.manual_seed(0)
    network = _Exact(build_encoder(EncoderSpec(name, 3, size)), 6).double()
    objective = build_objective(
        "supmin", num_classes=2, minority_class=1, class_counts=[80, 40], feature_dim=network.feature_dim,
        projection_dim=6, seed=5,
    ).double()  # fmt: skip
    synchronise(network, world.device)
    if recompute:
        recompute_blocks(network.encoder, name)
    views = ViewGenerator(PRESETS["digits"], size, (0.5,) * 3, (0.25,) * 3, seed=3)
    embedder = MicroBatchEmbedder(network, objective, views, MinorityCutMix(0.0, 1, 3), micro_batches=micro_batches)
    wrapped = distributed.DistributedDataParallel(embedder) if world.size > 1 else embedder
    features, z = wrapped(*batch)
    _, labels, ids, _ = batch
    loss = objective(z, labels, distributed.pool_of(z, labels, ids), features=features, sample_ids=ids)
    loss.backward()
    return Step(
        float(distributed.mean(loss.detach())),
        {key: p.grad for key, p in network.named_parameters() if p.grad is not None},
        {key: value.clone() for key, value in network.named_buffers()},
    )


def steps(world: distributed.World, cases: list[tuple[str, int]]) -> dict[tuple[str, int, bool], Step]:
    """Make the steps of several encoders, whole and in micro-batches; with recomputed blocks in the latter."""
    return {
        (name, pieces, recompute): step(world, name, size, pieces, recompute)
        for name, size in cases
        for pieces, recompute in ((1, False), (3, True))
    }
