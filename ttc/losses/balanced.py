"""Balanced contrastive learning: class means in the denominator, class centres as further columns.

Shape suffixes: B samples, V views, A local rows, M rows of all ranks, P samples of all ranks, K classes, D dimensions,
F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch import Batch, at_class
from .classifier import checked_counts, cosine_logits, seeded_linear
from .contrastive import Contrastive, same_class_products
from .logsumexp import log_sum_exp
from .prototypes import add_columns
from .registry import method

_CENTRES = ("learnable", "layernorm", "batchnorm")
_COSINE_SCALE = 30.0


@method("bcl", "SupCon with class means in the denominator and class centres, plus adjusted cross-entropy")
class BCL(Contrastive):
    """Contrast in which each class counts once in the denominator, with class centres, beside adjusted cross-entropy.

    View 0 feeds the cross-entropy only, the further views the contrast only.

    Plain form: `reference.bcl`.

    Source: Zhu et al., "Balanced Contrastive Learning for Long-Tailed Visual Recognition", CVPR 2022 (L_BCL).
    Note: the published centres come from a network with BatchNorm over the K class weights. With two classes BatchNorm
    sees two rows and its outputs are exact opposites whatever the weights are, so the centres are directly learnable
    here; centres="batchnorm" is the published form.
    """

    views = 3
    student_views = 3

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        feature_dim: int | None = None,
        projection_dim: int = 128,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.35,
        tau_la: float = 1.0,
        centres: str = "learnable",
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class, for the prior; needed unless alpha is 0.
            feature_dim: size of the encoder's features; needed unless alpha is 0 and the centres are learnable.
            projection_dim: dimension of the embeddings.
            temperature: divides the cosines.
            base_temperature: the contrast is multiplied by temperature / base_temperature; None for a factor of 1.
            alpha: weight of the cross-entropy.
            beta: weight of the contrast.
            tau_la: factor on the log prior that is added to the logits in training.
            centres: "learnable", or computed from the class weights with "layernorm" or "batchnorm".
            seed: seed of the weights.

        Raises:
            ValueError: for values outside their range or missing.
        """
        super().__init__(num_classes=num_classes, temperature=temperature, base_temperature=base_temperature)
        if not (alpha >= 0 and beta >= 0):
            raise ValueError(f"alpha {alpha} and beta {beta} are weights; give values of at least 0")
        if centres not in _CENTRES:
            raise ValueError(f"centres {centres!r} does not exist; choose one of {', '.join(_CENTRES)}")
        self.alpha, self.beta, self.tau_la = alpha, beta, tau_la
        self.needs_features = alpha > 0
        self.class_weights_KF: nn.Parameter | None = None
        self.log_prior_K: Tensor | None
        if alpha > 0 or centres != "learnable":
            if feature_dim is None:
                raise ValueError("bcl classifies the encoder's features; give feature_dim")
            self.class_weights_KF = nn.Parameter(seeded_linear(feature_dim, num_classes, seed).weight.detach())
        counts_K = checked_counts(class_counts, num_classes, "bcl") if alpha > 0 else None
        self.register_buffer("log_prior_K", None if counts_K is None else (counts_K / counts_K.sum()).log())
        self.free_centres_KD: nn.Parameter | None = None
        self.centre_head: nn.Sequential | None = None
        if feature_dim is None or centres == "learnable":
            normal_KD = torch.randn(num_classes, projection_dim, generator=torch.Generator().manual_seed(seed))
            self.free_centres_KD = nn.Parameter(nn.functional.normalize(normal_KD, dim=1))
        else:
            self.centre_head = nn.Sequential(
                seeded_linear(feature_dim, feature_dim, seed + 1),
                nn.LayerNorm(feature_dim) if centres == "layernorm" else nn.BatchNorm1d(feature_dim),
                nn.ReLU(),
                seeded_linear(feature_dim, projection_dim, seed + 2),
            )

    def classifier(self, features: Tensor) -> Tensor | None:
        """Return 30 * cosine of features and class weights [..., K]."""
        if not self.needs_features or self.class_weights_KF is None:
            return super().classifier(features)
        return cosine_logits(self.class_weights_KF, features, _COSINE_SCALE)

    def centres_KD(self, dtype: torch.dtype) -> Tensor:
        """Return the unit class centres."""
        if self.free_centres_KD is not None:
            return nn.functional.normalize(self.free_centres_KD.to(dtype), dim=1)
        assert self.centre_head is not None
        return nn.functional.normalize(self.centre_head(self.class_weights_KF).to(dtype), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Return alpha * cross-entropy + beta * contrast."""
        if batch.views < 2:
            raise ValueError(f"bcl got {batch.views} view; view 0 is for the classifier, give at least one more")
        contrast = self.contrast(_without_first_view(batch))
        self.terms["contrast"] = contrast.detach()
        if self.alpha == 0:
            return self.beta * contrast
        assert batch.features_BVF is not None
        assert self.log_prior_K is not None
        logits_BK = self.classifier(batch.features_BVF[:, 0])
        assert logits_BK is not None
        adjusted_BK = logits_BK + self.tau_la * self.log_prior_K.to(logits_BK.dtype)
        classification = nn.functional.cross_entropy(adjusted_BK, batch.labels_B)
        self.terms["classification"] = classification.detach()
        return self.alpha * classification + self.beta * contrast

    def contrast(self, batch: Batch) -> Tensor:
        """Return the contrastive term of all views in `batch`."""
        dtype, classes, labels_A = batch.z_BVD.dtype, self.num_classes, batch.anchor_labels_A
        member_PK = batch.codes(classes)
        rows_K = member_PK.sum(0) * batch.views
        # A class without rows is nobody's own class; the clamp only keeps its unused entry finite.
        members_KK = (rows_K + 1 - torch.eye(classes, dtype=dtype, device=rows_K.device)).clamp(min=1)
        log_weights_AK = -members_KK.log()[labels_A]
        # 1 / count as a part of the dot product: log weight per class times the one-hot class of the column.
        column_codes_MK = member_PK.repeat_interleave(batch.views, 0, output_size=len(batch.columns_MD))
        lse_A = log_sum_exp(
            torch.cat((batch.anchors_AD / self.temperature, log_weights_AK), 1),
            torch.cat((batch.columns_MD, column_codes_MK), 1),
            self_offset=batch.first_row,
        )
        centre_products_AK = batch.anchors_AD @ self.centres_KD(dtype).T
        lse_A = add_columns(lse_A, centre_products_AK / self.temperature, log_weights_AK)
        products_BV, counts_B1 = same_class_products(batch, member_PK)
        products_BV = products_BV + at_class(centre_products_AK, labels_A).view_as(products_BV)
        return self.mean_loss(batch, lse_A, products_BV / self.temperature, counts_B1 + 1)

    def collapse_value(self, samples: int) -> float | None:
        """Return None: the value depends on the centres and the class counts of the batch."""
        return None


def _without_first_view(batch: Batch) -> Batch:
    z_BVD = batch.z_BVD[:, 1:]
    pool_z_PVD = z_BVD if batch.pool_z_PVD is batch.z_BVD else batch.pool_z_PVD[:, 1:]
    return Batch(z_BVD, batch.labels_B, pool_z_PVD, batch.pool_labels_P, batch.first)
