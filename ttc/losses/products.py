"""Dot products of anchors with sums of their positives, with backward passes written out.

Positives come as sums of rows, never as pairs: O(N K D). Autograd would differentiate the same formulae in twice as
many operators, each of which costs a small batch more than its arithmetic.

Shape suffixes: B local samples, P samples of all ranks, V views, D dimensions, K classes.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _Context(FunctionCtx):
    """The attributes that the functions below hang on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    shared: bool


def same_class(z_BVD: Tensor, pool_z_PVD: Tensor, class_BK: Tensor, member_PK: Tensor) -> Tensor:
    """Return each row's product with the sum of the rows of its class, less the product with itself.

    Args:
        z_BVD: local rows.
        pool_z_PVD: rows of all ranks; may be the same tensor object.
        class_BK: one-hot classes of the local samples.
        member_PK: one-hot classes of the samples whose rows count; zeros for the others.

    Returns:
        [B, V].
    """
    shared = pool_z_PVD is z_BVD
    products_BV: Tensor = _SameClass.apply(z_BVD, z_BVD.detach() if shared else pool_z_PVD, class_BK, member_PK, shared)
    return products_BV


def other_views(z_BVD: Tensor) -> Tensor:
    """Return each row's product with the sum of the other views of its sample [B, V]."""
    products_BV: Tensor = _OtherViews.apply(z_BVD)
    return products_BV


def sum_views(z_BVD: Tensor) -> Tensor:
    """Return the sum of the views [B, 1, D]."""
    # Three times as fast as torch's sum over a dimension in the middle.
    return functools.reduce(torch.add, torch.split(z_BVD, 1, 1))


def other_view_sums(z_BVD: Tensor) -> Tensor:
    """Return the sum of the other views of each row's sample [B, V, D]."""
    return z_BVD.flip(1) if z_BVD.shape[1] == 2 else sum_views(z_BVD) - z_BVD


def sum_classes(member_PK: Tensor, z_PVD: Tensor) -> Tensor:
    """Return the sum of all rows of each class [K, D]."""
    sums_KVD = (member_PK.T @ z_PVD.flatten(1)).view(-1, *z_PVD.shape[1:])
    return sums_KVD.sum(1)


class _SameClass(torch.autograd.Function):
    """z . (S - z) for S the sum of the row's class."""

    @staticmethod
    def forward(
        ctx: _Context, z_BVD: Tensor, pool_z_PVD: Tensor, class_BK: Tensor, member_PK: Tensor, shared: bool
    ) -> Tensor:
        sums_B1D = (class_BK @ sum_classes(member_PK, pool_z_PVD))[:, None]
        ctx.save_for_backward(z_BVD, sums_B1D, class_BK, member_PK)
        ctx.shared = shared
        products_BV: Tensor = torch.linalg.vecdot(z_BVD, sums_B1D - z_BVD)
        return products_BV

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_BV: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        z_BVD, sums_B1D, class_BK, member_PK = ctx.saved_tensors
        grad_z_BVD = torch.sub(sums_B1D, z_BVD, alpha=2).mul_(grad_BV[..., None])
        grad_pool_P1D = (member_PK @ sum_classes(class_BK, z_BVD * grad_BV[..., None]))[:, None]
        if ctx.shared:
            return grad_z_BVD.add_(grad_pool_P1D), None, None, None, None
        return grad_z_BVD, grad_pool_P1D.expand(-1, z_BVD.shape[1], -1), None, None, None


class _OtherViews(torch.autograd.Function):
    """z . (S - z) for S the sum of the views of a sample."""

    @staticmethod
    def forward(ctx: _Context, z_BVD: Tensor) -> Tensor:
        others_BVD = other_view_sums(z_BVD)
        ctx.save_for_backward(z_BVD, others_BVD)
        products_BV: Tensor = torch.linalg.vecdot(z_BVD, others_BVD)
        return products_BV

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_BV: Tensor) -> Tensor:
        z_BVD, others_BVD = ctx.saved_tensors
        # Each row gets what it is multiplied with, and the weighted sum of the rows that it is a part of.
        return other_view_sums(z_BVD * grad_BV[..., None]).addcmul_(others_BVD, grad_BV[..., None])
