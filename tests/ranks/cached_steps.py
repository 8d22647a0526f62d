"""The first step of a method with its batch embedded whole, in micro-batches, and by the textbook's two passes.

Legend: B samples of the global batch, C channels, S pixels, F features, D dimensions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.ranks.parity import BATCH, CASES, LABELS
from tests.views import noise
from ttc import distributed
from ttc.batches.augment import PRESETS, ViewGenerator
from ttc.batches.cutmix import MinorityCutMix
from ttc.losses import Objective, build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.encoders import EncoderSpec, build_encoder
from ttc.models.encoders.convnet import ConvNet
from ttc.training.embedder import MicroBatchEmbedder, embed_views

Autocast = Callable[[], AbstractContextManager[object]]


def small_layers(*, norm: bool, dropout: float) -> nn.Sequential:
    """Return two convolutions with 8 features, with BatchNorm or dropout on request."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 8, 3, 2, 1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
    )


def convnet_layers(image_size: int) -> nn.Sequential:
    """Return the layers of pretrain.py's own encoder with 32 features, each image normalised by itself."""
    encoder = build_encoder(EncoderSpec("convnet-w8", 1, image_size))
    assert isinstance(encoder, ConvNet)
    # Without any normalisation the untrained network maps all images to one point, whose gradient is rounding alone.
    alone = (
        nn.GroupNorm(1, each.num_features) if isinstance(each, nn.BatchNorm2d) else each for each in encoder.layers
    )
    return nn.Sequential(*alone)


class Network(nn.Module):
    """Layers and a head, in float64 unless asked otherwise."""

    def __init__(self, layers: nn.Sequential, feature_dim: int, projection_dim: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers, self.feature_dim = layers, feature_dim
        self.head = None if projection_dim is None else nn.Linear(self.feature_dim, projection_dim)
        self.dtype = dtype
        self.to(dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(images.to(self.dtype)).mean((2, 3))
        return features, features if self.head is None else functional.normalize(self.head(features), dim=1)


@dataclass
class Step:
    """What a step gave: the loss of the global batch, gradients and buffers of network and objective by name."""

    loss: float
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass
class Setting:
    """How a step is made; with `convnet` by pretrain.py's own encoder instead of a small one."""

    convnet: bool = False
    micro_batches: int = 1
    textbook: bool = False
    norm: bool = False
    dropout: float = 0.0
    dtype: torch.dtype = torch.float64
    autocast: Autocast = contextlib.nullcontext
    cutmix_area: float = 0.0


def step(case: str, world: distributed.World, how: Setting) -> Step:
    """Make the first step of a run on this rank's share of twelve images."""
    ids = torch.arange(BATCH) * 3
    share = BATCH // world.size
    mine = slice(world.rank * share, (world.rank + 1) * share)
    every = noise(BATCH, 1, 8, seed=1), LABELS, ids, torch.zeros_like(ids)
    return step_on(tuple(each[mine] for each in every), case, world, how)


def step_on(batch: tuple[Tensor, ...], case: str, world: distributed.World, how: Setting) -> Step:
    """Make the first step of a run on given images, labels, ids and draws."""
    name, settings = CASES[case]
    feature_dim, projection_dim = (32, 128) if how.convnet else (8, 6)
    torch.manual_seed(0)
    objective = build_objective(
        name,
        minority_class=1,
        class_counts=[80, 40],
        schedule_steps=1,
        feature_dim=feature_dim,
        projection_dim=projection_dim,
        seed=5,
        **settings,  # type: ignore[arg-type]  # settings of the method
    ).to(how.dtype)
    layers = convnet_layers(batch[0].shape[-1]) if how.convnet else small_layers(norm=how.norm, dropout=how.dropout)
    network = Network(layers, feature_dim, projection_dim if objective.space == "projection" else None, how.dtype)
    synchronise(network, world.device)
    objective.attach(network)
    objective.on_step(0, 0)
    views = ViewGenerator(PRESETS["digits"], batch[0].shape[-1], (0.5,), (0.25,), seed=3)
    cutmix = MinorityCutMix(how.cutmix_area, 1, seed=3)
    embedder = MicroBatchEmbedder(
        network, objective, views, cutmix, micro_batches=how.micro_batches, autocast=how.autocast
    )
    torch.manual_seed(7 + world.rank)
    if how.textbook:
        loss = textbook(embedder, objective, how.micro_batches, batch)
    else:
        trained: nn.Module = embedder if how.micro_batches > 1 else network
        if world.size > 1:
            trained = distributed.DistributedDataParallel(trained)  # it averages for as long as it lives
        if how.micro_batches > 1:
            features, z = trained(*batch)
        else:
            images, labels, ids, draws = batch
            inputs = cutmix(views.views(images, ids, draws, objective.views), labels, ids, draws)
            with how.autocast():
                features, z = embed_views(trained, inputs[:, : objective.student_views])
            z = objective.add_keys(z, inputs)
        loss = loss_of(objective, features, z, batch)
        loss.backward()
        distributed.average_gradients(objective.parameters())
    parts = (("network", network), ("objective", objective))
    return Step(
        float(distributed.mean(loss)),
        {f"{part}.{n}": p.grad for part, m in parts for n, p in m.named_parameters() if p.grad is not None},
        {f"{part}.{n}": b.clone() for part, m in parts for n, b in m.named_buffers()},
    )


def loss_of(objective: Objective, features: Tensor, z: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
    _, labels, ids, _ = batch
    loss: Tensor = objective(z, labels, distributed.pool_of(z, labels, ids), features=features, sample_ids=ids)
    return loss


def textbook(embedder: MicroBatchEmbedder, objective: Objective, count: int, batch: tuple[Tensor, ...]) -> Tensor:
    """Do it as the paper writes it: embed without graph, differentiate the loss, embed again with that gradient."""
    images, _, ids, draws = batch
    states, embedded = [], []
    for first in range(count):
        states.append(torch.get_rng_state())
        with torch.no_grad():
            embedded.append(embedder._embed(images[first::count], ids[first::count], draws[first::count], None))
    features, z = (torch.stack(each, 1).flatten(0, 1).detach().requires_grad_() for each in zip(*embedded, strict=True))
    loss = loss_of(objective, features, z, batch)
    loss.backward()
    for first, state in enumerate(states):
        torch.set_rng_state(state)
        again = embedder._embed(images[first::count], ids[first::count], draws[first::count], None)
        used = [(out, leaf.grad) for out, leaf in zip(again, (features, z), strict=True) if leaf.grad is not None]
        torch.autograd.backward([out for out, _ in used], [gradient[first::count] for _, gradient in used])
    return loss
