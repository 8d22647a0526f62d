"""The base of the contrastive methods: from positives to the loss, at once where the batch is small, else streamed.

Shape suffixes: A local rows (anchors), M rows of all ranks (columns), N rows that are both, I of them at a time,
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
from .products import same_class, sum_classes, sum_views


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
        if fits_one_block(batch, self.temperature):
            value: Tensor = _OneBlock.apply(
                batch.z_BVD, 1.0 / self.temperature, positives.member_PK, positives.supervised_P
            )
            return self._finish(value, value.new_zeros(()))
        products_BV, counts = sum_positives(batch, positives)
        return self.mean_loss(batch, batch.log_sum_exp(self.temperature), products_BV / self.temperature, counts)

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


def fits_one_block(batch: Batch, temperature: float) -> bool:
    """Tell whether value and gradient of a batch can be computed at once.

    The loss must be the batch's only one, since others could share its exponentials, the rows must be all rows there
    are, and every anchor must have other views.
    """
    rows = len(batch.z_BVD) * batch.views
    return (
        batch.single_loss
        and batch.pool_z_PVD is batch.z_BVD
        and batch.views > 1
        and logsumexp.fits_single_pass(rows, rows, batch.z_BVD.device)
        and logsumexp.one_shift_is_safe(batch.z_BVD, 1.0 / temperature)
    )


class _Context(FunctionCtx):
    """The attributes that the function below hangs on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _OneBlock(torch.autograd.Function):
    """The mean loss of a batch whose pairs fit into one block, and its gradient from the same exponentials.

    A small batch takes longer to tell torch what to do, operator after operator, than to do it; on a GPU even a batch
    of thousands. This takes a third of the operators. With T_i the mean of row i's positives, the value is
    mean_i (lse_i - scale z_i . T_i). Positives are mutual and equally many for both sides, so that the second part's
    gradient is -2 scale T_i / N.
    """

    @staticmethod
    def forward(
        ctx: _Context, z_BVD: Tensor, scale: float, member_BK: Tensor | None, supervised_B: Tensor | None
    ) -> Tensor:
        positives_BVD = _mean_positives(z_BVD, member_BK, supervised_B)
        rows_ND, positives_ND = z_BVD.flatten(0, 1), positives_BVD.flatten(0, 1)
        logits_NN = torch.addmm(rows_ND.new_empty(()), rows_ND, rows_ND.T, beta=0, alpha=scale)
        # No product of two rows exceeds the largest squared length, so exp never overflows, whatever the rows are.
        shift = logits_NN.diagonal().amax()
        exp_NN = logits_NN.sub_(shift).exp_().fill_diagonal_(0)
        total_N = exp_NN.sum(1)
        products_N = torch.linalg.vecdot(rows_ND, positives_ND)
        value = total_N.log().sub_(products_N, alpha=scale).mean() + shift
        if ctx.needs_input_grad[0]:
            # step * (sum_j (1 / total_i + 1 / total_j) exp_ij z_j - 2 T_i), in the memory of the positives
            step = scale / len(rows_ND)
            for i, pair_IN in logsumexp.weighted_pairs(total_N.reciprocal_(), exp_NN):
                positives_ND[i].addmm_(pair_IN, rows_ND, beta=-2 * step, alpha=step)
            ctx.save_for_backward(positives_BVD)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * grad, None, None, None


def _mean_positives(z_BVD: Tensor, member_BK: Tensor | None, supervised_B: Tensor | None) -> Tensor:
    """Return the mean of each row's positives [B, V, D]."""
    views = z_BVD.shape[1]
    if member_BK is None:
        others_BVD = sum_views(z_BVD) - z_BVD
        return others_BVD if views == 2 else others_BVD.div_(views - 1)
    # Sums over classes, each divided by the number of the other rows in its class.
    share_K = (member_BK.sum(0) * views).sub_(1).reciprocal_()
    weighted_BK = member_BK * share_K
    class_BVD = (weighted_BK @ sum_classes(member_BK, z_BVD))[:, None] - z_BVD * weighted_BK.sum(1)[:, None, None]
    if supervised_B is None:
        return class_BVD
    return torch.where(supervised_B[:, None, None], class_BVD, _mean_positives(z_BVD, None, None))
