"""SupProto and its fixed prototypes.

Shape suffixes: B local samples, V views, A local rows, K classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .batch import Batch, at_class, one_hot
from .contrastive import Contrastive, is_alone
from .objective import Objective
from .products import other_view_sums
from .registry import method


def simplex(num_classes: int, dimensions: int, seed: int) -> Tensor:
    """Draw unit vectors with pairwise cosine -1 / (K - 1): the corners of a regular simplex, two opposites for K = 2.

    Args:
        num_classes: number of vectors K, at most D.
        dimensions: D.
        seed: seed of the random orientation.

    Returns:
        float32 [K, D].

    Raises:
        ValueError: if D is too small for K vectors.
    """
    if num_classes > dimensions:
        raise ValueError(f"projection_dim {dimensions} is less than the {num_classes} classes; enlarge it")
    generator = torch.Generator().manual_seed(seed)
    # Unit vectors of K axes, less their mean, are the corners of a simplex; an orthonormal map turns it at random.
    corners_KK = torch.eye(num_classes, dtype=torch.float64) - 1.0 / num_classes
    normal_DK = torch.randn(dimensions, num_classes, dtype=torch.float64, generator=generator)
    rotated_KD = corners_KK @ torch.linalg.qr(normal_DK).Q.T
    return torch.nn.functional.normalize(rotated_KD, dim=1).float()


def add_columns(lse_A: Tensor, logits_AX: Tensor, log_weights_AX: Tensor | float = 0.0) -> Tensor:
    """Return the log-sum-exp over further columns too, each with a weight given by its logarithm."""
    return torch.logaddexp(lse_A, (logits_AX + log_weights_AX).logsumexp(1))


def margins(margin: float | Sequence[float], num_classes: int) -> Tensor:
    """Return one margin per class [K].

    Raises:
        ValueError: if there are neither one nor K margins.
    """
    values = [float(margin)] * num_classes if isinstance(margin, int | float) else [float(m) for m in margin]
    if len(values) == 1:
        values *= num_classes
    if len(values) != num_classes:
        raise ValueError(
            f"--margin: margin has {len(values)} values for {num_classes} classes; give one, or one per class"
        )
    return torch.tensor(values, dtype=torch.float64)


def pulled_anchors(products_AK: Tensor, labels_A: Tensor, margins_K: Tensor) -> Tensor:
    """Tell which anchors their prototype pulls: z . p_y <= max over other classes of z . p_c + margin_y.

    Returns:
        bool [A], without gradient.
    """
    products_AK = products_AK.detach()
    its_prototype_A = at_class(products_AK, labels_A)
    nearest_other_A = products_AK.scatter(1, labels_A[:, None], -torch.inf).amax(1)
    return its_prototype_A <= nearest_other_A + margins_K.to(products_AK.dtype)[labels_A]


def pulled_fractions(pulled_A: Tensor, labels_A: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Return the share of pulled anchors of each class, 0 for a class that the batch lacks."""
    weight_A = pulled_A.double()
    code_AK = one_hot(labels_A, num_classes, torch.float64)
    shares_K = code_AK.T @ weight_A / code_AK.sum(0).clamp(min=1)
    return {f"pulled_fraction/{c}": shares_K[c] for c in range(num_classes)}


@method("supproto", "SimCLR with a fixed prototype per class that pulls badly placed images")
class SupProto(Contrastive):
    """NT-Xent, and a fixed prototype per class that pulls the rows which are not yet clearly nearest to it.

    Plain form: `reference.supproto`.

    Source: Mildenberger et al., "A Tale of Two Classes: Adapting Supervised Contrastive Learning to Binary Imbalanced
    Datasets", CVPR 2025 (SupProto).
    Note: for more than two classes the opposite prototypes become a regular simplex, and the condition compares with
    the nearest prototype of another class.
    """

    compiles = True

    def __init__(
        self,
        *,
        num_classes: int,
        projection_dim: int = 128,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        margin: float | Sequence[float] = 1.0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            margin: a row is pulled until its own prototype leads by more than this; one value, or one per class. For
                two classes the cosine with the own prototype has to pass margin / 2; below -2 nothing is pulled.
            seed: seed of the prototypes.
        """
        super().__init__(num_classes=num_classes, temperature=temperature, base_temperature=base_temperature)
        self.prototypes_KD: Tensor
        self.margins_K: Tensor
        self.register_buffer("prototypes_KD", simplex(num_classes, projection_dim, seed))
        self.register_buffer("margins_K", margins(margin, num_classes), persistent=False)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses; a pulled anchor has its prototype as one more positive."""
        labels_A = batch.anchor_labels_A
        prototypes_KD = self.prototypes_KD.to(batch.z_BVD.dtype)
        products_AK = batch.anchors_AD @ prototypes_KD.T
        pulled_A = pulled_anchors(products_AK, labels_A, self.margins_K)
        self.terms |= pulled_fractions(pulled_A, labels_A, self.num_classes)
        weights_A = pulled_A.to(products_AK.dtype) + (batch.views - 1)
        if is_alone(batch, self.temperature):
            return self.loss_at_once(batch, *self._positives(batch, prototypes_KD, weights_A))
        prototype_A = torch.where(pulled_A, at_class(products_AK, labels_A), 0.0)
        products_A = (batch.other_view_products_BV.flatten() + prototype_A) / self.temperature
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_A, weights_A)

    @torch.no_grad()
    def _positives(self, batch: Batch, prototypes_KD: Tensor, weights_A: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of each row's positives, and the same plus what it is a positive of [B, V, D]."""
        z_BVD = batch.z_BVD
        pulled_BV1, share_BV1 = (w.view(*z_BVD.shape[:2], 1) for w in (weights_A - (batch.views - 1), 1 / weights_A))
        sums_BVD = other_view_sums(z_BVD).addcmul_(pulled_BV1, prototypes_KD[batch.labels_B][:, None])
        positives_BVD = sums_BVD.mul_(share_BV1)
        return positives_BVD, positives_BVD + other_view_sums(z_BVD * share_BV1)

    def collapse_value(self, samples: int) -> float | None:
        """Return None: the value depends on where the rows lie relative to the prototypes."""
        return None


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
        losses_A = lse_A.masked_fill(~counts_A, 0.0) - at_class(products_AK, labels_A) / self.temperature
        return torch.where(counts_A, losses_A, 0.0).mean()
