"""Terms that can be added to any contrastive objective; `Objective.extra_terms` holds them.

Shape suffixes: A local rows, B samples, V views, F features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ttc.losses.batch import Batch
from ttc.losses.contrast import own_class
from ttc.losses.cross_entropy import seeded_linear
from ttc.losses.objective import Objective
from ttc.losses.prototypes import margins, pulled_anchors, simplex
from ttc.losses.supervised import SimCLR


class HeadCrossEntropy(Objective):
    """Cross-entropy of a linear head over the encoder's features, all views as samples."""

    def __init__(self, *, num_classes: int, feature_dim: int, seed: int = 0) -> None:
        """Create the term.

        Args:
            num_classes: number of classes.
            feature_dim: size F of the features.
            seed: seed of the head's weights.
        """
        super().__init__(num_classes=num_classes)
        self.head = seeded_linear(feature_dim, num_classes, seed)

    def classifier(self, features: Tensor) -> Tensor:
        """Return logits [..., K] for features [..., F]."""
        logits: Tensor = self.head(features)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over all views that come with features."""
        assert batch.features_BVF is not None
        labels_BV = batch.labels_B[:, None].expand(batch.features_BVF.shape[:2])
        logits_AK = self.classifier(batch.features_BVF.flatten(0, 1))
        return nn.functional.cross_entropy(logits_AK, labels_BV.flatten())


class PrototypePull(Objective):
    """The supervised half of SupProto: pulled rows approach their prototype, as a mean over all rows."""

    def __init__(
        self, *, num_classes: int, projection_dim: int, temperature: float, margin: float = 1.0, seed: int = 0
    ) -> None:
        """Create the term.

        Args:
            num_classes: number of classes.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            margin: lead of the own prototype from which on a row is no longer pulled.
            seed: seed of the prototypes.
        """
        super().__init__(num_classes=num_classes)
        self.temperature = temperature
        self.prototypes_KD: Tensor
        self.margins_K: Tensor
        self.register_buffer("prototypes_KD", simplex(num_classes, projection_dim, seed))
        self.register_buffer("margins_K", margins(margin, num_classes), persistent=False)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum over pulled rows of log-sum-exp minus the prototype's logit, divided by all rows."""
        labels_A = batch.anchor_labels_A
        products_AK = batch.anchors_AD @ self.prototypes_KD.to(batch.z_BVD.dtype).T
        lse_A = batch.log_sum_exp(self.temperature)
        counts_A = pulled_anchors(products_AK, labels_A, self.margins_K) & (lse_A != -torch.inf)
        losses_A = lse_A.masked_fill(~counts_A, 0.0) - own_class(products_AK, labels_A) / self.temperature
        return torch.where(counts_A, losses_A, 0.0).mean()


def add_terms(
    objective: Objective,
    *,
    temperature: float,
    feature_dim: int | None,
    projection_dim: int,
    seed: int,
    ce_weight: float,
    instance_weight: float,
    prototype_weight: float,
) -> None:
    """Make the loss (1 - instance_weight) * own + instance_weight * NT-Xent + ce_weight * CE + prototype_weight * pull.

    Raises:
        ValueError: for a weight that is out of range or does not go with the objective.
    """
    for name, weight in (("ce_weight", ce_weight), ("prototype_weight", prototype_weight)):
        if weight < 0:
            raise ValueError(f"{name} {weight} is negative; give 0 to leave the term out")
    if not 0 <= instance_weight <= 1:
        raise ValueError(f"instance_weight {instance_weight} is not a share; give 0..1")
    if objective.space == "features" and ce_weight + instance_weight + prototype_weight > 0:
        raise ValueError("ce_weight, instance_weight and prototype_weight add to contrastive methods only; give 0")
    classes = objective.num_classes
    if instance_weight > 0:
        objective.own_weight = 1.0 - instance_weight
        _add(objective, "instance", instance_weight, SimCLR(num_classes=classes, temperature=temperature))
    if ce_weight > 0:
        if feature_dim is None:
            raise ValueError(f"ce_weight {ce_weight} needs a head over the encoder's features; give feature_dim")
        objective.needs_features = True
        head = HeadCrossEntropy(num_classes=classes, feature_dim=feature_dim, seed=seed)
        _add(objective, "cross_entropy", ce_weight, head)
    if prototype_weight > 0:
        pull = PrototypePull(num_classes=classes, projection_dim=projection_dim, temperature=temperature, seed=seed)
        _add(objective, "prototype", prototype_weight, pull)


def _add(objective: Objective, name: str, weight: float, term: Objective) -> None:
    objective.extra_terms[name] = term
    objective.extra_weights[name] = weight
