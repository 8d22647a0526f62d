"""The base of the contrastive methods: from positives to the loss, and at once to its gradient where that is possible.

Shape suffixes: A local rows (anchors), M rows of all ranks (columns), N rows that are both,
B local samples, P samples of all ranks, V views, K classes, D dimensions.

With P(i) the positives of anchor i, l_i = log sum_{k != i} exp(z_i . z_k / tau) - mean_{p in P(i)} z_i . z_p / tau.
Positives are all rows of a class or all views of a sample, so that the second part needs class sums and no pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from . import logsumexp
from .batch import Batch
from .objective import Objective
from .products import other_view_sums, same_class, sum_classes


@dataclass(frozen=True)
class Positives:
    """Which rows attract each other, besides the views of one sample.

    Attributes:
        member_PK: one-hot classes of the samples whose positives are all rows of their class, zeros for the others;
            None if there are no such samples.
        supervised_P: which samples these are; None for all. The positives of the others are their own other views.
    """

    member_PK: Tensor | None = None
    supervised_P: Tensor | None = None


class Contrastive(Objective):
    """Base of the methods whose denominator is the sum over all other rows.

    A subclass implements `positives`, or `loss` with `mean_loss` where it has more than positives and rows.
    """

    def __init__(self, *, num_classes: int, temperature: float = 0.07, base_temperature: float | None = None) -> None:
        """Create the objective.

        Args:
            num_classes: number of classes.
            temperature: divides the cosines; smaller values weigh near negatives more.
            base_temperature: the loss is multiplied by temperature / base_temperature; None for a factor of 1.
        """
        super().__init__(num_classes=num_classes)
        self.temperature = temperature
        self.factor = temperature_factor(temperature, base_temperature)

    def positives(self, batch: Batch) -> Positives:
        """Return the positives of every anchor."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of the anchors' losses."""
        positives = self.positives(batch)
        if is_alone(batch, self.temperature):
            return self.loss_at_once(batch, mean_positives(batch.z_BVD, positives))
        products_BV, counts = sum_positives(batch, positives)
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV / self.temperature, counts)

    def loss_at_once(self, batch: Batch, positives_BVD: Tensor, both_BVD: Tensor | None = None) -> Tensor:
        """Return the factor times the mean over all rows, and compute the gradient on the way.

        Args:
            batch: a batch for which `is_alone` holds.
            positives_BVD: weighted mean of each row's positives; its memory is used again.
            both_BVD: the same plus the sum of the rows whose positive the row is, each times its weight there; None if
                these are the same rows with the same weights.
        """
        value: Tensor = _AtOnce.apply(batch.z_BVD, 1.0 / self.temperature, positives_BVD, both_BVD)
        return self._finish(value, value.new_zeros(()))

    def mean_loss(self, batch: Batch, lse_A: Tensor, logits: Tensor, weights: Tensor | float) -> Tensor:
        """Return the factor times the mean over all local anchors, and note the share of them without positives.

        Args:
            batch: the batch; the other views of an anchor are among its positives and columns.
            lse_A: logarithm of each anchor's denominator.
            logits: sum of the positives' logits [A] or [B, V], each times its weight.
            weights: sum of the positives' weights.
        """
        complete = batch.views > 1
        none = lse_A.new_zeros(()) if complete else (torch.as_tensor(weights) <= 0).to(lse_A.dtype).mean()
        return self._finish(anchor_losses(lse_A, logits, weights, complete=complete).mean(), none)

    def _finish(self, loss: Tensor, no_positive_fraction: Tensor) -> Tensor:
        self.terms["no_positive_fraction"] = no_positive_fraction
        return loss if self.factor == 1 else self.factor * loss

    def collapse_value(self, samples: int) -> float | None:
        """Return factor * ln(rows - 1): all other rows are equally near, positives among them."""
        if not set(self.extra_terms) <= {"instance"}:
            return None
        return self.factor * math.log(max(samples * self.views - 1, 1))


def temperature_factor(temperature: float, base_temperature: float | None) -> float:
    """Return temperature / base_temperature, 1 without a base.

    Raises:
        ValueError: for temperatures that are not positive.
    """
    base = temperature if base_temperature is None else base_temperature
    for name, value in (("temperature", temperature), ("base_temperature", base)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} {value} is not a positive number; the published value is 0.07")
    return temperature / base


def sum_positives(batch: Batch, positives: Positives) -> tuple[Tensor, Tensor | float]:
    """Return the sum of each anchor's dot products with its positives [B, V], and their number, spread over it."""
    if positives.member_PK is None:
        return batch.other_view_products_BV, batch.views - 1.0
    products_BV, counts_B1 = same_class_products(batch, positives.member_PK)
    if positives.supervised_P is None:
        return products_BV, counts_B1
    supervised_B1 = batch.local(positives.supervised_P)[:, None]
    products_BV = torch.where(supervised_B1, products_BV, batch.other_view_products_BV)
    return products_BV, torch.where(supervised_B1, counts_B1, batch.views - 1)


