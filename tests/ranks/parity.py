"""Two training steps of a method by the recipe of `pretrain.train`, on one rank of any number of them, in float64.

Legend: B samples of the global batch, V views, C channels, S pixels, N all training images, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttc import distributed
from ttc.losses import METHODS, build_objective
from ttc.models.batchnorm import synchronise
from ttc.models.encoders.convnet import ConvNet
from ttc.models.networks import PretrainNetwork

BATCH = 12
# 3 or 4 rare images on the first rank and one, or none, on the last.
LABELS = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0])
STEPS = 2

# Every registered method, and the settings that draw random numbers or add terms.
CASES: dict[str, tuple[str, dict[str, object]]] = {name: (name, {}) for name in METHODS} | {
    "supmin with half of the majority": ("supmin", {"ratio_supervised_majority": 0.5}),
    "supmin with three more terms": ("supmin", {"ce_weight": 0.5, "instance_weight": 0.3, "prototype_weight": 0.2}),
    "kcl with many positives": ("kcl", {"k": 5}),
}


@dataclass
class Trace:
    """What two steps gave: losses of the global batch, gradients and buffers of network and objective by name."""

    error: str = ""
    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    buffers: dict[str, Tensor] = field(default_factory=dict)


class _Network(PretrainNetwork):
    """PretrainNetwork without its rounding of z to float32."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        if self.projection is None:
            return features, features
        return features, functional.normalize(self.projection(features), dim=1)


def train(case: str, world: distributed.World) -> Trace:
    """Train a small network; without a process group the batch is its own pool."""
    name, settings = CASES[case]
    torch.manual_seed(0)
    encoder = ConvNet(2, 1, 8)
    objective = build_objective(
        name,
        minority_class=1,
        class_counts=[80, 40],
        schedule_steps=1,
        feature_dim=encoder.feature_dim,
        projection_dim=6,
        seed=5,
        **settings,  # type: ignore[arg-type]  # settings of the method
    ).double()
    raw = _Network(encoder, 6 if objective.space == "projection" else None).double()
    raw = synchronise(raw, world.device)  # type: ignore[assignment]  # converts in place
    objective.attach(raw)
    parameters = [p for p in (*raw.parameters(), *objective.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    network = distributed.DistributedDataParallel(raw) if world.size > 1 else raw
    _offer_embeddings(objective)

    share, trace = BATCH // world.size, Trace()
    mine = slice(world.rank * share, (world.rank + 1) * share)
    for step in range(STEPS):
        objective.on_step(0, step)
        made = torch.Generator().manual_seed(step)
        inputs = torch.randn(BATCH, objective.views, 1, 8, 8, generator=made, dtype=torch.float64)[mine]
        ids, labels = (torch.randperm(100, generator=made)[:BATCH] * 3)[mine], LABELS[mine]
        features, z = network(inputs[:, : objective.student_views].flatten(0, 1))
        features, z = features.unflatten(0, (share, -1)), z.unflatten(0, (share, -1))
        z = objective.add_keys(z, inputs)
        loss = objective(z, labels, distributed.pool_of(z, labels, ids), features=features, sample_ids=ids)
        optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(objective.parameters())
        trace.losses.append(float(distributed.mean(loss)))
        trace.gradients.append({key: p.grad.clone() for key, p in _named(raw, objective) if p.grad is not None})
        optimizer.step()
        objective.after_step(raw)
    trace.buffers = {
        f"{part}.{key}": value.clone()
        for part, module in (("network", raw), ("objective", objective))
        for key, value in module.named_buffers()
    }
    return trace


def _named(network: nn.Module, objective: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [
        (f"{part}.{key}", parameter)
        for part, module in (("network", network), ("objective", objective))
        for key, parameter in module.named_parameters()
    ]


def _offer_embeddings(objective: nn.Module) -> None:
    """Let a method that depends on all training images look at them, so that its later phase is compared."""
    made = torch.Generator().manual_seed(9)
    z_ND = functional.normalize(torch.randn(300, 6, generator=made, dtype=torch.float64), dim=1)
    labels_N = (torch.arange(300) % 3 == 0).long()
    for epoch in range(20):
        if objective.wants_embeddings(epoch):  # type: ignore[operator]  # an Objective
            objective.on_epoch(epoch, lambda: (z_ND, labels_N, torch.arange(300)), distributed.broadcast)  # type: ignore[operator]
