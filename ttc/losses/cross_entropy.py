"""Cross-entropy and its variants for imbalanced classes: the baselines without contrast.

Shape suffixes: B samples, V views, A = B * V rows, P samples of all ranks, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batch import Batch, at_class, one_hot
from .classifier import checked_counts, cosine_logits, logits_of, seeded_linear
from .objective import Objective
from .registry import method


@method("ce", "plain cross-entropy")
class CrossEntropy(Objective):
    """Softmax cross-entropy of a linear classifier on the encoder's features.

    `z` is the encoder's features [B, V, F], or the logits [B, V, K] if the objective was built without `feature_dim`.
    All views count as samples.

    Plain form: `reference.ce`.

    Source: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.108.
    """

    views = 1
    student_views = 1
    space = "features"

    def __init__(self, *, num_classes: int, feature_dim: int | None = None, seed: int = 0) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            feature_dim: size F of the features; None if `z` is the logits.
            seed: seed of the classifier's weights.
        """
        super().__init__(num_classes=num_classes)
        self.head = None if feature_dim is None else seeded_linear(feature_dim, num_classes, seed)

    def classifier(self, features: Tensor) -> Tensor:
        """Return logits [..., K] for features [..., F]."""
        return logits_of(self.head, features)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over local rows."""
        logits_AK = self.classifier(batch.anchors_AD).to(batch.z_BVD.dtype)
        if logits_AK.shape[1] != self.num_classes:
            raise ValueError(
                f"z has {logits_AK.shape[1]} logits for {self.num_classes} classes; give feature_dim if z is features"
            )
        return self.reduce_logits(logits_AK, batch)

    def reduce_logits(self, logits_AK: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the logits."""
        return nn.functional.cross_entropy(logits_AK, batch.anchor_labels_A)


@method("weighted-ce", "cross-entropy weighted by inverse class frequency")
class WeightedCrossEntropy(CrossEntropy):
    """Cross-entropy with weights inversely proportional to the class frequency, w_c = (1 / n_c) / sum (1 / n).

    Plain form: `reference.weighted_ce`.

    Source: King, Zeng, "Logistic Regression in Rare Events Data", Political Analysis 2001 (weighting).
    Note: divided by the sum of the batch's weights, as torch does; over all ranks.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None,
        feature_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class.
            feature_dim: size of the features; None if `z` is the logits.
            seed: seed of the classifier's weights.
        """
        super().__init__(num_classes=num_classes, feature_dim=feature_dim, seed=seed)
        inverse_K = 1.0 / checked_counts(class_counts, num_classes, "weighted-ce")
        self.class_weights_K: Tensor
        self.register_buffer("class_weights_K", inverse_K / inverse_K.sum())

    def reduce_logits(self, logits_AK: Tensor, batch: Batch) -> Tensor:
        """Return the weighted mean, with the weights of all ranks in the denominator."""
        return weighted_mean(logits_AK, batch, self.class_weights_K)


def weighted_mean(logits_AK: Tensor, batch: Batch, class_weights_K: Tensor) -> Tensor:
    """Return the cross-entropy weighted by class and divided by the weights of all ranks, a scalar."""
    weights_K = class_weights_K.to(logits_AK.dtype)
    losses_A = nn.functional.cross_entropy(logits_AK, batch.anchor_labels_A, weight=weights_K, reduction="none")
    world_size = len(batch.pool_labels_P) / len(batch.labels_B)
    return losses_A.sum() * world_size / (weights_K[batch.pool_labels_P].sum() * batch.views)


@method("focal", "weighted cross-entropy that fades out for easy images")
class FocalLoss(CrossEntropy):
    """Cross-entropy that fades out for rows already classified well: mean of w_y (1 - p_y)^gamma * -log p_y.

    Plain form: `reference.focal`.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.
    Note: with several classes p is the softmax, and the weights are those of weighted cross-entropy.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        feature_dim: int | None = None,
        gamma: float = 2.0,
        class_weights: bool = True,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class; needed for class weights.
            feature_dim: size of the features; None if `z` is the logits.
            gamma: exponent, 0 for plain cross-entropy.
            class_weights: weigh by inverse class frequency.
            seed: seed of the classifier's weights.

        Raises:
            ValueError: for a negative gamma, or missing class counts.
        """
        super().__init__(num_classes=num_classes, feature_dim=feature_dim, seed=seed)
        if not gamma >= 0:
            raise ValueError(f"gamma {gamma} is negative; the published value is 2")
        self.gamma = gamma
        weights_K = torch.ones(num_classes, dtype=torch.float64)
        if class_weights:
            weights_K = 1.0 / checked_counts(class_counts, num_classes, "focal with class weights")
            weights_K = weights_K / weights_K.sum()
        self.class_weights_K: Tensor
        self.register_buffer("class_weights_K", weights_K)

    def reduce_logits(self, logits_AK: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows, not divided by the weights."""
        labels_A = batch.anchor_labels_A
        nll_A = -at_class(logits_AK.log_softmax(1), labels_A)
        # Kept above zero, where a power below one has an infinite slope.
        miss_A = (-torch.expm1(-nll_A)).clamp_min(torch.finfo(nll_A.dtype).tiny)
        return (self.class_weights_K.to(nll_A.dtype)[labels_A] * miss_A**self.gamma * nll_A).mean()


@method("logit-adjusted-ce", "cross-entropy of logits shifted by the log prior")
class LogitAdjustedCrossEntropy(CrossEntropy):
    """Cross-entropy of logits shifted by the log prior; at test time the raw logits are used.

    Plain form: `reference.logit_adjusted_ce`.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_counts: Sequence[int] | None,
        feature_dim: int | None = None,
        tau_la: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            class_counts: training samples per class, whose shares are the prior.
            feature_dim: size of the features; None if `z` is the logits.
            tau_la: factor on the log prior, 0 for plain cross-entropy.
            seed: seed of the classifier's weights.
        """
        super().__init__(num_classes=num_classes, feature_dim=feature_dim, seed=seed)
        counts_K = checked_counts(class_counts, num_classes, "logit-adjusted-ce")
        self.log_prior_K: Tensor
        self.register_buffer("log_prior_K", (counts_K / counts_K.sum()).log())
        self.tau_la = tau_la

    def reduce_logits(self, logits_AK: Tensor, batch: Batch) -> Tensor:
        """Return the mean over rows."""
        shifted_AK = logits_AK + self.tau_la * self.log_prior_K.to(logits_AK.dtype)
        return nn.functional.cross_entropy(shifted_AK, batch.anchor_labels_A)


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
