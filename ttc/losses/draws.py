"""Reproducible draws: a function of seed, step and place in the batch of all ranks, the same for any number of ranks.

Shape suffixes: A local rows, P samples of all ranks, S slots for drawn positives, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch, one_hot


def draw_share(labels_P: Tensor, num_classes: int, share: float, seed: int, step: int) -> Tensor:
    """Draw floor(share * n) of the n samples of each class: those whose random key ranks first in their class.

    Returns:
        bool [P].
    """
    index_P = torch.arange(len(labels_P), device=labels_P.device)
    by_key_P = uniform_integers(seed, step, index_P).argsort()
    order_P = by_key_P[labels_P[by_key_P].argsort(stable=True)]
    counts_K = one_hot(labels_P, num_classes, torch.float64).sum(0)
    starts_K = counts_K.cumsum(0) - counts_K
    ordered_labels_P = labels_P[order_P]
    # The small addend keeps 0.29 * 100 = 28.999... from losing a sample to rounding.
    quota_P = (share * counts_K + 1e-9).floor()[ordered_labels_P]
    drawn_P = index_P - starts_K[ordered_labels_P] < quota_P
    return torch.zeros_like(drawn_P).scatter_(0, order_P, drawn_P)


def draw_positives(batch: Batch, k: int, num_classes: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Draw for each anchor up to k rows of its class, without replacement and without the anchor's own sample.

    The draw is Floyd's algorithm on ranks inside the class, for all anchors at once, from numbers that depend on the
    seed, the step and the anchor's index among the rows of all ranks.

    Args:
        batch: the batch.
        k: largest number of rows per anchor.
        num_classes: number of classes.
        seed: seed of the run.
        step: global step.

    Returns:
        Indices into the rows of all ranks, int64 [A, k], and whether they count, bool [A, k].

    Source: Bentley, Floyd, "A sample of brilliance", Communications of the ACM 1987.
    """
    views, labels_A = batch.views, batch.anchor_labels_A
    counts_K = one_hot(batch.pool_labels_P, num_classes, torch.int64).sum(0)
    starts_A = (counts_K.cumsum(0) - counts_K)[labels_A]
    order_P = batch.pool_labels_P.argsort(stable=True)
    position_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(len(order_P), device=order_P.device))
    row_A = batch.first_row + torch.arange(len(labels_A), device=labels_A.device)
    candidates_A = (counts_K[labels_A] - 1) * views
    sample_rank_A = (position_P[row_A // views] - starts_A) * views
    slots_S = torch.arange(k, device=labels_A.device)
    random_AS = uniform_integers(seed, step, row_A[:, None] * k + slots_S)
    last_AS = candidates_A[:, None] - (k - slots_S)
    valid_AS = last_AS >= 0
    rank_AS = torch.where(valid_AS, random_AS % (last_AS + 1).clamp(min=1), -1)
    last_AS = last_AS.clamp(min=-1)
    for slot in range(1, k):
        taken_A = (rank_AS[:, :slot] == rank_AS[:, slot, None]).any(1)
        rank_AS[:, slot] = torch.where(taken_A, last_AS[:, slot], rank_AS[:, slot])
    # The own sample's rows are consecutive ranks of the class: skip them.
    rank_AS = (rank_AS + views * (rank_AS >= sample_rank_A[:, None])).clamp(min=0)
    sample_AS = order_P[(starts_A[:, None] + rank_AS // views).clamp(max=len(order_P) - 1)]
    return sample_AS * views + rank_AS % views, valid_AS


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
