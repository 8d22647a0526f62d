"""NT-Xent, SupCon and SupMin: one class, three sets of supervised samples.

Shape suffixes: A local rows, B local samples, V views, P samples of all ranks, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ttc.losses import fused
from ttc.losses.batch import Batch, one_hot
from ttc.losses.contrast import anchor_losses, same_class_products, uniform_integers
from ttc.losses.objective import Objective


def check_temperature(temperature: float, base_temperature: float | None) -> float:
    """Return the factor temperature / base_temperature, 1 without a base.

    Raises:
        ValueError: for temperatures that are not positive.
    """
    base = temperature if base_temperature is None else base_temperature
    for name, value in (("temperature", temperature), ("base_temperature", base)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} {value} is not a positive number; the published value is 0.07")
    return temperature / base


class Contrastive(Objective):
    """Base of the methods whose denominator is the sum over all other rows."""

    def __init__(self, *, num_classes: int, temperature: float = 0.07, base_temperature: float | None = None) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            temperature: divides the cosines; smaller values weigh near negatives more.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
        """
        super().__init__(num_classes=num_classes)
        self.temperature = temperature
        self.factor = check_temperature(temperature, base_temperature)

    def mean_loss(self, batch: Batch, lse_A: Tensor, products: Tensor, weights: Tensor | float) -> Tensor:
        """Return the factor times the mean over all local anchors, and note the share of them without positives.

        Args:
            batch: the batch; the other views of an anchor are among its positives and columns.
            lse_A: logarithm of each anchor's denominator.
            products: sum of the positives' logits [A] or [B, V], each times its weight.
            weights: sum of the positives' weights.
        """
        complete = batch.views > 1
        none = lse_A.new_zeros(()) if complete else (torch.as_tensor(weights) <= 0).to(lse_A.dtype).mean()
        return self._finish(anchor_losses(lse_A, products, weights, complete=complete).mean(), none)

    def at_once(self, batch: Batch, member_BK: Tensor | None = None, supervised_B: Tensor | None = None) -> Tensor:
        """Return the same as `mean_loss` for a batch that fits; see `fused.contrast` for the arguments."""
        loss = fused.contrast(batch, self.temperature, member_BK, supervised_B)
        return self._finish(loss, loss.new_zeros(()))

    def _finish(self, loss: Tensor, no_positive_fraction: Tensor) -> Tensor:
        self.terms["no_positive_fraction"] = no_positive_fraction
        return loss if self.factor == 1 else self.factor * loss

    def collapse_value(self, samples: int) -> float | None:
        """Return factor * ln(rows - 1): all other rows are equally near, positives among them."""
        if not set(self.extra_terms) <= {"instance"}:
            return None
        return self.factor * math.log(max(samples * self.views - 1, 1))


class SupCon(Contrastive):
    """Supervised contrastive loss: every row of the anchor's class is a positive.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2 (L_out).
    """

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        if fused.fits(batch, self.temperature):
            return self.at_once(batch, batch.codes(self.num_classes))
        products_BV, counts_B1 = same_class_products(batch, batch.codes(self.num_classes))
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV / self.temperature, counts_B1)


class SimCLR(Contrastive):
    """NT-Xent: only the other views of the same sample are positives.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1.
    """

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        if fused.fits(batch, self.temperature):
            return self.at_once(batch)
        products_BV = batch.other_view_products_BV / self.temperature
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV, batch.views - 1.0)


class SupMin(Contrastive):
    """Supervise the minority only: its rows attract their class, majority rows the other view of their sample.

    Source: Mildenberger et al., "A Tale of Two Classes: Adapting Supervised Contrastive Learning to Binary Imbalanced
    Datasets", CVPR 2025 (SupMin).
    Note: any set of classes can be the supervised one; `ratio_supervised_majority` applies to each other class.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        minority_class: int | Iterable[int] | None,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        ratio_supervised_majority: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            minority_class: supervised class or classes.
            temperature: divides the cosines.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
            ratio_supervised_majority: share of the other samples, 0..1, drawn anew each step, that are supervised too.
            seed: seed of the draws.

        Raises:
            ValueError: without a minority class, or for values outside their range.
        """
        super().__init__(num_classes=num_classes, temperature=temperature, base_temperature=base_temperature)
        if minority_class is None:
            raise ValueError("supmin supervises the minority only; give minority_class")
        chosen = (minority_class,) if isinstance(minority_class, int) else tuple(minority_class)
        if not chosen or not all(0 <= c < num_classes for c in chosen):
            raise ValueError(f"minority_class {list(chosen)} is not within 0..{num_classes - 1}; name existing classes")
        if not 0 <= ratio_supervised_majority <= 1:
            raise ValueError(f"ratio_supervised_majority {ratio_supervised_majority} is not a share; give 0..1")
        self.ratio = ratio_supervised_majority
        self.seed = seed
        self.minority_K: Tensor
        minority_K = torch.zeros(num_classes, dtype=torch.bool)
        minority_K[list(chosen)] = True
        self.register_buffer("minority_K", minority_K, persistent=False)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        supervised_P = self.supervised(batch)
        member_PK = batch.codes(self.num_classes) * supervised_P[:, None]
        if fused.fits(batch, self.temperature):
            return self.at_once(batch, member_PK, supervised_P)
        products_BV, counts_B1 = same_class_products(batch, member_PK)
        supervised_B1 = batch.local(supervised_P)[:, None]
        products_BV = torch.where(supervised_B1, products_BV, batch.other_view_products_BV)
        counts_B1 = torch.where(supervised_B1, counts_B1, batch.views - 1)
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV / self.temperature, counts_B1)

    def supervised(self, batch: Batch) -> Tensor:
        """Return True for the minority and for the majority samples drawn in this step."""
        minority_P = self.minority_K[batch.pool_labels_P]
        if self.ratio == 0:
            return minority_P
        return minority_P | self._drawn(batch.pool_labels_P)

    def _drawn(self, labels_P: Tensor) -> Tensor:
        """Draw floor(ratio * n) of the n samples of each class: those whose random key ranks first in their class."""
        index_P = torch.arange(len(labels_P), device=labels_P.device)
        by_key_P = uniform_integers(self.seed, self.step, index_P).argsort()
        order_P = by_key_P[labels_P[by_key_P].argsort(stable=True)]
        counts_K = one_hot(labels_P, self.num_classes, torch.float64).sum(0)
        starts_K = counts_K.cumsum(0) - counts_K
        ordered_labels_P = labels_P[order_P]
        # The small addend keeps 0.29 * 100 = 28.999... from losing a sample to rounding.
        quota_P = (self.ratio * counts_K + 1e-9).floor()[ordered_labels_P]
        drawn_P = index_P - starts_K[ordered_labels_P] < quota_P
        return torch.zeros_like(drawn_P).scatter_(0, order_P, drawn_P)
