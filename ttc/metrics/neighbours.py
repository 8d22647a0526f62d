"""Streamed pass over all pairs of rows: neighbour shares and within-class sums.

Shape suffixes: M rows (samples x views), D dimensions, E = D + 1, B rows of one block,
K neighbours, V views, R rows of a class from the block onwards, S blocks of a class.
Rows are grouped by class and, inside a class, by sample: the rows of a class are one slice, and so are
the views of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ttc.metrics.portions import ALONE, Portion

_BLOCK_BYTES = {"cpu": 6 * 2**20, "cuda": 256 * 2**20}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassSums:
    """Sums over the rows of one class.

    Attributes:
        view_hits: Sum over rows of the share of views of the same sample among the nearest rows.
        class_share: Sum over rows of the share of the row's class among the K nearest rows.
        distance: Sum of the distances over ordered pairs of different rows of the class.
        potential: Sum of exp(-2 d^2) over the same pairs.
    """

    view_hits: float
    class_share: float
    distance: float
    potential: float


def default_block_rows(rows: int, device: str) -> int:
    """Return how many of so many rows are compared with all others at a time: on a GPU all where that is little memory.

    Args:
        rows: M.
        device: its type, such as "cuda".
    """
    return max(16, _BLOCK_BYTES.get(device, _BLOCK_BYTES["cpu"]) // (8 * rows))


def stream_class_sums(
    unit_MD: torch.Tensor,
    class_rows: Sequence[int],
    views: int,
    neighbours: int,
    block_rows: int,
    portion: Portion = ALONE,
) -> list[ClassSums]:
    """Compare every row with all other rows, in blocks of rows, and sum up by class.

    Memory is O(M D + M block_rows); the K nearest rows are selected, never sorted. A row is never its own
    neighbour. Rows at equal distance enter with their expected value under random tie-breaking.

    Distances are computed relative to the mean of the block's class, which leaves them unchanged and keeps
    their relative precision when the class has collapsed to a tiny region of the sphere.

    Args:
        unit_MD: [M, D] float64, unit rows, grouped by class and then by sample.
        class_rows: Number of rows of each class, in the order of the rows; sums to M.
        views: Rows per sample, V.
        neighbours: K, 1 <= K <= M - 1.
        block_rows: Rows compared at a time, >= 1.
        portion: Which blocks this process computes.

    Returns:
        One ClassSums per class; all zero for a class without rows.
    """
    total = len(unit_MD)
    assert sum(class_rows) == total
    assert 1 <= neighbours < total
    # The last column holds |b|^2, so that one product gives |b|^2 - 2ab.
    extended_ME = unit_MD.new_empty(total, unit_MD.shape[1] + 1)
    centred_MD, norms_M = extended_ME[:, :-1], extended_ME[:, -1]
    buffer_BM = unit_MD.new_empty(min(block_rows, max(class_rows)), total)
    results = []
    first = 0
    for rows in class_rows:
        last = first + rows
        starts = range(first, last, block_rows)
        sums_S4 = unit_MD.new_zeros(len(starts), 4)
        if rows:
            torch.sub(unit_MD, unit_MD[first:last].mean(dim=0), out=centred_MD)
            torch.sum(centred_MD.square(), dim=1, out=norms_M)
            for block, start in enumerate(starts):
                if not portion.holds(block):
                    continue
                stop = min(start + block_rows, last)
                # The anchor's own |a|^2 does not change the order and is added only where it is needed.
                scores_BM = buffer_BM[: stop - start]
                anchors_BE = -2.0 * extended_ME[start:stop]
                anchors_BE[:, -1] = 1.0
                torch.mm(anchors_BE, extended_ME.T, out=scores_BM)
                scores_BM.diagonal(offset=start).fill_(math.inf)
                norms_B = norms_M[start:stop]
                sums_S4[block, :2] = _neighbour_sums(scores_BM, norms_B, start, (first, last), views, neighbours)
                sums_S4[block, 2:] = _within_class_sums(scores_BM[:, start:last], norms_B)
        results.append(ClassSums(*portion.total(sums_S4).sum(0).tolist()))
        first = last
    return results


def _tie_width(squared_norm_B: torch.Tensor, squared_distance_B: torch.Tensor) -> torch.Tensor:
    """Bound the difference of two squared distances that rounding alone can make.

    Three parts: rounding of the product, of the normalised coordinates times the distance, and of the
    coordinates squared.
    """
    scale_B = squared_norm_B + squared_distance_B
    return 1e-12 * scale_B + 1e-14 * scale_B.sqrt() + 1e-28


def _smallest(scores_BM: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count` smallest scores of each row, [B, count], in no order; count < M."""
    if scores_BM.device.type != "cpu":
        return scores_BM.topk(count, dim=1, largest=False, sorted=False).values
    # Several times faster than topk, which also keeps track of the columns, but by itself in one thread.
    parts = np.array_split(scores_BM.numpy(), min(torch.get_num_threads(), len(scores_BM)))
    if len(parts) == 1:
        return torch.from_numpy(_partitioned(parts[0], count))
    with ThreadPoolExecutor(len(parts)) as threads:
        return torch.from_numpy(np.concatenate(list(threads.map(lambda part: _partitioned(part, count), parts))))


