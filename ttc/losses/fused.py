"""Value and gradient of a contrastive loss at once, for batches whose pairs fit into one block.

A small batch takes longer to tell torch what to do, operator after operator, than to do it; on a GPU even a batch of
thousands. Here the gradient comes with the value, from the same exponentials and the same sums of positives, in a third
of the operators and as a single node of autograd's graph.

Shape suffixes: B samples, V views, N = B * V rows, I of them at a time, D dimensions, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ttc.losses import logsumexp
from ttc.losses.batch import Batch
from ttc.losses.products import sum_classes, sum_views


class _Context(FunctionCtx):
    """The attributes that the function below hangs on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


def fits(batch: Batch, temperature: float) -> bool:
    """Tell whether the loss of a batch can be computed at once.

    It must be the batch's only loss, since others could share its exponentials, its rows must be all rows there are,
    and every anchor must have other views.
    """
    rows_BVD = batch.z_BVD
    count = len(rows_BVD) * batch.views
    return (
        batch.single_loss
        and batch.pool_z_PVD is rows_BVD
        and batch.views > 1
        and not batch.bf16_multiply
        and logsumexp.fits_single_pass(count, count, rows_BVD.device)
        and logsumexp.one_shift_is_safe(rows_BVD, 1.0 / temperature)
    )


def contrast(
    batch: Batch, temperature: float, member_BK: Tensor | None = None, supervised_B: Tensor | None = None
) -> Tensor:
    """Return the mean over all rows of log-sum-exp minus mean logit of the positives.

    Args:
        batch: a batch that `fits`.
        temperature: divides the cosines.
        member_BK: one-hot classes of the samples whose positives are the rows of their class; zeros for the others.
            None if there are none.
        supervised_B: which samples these are; None if all. The positives of the others are their own other views.

    Returns:
        A scalar whose gradient is known already.
    """
    value: Tensor = _Contrast.apply(batch.z_BVD, 1.0 / temperature, member_BK, supervised_B)
    return value


class _Contrast(torch.autograd.Function):
    """With T_i the mean of row i's positives, the value is mean_i (lse_i - scale z_i . T_i).

    Positives are mutual and equally many for both sides, so that the second part's gradient is -2 scale T_i / N.
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