def same_class_products(batch: Batch, member_PK: Tensor) -> tuple[Tensor, Tensor]:
    """Sum each anchor's dot products with the rows of its class, itself left out if it is a member.

    Args:
        batch: the batch.
        member_PK: one-hot classes [P, K] of the samples that count; rows of zeros for the others.

    Returns:
        Sum of the products [B, V] and number of rows in it [B, 1]. Both assume that the anchor is a member.
    """
    class_BK = batch.local(batch.codes(member_PK.shape[1]))
    products_BV = same_class(batch.z_BVD, batch.pool_z_PVD, class_BK, member_PK)
    others_K = member_PK.sum(0) * batch.views - 1
    return products_BV, others_K[batch.labels_B][:, None]


def anchor_losses(lse_A: Tensor, logits: Tensor, weights: Tensor | float, *, complete: bool = False) -> Tensor:
    """Return l_i = log-sum-exp - weighted mean of the positives' logits.

    Args:
        lse_A: logarithm of each anchor's denominator.
        logits: sum of the positives' logits, each times its weight; [A] or [B, V].
        weights: sum of the positives' weights, which can be spread over the logits.
        complete: each anchor is known to have a positive and a column, as it has where it has other views. To look for
            those without takes longer than the rest.

    Returns:
        In the shape of the logits; zero for an anchor without positives or without any column, which stays in the mean.
    """
    lse = lse_A.view_as(logits)
    if complete:
        return lse - logits / weights
    weights = weights.to(lse.dtype) if isinstance(weights, Tensor) else torch.full_like(lse, weights)
    # Not "unless usable": NaN must stay NaN, so that a broken run is seen.
    alone = weights <= 0
    # The quotient is differentiated where it is left out too: it must be finite there.
    mean = logits / weights.masked_fill(alone, 1.0)
    return (lse - mean).masked_fill(alone | (lse == -torch.inf), 0.0)


def is_alone(batch: Batch, temperature: float) -> bool:
    """Tell whether value and gradient of a batch can be computed at once.

    The loss must be the batch's only one, since others could share its exponentials, the rows must be all rows there
    are, and every anchor must have other views.
    """
    return (
        batch.single_loss
        and batch.pool_z_PVD is batch.z_BVD
        and batch.views > 1
        and logsumexp.no_shift_is_safe(batch.z_BVD, 1.0 / temperature)
    )


class _Context(FunctionCtx):
    """The attributes that the function below hangs on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _AtOnce(torch.autograd.Function):
    """The mean loss of all rows and its gradient, in a third of the operators of autograd's way.

    A small batch takes longer to tell torch what to do, operator after operator, than to do it; on a GPU even a batch
    of thousands. With T_i the weighted mean of row i's positives, the value is mean_i (lse_i - scale z_i . T_i), and
    the gradient of its second part -scale (T_i + U_i) / N for U_i the weighted sum of the rows whose positive i is.
    """

    @staticmethod
    def forward(ctx: _Context, z_BVD: Tensor, scale: float, positives_BVD: Tensor, both_BVD: Tensor | None) -> Tensor:
        rows_ND, positives_ND = z_BVD.flatten(0, 1), positives_BVD.flatten(0, 1)
        total_N, kept = logsumexp.pair_sums(rows_ND, scale)
        products_N = torch.linalg.vecdot(rows_ND, positives_ND)
        value = total_N.log().sub_(products_N, alpha=scale).mean()
        if ctx.needs_input_grad[0]:
            # step * (sum_j (1 / total_i + 1 / total_j) exp_ij z_j - T_i - U_i), in the memory of the positives
            step = scale / len(rows_ND)
            grad_ND, beta = (positives_ND, -2 * step) if both_BVD is None else (both_BVD.flatten(0, 1), -step)
            logsumexp.add_weighted_pairs(grad_ND, rows_ND, scale, total_N.reciprocal_(), kept, alpha=step, beta=beta)
            ctx.save_for_backward(grad_ND.view(z_BVD.shape))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * grad, None, None, None


@torch.no_grad()
def mean_positives(z_BVD: Tensor, positives: Positives) -> Tensor:
    """Return the mean of each row's positives [B, V, D], without gradient."""
    if positives.member_PK is None:
        others_BVD = other_view_sums(z_BVD)
        return others_BVD if z_BVD.shape[1] == 2 else others_BVD.div_(z_BVD.shape[1] - 1)
    # Sums over classes, each divided by the number of the other rows in its class.
    member_BK, views = positives.member_PK, z_BVD.shape[1]
    share_K = (member_BK.sum(0) * views).sub_(1).reciprocal_()
    weighted_BK = member_BK * share_K
    class_BVD = (weighted_BK @ sum_classes(member_BK, z_BVD))[:, None] - z_BVD * weighted_BK.sum(1)[:, None, None]
    if positives.supervised_P is None:
        return class_BVD
    return torch.where(positives.supervised_P[:, None, None], class_BVD, mean_positives(z_BVD, Positives()))
