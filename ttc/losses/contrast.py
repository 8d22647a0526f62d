"""The parts of the one form: class sums instead of pair masks, anchor losses, additional columns, reproducible draws.

Shape suffixes: A local rows (anchors), M rows of all ranks (columns), P samples of all ranks, K classes, D dimensions,
X additional columns, V views.

Every method is l_i = sum_j t_ij (log sum_k d_ik exp(x_ik) - x_ij). Targets t are equal for all rows of a class, so that
sum_j t_ij z_i . z_j is the product of z_i with a class sum: O(N K D) instead of O(N^2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttc.losses.batch import Batch, one_hot
from ttc.losses.products import same_class


def class_counts(labels_P: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return the number of samples per class [K]."""
    return one_hot(labels_P, num_classes, dtype).sum(0)


def same_class_products(batch: Batch, member_PK: Tensor) -> tuple[Tensor, Tensor]:
    """Sum each anchor's dot products with the rows of its class, itself left out if it is a member.

    Args:
        batch: the batch.
        member_PK: one-hot classes [P, K] of the samples that count; rows of zeros for the others.

    Returns:
        Sum of the products [B, V] and number of rows in it [B, 1]. Both assume that the anchor is a member.
    """
    own_BK = batch.local(batch.codes(member_PK.shape[1]))
    products_BV = same_class(batch.z_BVD, batch.pool_z_PVD, own_BK, member_PK)
    others_K = member_PK.sum(0) * batch.views - 1
    return products_BV, others_K[batch.labels_B][:, None]


def anchor_losses(lse_A: Tensor, products: Tensor, weights: Tensor | float, *, complete: bool = False) -> Tensor:
    """Return l_i = log-sum-exp - weighted mean of the positives' logits.

    Args:
        lse_A: logarithm of each anchor's denominator.
        products: sum of the positives' logits, each times its weight; [A] or [B, V].
        weights: sum of the positives' weights, which can be spread over the products.
        complete: each anchor is known to have a positive and a column, as it has where it has other views. To look for
            those without takes longer than the rest.

    Returns:
        In the shape of the products; zero for an anchor without positives or without any column, which stays in the
        mean.
    """
    lse = lse_A.view_as(products)
    if complete:
        return lse - products / weights
    weights = weights.to(lse.dtype) if isinstance(weights, Tensor) else torch.full_like(lse, weights)
    # Not "unless usable": NaN must stay NaN, so that a broken run is seen.
    alone = weights <= 0
    # The quotient is differentiated where it is left out too: it must be finite there.
    mean = products / weights.masked_fill(alone, 1.0)
    return (lse - mean).masked_fill(alone | (lse == -torch.inf), 0.0)


def add_columns(lse_A: Tensor, logits_AX: Tensor, log_weights_AX: Tensor | float = 0.0) -> Tensor:
    """Return the log-sum-exp over further columns too, each with a weight given by its logarithm."""
    return torch.logaddexp(lse_A, (logits_AX + log_weights_AX).logsumexp(1))


def own_class(values_AK: Tensor, labels_A: Tensor) -> Tensor:
    """Pick each row's value of its own class [A]."""
    return values_AK.gather(1, labels_A[:, None]).squeeze(1)


def uniform_integers(seed: int, step: int, index: Tensor) -> Tensor:
    """Hash global indices into pseudo-random integers in 0..2^62-1.

    A function of its arguments only, so that every rank draws the same numbers for the same rows and a resumed run
    repeats them. The mixing is that of the splitmix64 generator.

    Args:
        seed: seed of the run.
        step: global step.
        index: int64 tensor of global row or sample indices.

    Returns:
        int64 tensor of the shape of `index`.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    key = _signed((seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % 2**64)
    mixed = _mix(index * _signed(0x9E3779B97F4A7C15) + key)
    return _mix(mixed + key) & (2**62 - 1)


def _mix(value: Tensor) -> Tensor:
    """Scramble the bits of int64 values; multiplication wraps around, shifts fill with zeros."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ ((value >> shift) & (2 ** (64 - shift) - 1))) * _signed(factor)
    return value ^ ((value >> 31) & (2**33 - 1))


def _signed(value: int) -> int:
    """Return the int64 with the same bits as an unsigned 64-bit number."""
    return value - 2**64 if value >= 2**63 else value