def _partitioned(values_BM: Floats, count: int) -> Floats:
    """Return the `count` smallest values of each row, [B, count], in no order."""
    # Of many values every eighth gives a limit that hardly more than the wanted ones can be below.
    sample_BM = values_BM[:, ::8].copy()
    rank = count // 8 + 4 * math.isqrt(count // 8) + 8
    if 4 * rank < sample_BM.shape[1]:
        sample_BM.partition(rank, axis=1)
        below_BM = values_BM <= sample_BM[:, rank, None]
        counts_B = np.count_nonzero(below_BM, axis=1)
        if counts_B.min() >= count:
            values_BX = np.full((len(values_BM), counts_B.max()), np.inf)
            values_BX[np.arange(values_BX.shape[1]) < counts_B[:, None]] = values_BM[below_BM]
            values_BM = values_BX
    return np.partition(values_BM, count - 1, axis=1)[:, :count]


def _neighbour_sums(
    scores_BM: torch.Tensor,
    norms_B: torch.Tensor,
    start: int,
    own_class: tuple[int, int],
    views: int,
    neighbours: int,
) -> torch.Tensor:
    """Sum over a block the share of views of the same sample (nearest row) and of the row's class (K nearest rows)."""
    # One more than K shows whether the K-th distance is tied with one outside the selection.
    selected = min(neighbours + 1, scores_BM.shape[1] - 1)
    near_BK = _smallest(scores_BM, selected)
    nearest_B = near_BK.amin(dim=1)
    first, last = own_class
    if selected > neighbours:
        edge_B, kth_B = near_BK.topk(2, dim=1).values.unbind(1)
        width_B = _tie_width(norms_B, (kth_B + norms_B).clamp_min(0))
        tied_B = edge_B - kth_B <= width_B
    else:
        kth_B = near_BK.amax(dim=1)
        tied_B = torch.zeros_like(kth_B, dtype=torch.bool)
    # Exactly K rows are no farther than the K-th, or the row is tied; so the smaller side may be counted.
    if 2 * (last - first) <= scores_BM.shape[1]:
        own_class_B = _count_upto(scores_BM[:, first:last], kth_B)
    else:
        own_class_B = neighbours - _count_upto(scores_BM[:, :first], kth_B) - _count_upto(scores_BM[:, last:], kth_B)
    share_B = own_class_B.double() / neighbours

    limit_B = nearest_B + _tie_width(norms_B, (nearest_B + norms_B).clamp_min(0))
    row_B = torch.arange(start, start + len(scores_BM), device=scores_BM.device)
    own_view_BV = (row_B // views * views)[:, None] + torch.arange(views, device=scores_BM.device)
    hits_B = (scores_BM.gather(1, own_view_BV) <= limit_B[:, None]).sum(dim=1).double()
    candidates_B = (near_BK <= limit_B[:, None]).sum(dim=1)

    if bool(tied_B.any()):
        part_M = scores_BM[tied_B]
        candidates_B[tied_B] = (part_M <= limit_B[tied_B, None]).sum(dim=1)
        low_B, high_B = (kth_B - width_B)[tied_B, None], (kth_B + width_B)[tied_B, None]
        below_M, upto_M = part_M < low_B, part_M <= high_B
        below_B, own_below_B = below_M.sum(dim=1), below_M[:, first:last].sum(dim=1)
        tied_count_B = upto_M.sum(dim=1) - below_B
        own_tied_B = upto_M[:, first:last].sum(dim=1) - own_below_B
        expected_B = own_below_B + (neighbours - below_B) * own_tied_B.double() / tied_count_B
        share_B[tied_B] = expected_B / neighbours
    return torch.stack([(hits_B / candidates_B).sum(), share_B.sum()])


def _count_upto(scores_BX: torch.Tensor, limit_B: torch.Tensor) -> torch.Tensor:
    """Count each row's values that do not exceed its limit [B]."""
    return torch.count_nonzero(scores_BX <= limit_B[:, None], dim=1)


def _within_class_sums(scores_BR: torch.Tensor, norms_B: torch.Tensor) -> torch.Tensor:
    """Sum distance and potential over the pairs of a block with its own class.

    The columns start at the first row of the block; pairs with rows after the block count twice, since their
    mirror image is never visited.
    """
    block = len(scores_BR)
    squared_BR = (scores_BR + norms_B[:, None]).clamp_min_(0)
    potential_R = (-2.0 * squared_BR).exp_().sum(dim=0)  # the infinite diagonal adds nothing
    squared_BR.diagonal().zero_()
    distance_R = squared_BR.sqrt_().sum(dim=0)
    return torch.stack(
        [values_R[:block].sum() + 2.0 * values_R[block:].sum() for values_R in (distance_R, potential_R)]
    )
