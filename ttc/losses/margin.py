"""LDAM-DRW: larger margins for rarer classes, and weights for them late in the schedule.

Shape suffixes: A local rows, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch import Batch, one_hot
from .classifier import checked_counts, cosine_logits, seeded_linear
from .cross_entropy import CrossEntropy, weighted_mean
from .registry import method


@method("ldam-drw", "cross-entropy with larger margins for rarer classes, re-weighted late")
class LDAM(CrossEntropy):
    """Cross-entropy of scaled cosines after a margin is taken from the row's own class; deferred re-weighting.

    The margin of a class is C / n^(1/4), with C so that the largest is `max_margin`. From a share of the schedule on,
    the loss is weighted by the inverse effective number of samples, (1 - b) / (1 - b^n), scaled to a mean of 1.

    Plain form: `reference.ldam_drw`.

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019,
        section 3.2 (margins) and algorithm 1 (deferred re-weighting).
    Note: margins follow the images of the training set, since the bound behind them counts distinct images, however
    often batches repeat them; weights follow what the batches present, so that balanced batches get none. The
    published code does the same: margins of the data's counts with any sampler, no weights when it re-samples. The
    switch is a step, not an epoch, so that runs of few epochs have it too; with whole epochs it is the published one.
    The sum of weights runs over all ranks.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None,
        train_counts: Sequence[int] | None = None,
        schedule_steps: int | None = None,
        feature_dim: int | None = None,
        max_margin: float = 0.5,
        scale: float = 30.0,
        effective_beta: float = 0.9999,
        drw_start: float = 0.8,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: samples per class that the batches present, for the weights.
            train_counts: distinct training images per class, for the margins; None for `class_counts`.
            schedule_steps: steps of the whole run; needed unless drw_start is 0 or 1.
            feature_dim: size of the features.
            max_margin: margin of the rarest class, in units of the cosine.
            scale: factor on the cosines.
            effective_beta: b of the effective number of samples, 0 <= b < 1; 0 gives equal weights.
            drw_start: share of the schedule after which the weights apply; 1 for never.
            seed: seed of the classifier's weights.

        Raises:
            ValueError: for values outside their range or missing.
        """
        super().__init__(num_classes=num_classes)
        if not max_margin >= 0 or not scale > 0:
            raise ValueError(
                f"max_margin {max_margin} must be at least 0 and scale {scale} positive; published: 0.5 and 30"
            )
        if not 0 <= effective_beta < 1 or not 0 <= drw_start <= 1:
            raise ValueError(
                f"effective_beta {effective_beta} must be within 0..1 without 1, and drw_start {drw_start} a share; "
                "published: 0.9999 and 0.8"
            )
        if feature_dim is None:
            raise ValueError("ldam-drw normalises the encoder's features; give feature_dim")
        if schedule_steps is None and 0 < drw_start < 1:
            raise ValueError(f"ldam-drw re-weights after {drw_start:g} of the schedule; give schedule_steps")
        presented_K = checked_counts(class_counts, num_classes, "ldam-drw")
        distinct_K = presented_K if train_counts is None else checked_counts(train_counts, num_classes, "ldam-drw")
        self.scale = scale
        # Rounded, since 0.55 * 100 is above 55 in floating point.
        self.first_weighted_step = round(drw_start * (schedule_steps or 0)) if drw_start < 1 else None
        weights_KF = seeded_linear(feature_dim, num_classes, seed).weight.detach()
        self.class_weights_KF = nn.Parameter(nn.functional.normalize(weights_KF, dim=1))
        margins_K = distinct_K**-0.25
        weights_K = (1.0 - effective_beta) / (1.0 - effective_beta**presented_K)
        if self.first_weighted_step is None:
            weights_K = torch.ones_like(weights_K)
        self.margins_K: Tensor
        self.class_weights_K: Tensor
        self.register_buffer("margins_K", max_margin * margins_K / margins_K.max())
        self.register_buffer("class_weights_K", weights_K / weights_K.mean())

    def classifier(self, features: Tensor) -> Tensor:
        """Return scale * cosine of features and class weights [..., K], without margins."""
        return cosine_logits(self.class_weights_KF, features, self.scale)

    def reduce_logits(self, logits_AK: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows, weighted late in the schedule with the weights of all ranks in the denominator."""
        own_class_AK = one_hot(batch.anchor_labels_A, self.num_classes, logits_AK.dtype)
        reduced_AK = logits_AK - own_class_AK * (self.scale * self.margins_K.to(logits_AK.dtype))
        if self.first_weighted_step is None or self.step < self.first_weighted_step:
            return super().reduce_logits(reduced_AK, batch)
        return weighted_mean(reduced_AK, batch, self.class_weights_K)
