"""Batches and objectives for the tests, built for any registered method alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ttc.losses import Objective, build_objective

DIM = 8
FEATURES = 6
EPOCH = 10
KINDS = ("mixed", "one-minority", "one-class")


def labels_of(kind: str, samples: int, num_classes: int, seed: int) -> Tensor:
    """Return labels of a kind of batch; "mixed" has every class if there are enough samples."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(samples, dtype=torch.int64)
    if kind == "one-minority":
        labels[-1] = 1
    if kind == "mixed":
        labels = torch.arange(samples) % num_classes
    return labels[torch.randperm(samples, generator=generator)]


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


@dataclass
class Inputs:
    """Arguments of one call."""

    z: Tensor
    labels: Tensor
    features: Tensor
    sample_ids: Tensor

    def call(self, objective: Objective) -> Tensor:
        return objective(self.z, self.labels, features=self.features, sample_ids=self.sample_ids)


def inputs_for(
    objective: Objective,
    samples: int,
    kind: str,
    seed: int,
    views: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Return a batch in the shape that the objective asks for, with gradients."""
    views = objective.views if views is None else views
    features = torch.randn(
        samples, views, FEATURES, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
    ).to(dtype)
    z = features.clone() if objective.space == "features" else unit(samples, views, DIM, seed=seed, dtype=dtype)
    labels = labels_of(kind, samples, objective.num_classes, seed)
    # An image has one class: its id tells it, here and in `ready`.
    order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:samples]
    ids = order * objective.num_classes + labels
    return Inputs(z.requires_grad_(), labels, features.requires_grad_(), ids)


def ready(method: str, num_classes: int = 2, seed: int = 0, **settings: object) -> Objective:
    """Build an objective in float64 and bring it into the state that it has in the middle of a run."""
    objective = build_objective(
        method,
        num_classes=num_classes,
        minority_class=1,
        class_counts=[900, 60, 40][:num_classes],
        schedule_steps=8,  # so that step 7 lies in the last fifth
        feature_dim=FEATURES,
        projection_dim=DIM,
        seed=seed,
        **settings,
    ).double()
    objective.on_step(EPOCH, 7)
    if objective.wants_embeddings(EPOCH):
        ids = torch.arange(1000)
        embeddings, labels = unit(1000, DIM, seed=5), ids % num_classes
        objective.on_epoch(EPOCH, lambda: (embeddings, labels, ids))
    inputs_for(objective, 4, "mixed", 99).call(objective)
    objective.after_step(nn.Identity())
    return objective
