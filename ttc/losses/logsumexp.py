"""Log-sum-exp over all pairs of rows, streamed block by block so that the pair matrix never exists.

Shape suffixes: A anchors, M columns, N rows that are anchors and columns at once, I and J some of them, D dimensions.

The backward pass recomputes each block instead of storing it, so memory is O(N D + block^2). Up to `_SINGLE_PASS` pairs
it keeps the exponentials: storing them is then cheaper than multiplying twice. All of them are powers of two, since
torch's exp2 takes less than half of the time of its exp on an AMD processor and as long elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Edge of a square block. On a CPU a float32 block and its operands stay in a 1 MiB L2 cache, and two views of 256
# samples are more than one block, so that what lies below the diagonal is skipped: that measured fastest
# (benchmarks/losses.py). A GPU needs larger multiplications to be busy.
_BLOCK_CPU = 256
_BLOCK_GPU = 4096
_SINGLE_PASS_CPU = 2048 * 2048
_SINGLE_PASS_GPU = 8192 * 8192
# Largest spread of logits for which no row needs a shift of its own: exp(80) and exp(-80) are normal float32 numbers.
_SAFE_SPREAD = 80.0
_LOG2_E = math.log2(math.e)

Groups = tuple[Tensor, Tensor]


class _Context(FunctionCtx):
    """The attributes that the functions below hang on autograd's context."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    scale: float
    self_offset: int | None
    groups: Groups | None
    kept: bool


def log_sum_exp(
    anchors_AD: Tensor,
    columns_MD: Tensor,
    scale: float = 1.0,
    *,
    self_offset: int | None = None,
    groups: Groups | None = None,
) -> Tensor:
    """Return log sum_j exp(scale * anchor_i . column_j) for every anchor i.

    A weight of a column that depends on the anchor needs no extra argument: append its logarithm to the anchors'
    dimensions and a one-hot code to the columns'. A temperature per anchor is a factor on the anchors.

    Args:
        anchors_AD: float32 or float64 [A, D].
        columns_MD: [M, D], same dtype. May be the same tensor object as the anchors: each pair is then multiplied once.
        scale: factor on every dot product, 1 / temperature.
        self_offset: column self_offset + i is anchor i itself and is left out; None leaves out nothing.
        groups: integer codes of the anchors [A] and of the columns [M]; columns of the anchor's own group are left out.

    Returns:
        [A]; -inf for an anchor without any column, with gradient zero.
    """
    if anchors_AD is columns_MD and self_offset == 0 and groups is None and no_shift_is_safe(anchors_AD, scale):
        symmetric: Tensor = _SymmetricLogSumExp.apply(anchors_AD, scale)
        return symmetric
    result: Tensor = _LogSumExp.apply(anchors_AD, columns_MD, scale, self_offset, groups)
    return result


def no_shift_is_safe(rows_ND: Tensor, scale: float) -> bool:
    """Tell whether the exponentials of all logits of unit rows, and their sums, are normal numbers as they are."""
    return 2.0 * scale <= (_SAFE_SPREAD if rows_ND.dtype == torch.float32 else 8 * _SAFE_SPREAD)


def _block(device: torch.device) -> int:
    return _BLOCK_CPU if device.type == "cpu" else _BLOCK_GPU


def fits_single_pass(rows: int, columns: int, device: torch.device) -> bool:
    """Tell whether so many pairs are few enough to keep their exponentials."""
    return rows * columns <= (_SINGLE_PASS_CPU if device.type == "cpu" else _SINGLE_PASS_GPU)


def pair_sums(rows_ND: Tensor, scale: float) -> tuple[Tensor, Tensor | None]:
    """Sum the exponentials of each row's logits with all other rows.

    Args:
        rows_ND: unit rows.
        scale: factor on every dot product; see `no_shift_is_safe`.

    Returns:
        The sums [N], and the exponentials for `add_weighted_pairs` if there are few enough to keep.
    """
    rows, block = len(rows_ND), min(len(rows_ND), _block(rows_ND.device))
    keep = fits_single_pass(rows, rows, rows_ND.device)
    # Blocks above the diagonal serve their rows and their columns. One piece of memory holds all that are kept: freed
    # as a whole it stays with the process, and the system need not clear it again at every step.
    work = rows_ND.new_empty(rows * (rows + block) // 2 if keep else block * block)
    total_N = rows_ND.new_empty(rows)
    totals_I = torch.split(total_N, block)
    for i, j, exp_IJ in _exponentials(rows_ND, scale, block, work, kept=keep, known=False):
        if i == j:
            torch.sum(exp_IJ, 1, out=totals_I[i])
        else:
            totals_I[i].add_(exp_IJ.sum(1))
            totals_I[j].add_(exp_IJ.sum(0))
    return total_N, work if keep else None


def add_weighted_pairs(
    out_ND: Tensor,
    rows_ND: Tensor,
    scale: float,
    weight_N: Tensor,
    kept: Tensor | None,
    *,
    alpha: float,
    beta: float,
) -> None:
    """Set out_i to beta * out_i + alpha * sum_{j != i} (weight_i + weight_j) exp(scale z_i . z_j) z_j for every row.

    Args:
        out_ND: the result.
        rows_ND: as in `pair_sums`.
        scale: as in `pair_sums`.
        weight_N: weight of each row.
        kept: second result of `pair_sums`.
        alpha: factor on the sum.
        beta: factor on what was there.
    """
    block = min(len(rows_ND), _block(rows_ND.device))
    work = rows_ND.new_empty(block * block) if kept is None else kept
    weights = rows_ND.new_empty(block * block)
    out_ID, rows_ID, weight_I = torch.split(out_ND, block), torch.split(rows_ND, block), torch.split(weight_N, block)
    known = kept is not None
    for i, j, exp_IJ in _exponentials(rows_ND, scale, block, work, kept=known, known=known):
        pair_IJ = torch.add(weight_I[i][:, None], weight_I[j], out=weights[: exp_IJ.numel()].view_as(exp_IJ))
        pair_IJ.mul_(exp_IJ)
        out_ID[i].addmm_(pair_IJ, rows_ID[j], beta=beta if i == j else 1, alpha=alpha)
        if i != j:
            out_ID[j].addmm_(pair_IJ.T, rows_ID[i], alpha=alpha)


def _exponentials(
    rows_ND: Tensor, scale: float, block: int, work: Tensor, *, kept: bool, known: bool
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield exp(scale z_i . z_j), zero for a row with itself, in blocks on and above the diagonal, those on it first.

    Args:
        rows_ND: unit rows.
        scale: factor on every dot product.
        block: edge of a block.
        work: memory for the blocks.
        kept: whether each block has a part of it to itself; else all have the same.
        known: whether the exponentials lie there already.
    """
    rows_ID, start = torch.split(rows_ND, block), 0
    for distance in range(len(rows_ID)):
        for i in range(len(rows_ID) - distance):
            left_ID, right_JD = rows_ID[i], rows_ID[i + distance]
            stop = start + len(left_ID) * len(right_JD)
            exp_IJ = work[start:stop].view(len(left_ID), len(right_JD))
            if not known:
                torch.addmm(exp_IJ, left_ID, right_JD.T, beta=0, alpha=scale * _LOG2_E, out=exp_IJ).exp2_()
                if not distance:
                    exp_IJ.diagonal().zero_()
            yield i, i + distance, exp_IJ
            start = stop if kept else 0


def _slices(length: int, block: int) -> Iterator[slice]:
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def _logits(work: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Write scale * left @ right.T, in powers of two, into `work` and return that part of it."""
    out = work[: left.shape[0] * right.shape[0]].view(left.shape[0], right.shape[0])
    return torch.addmm(out, left, right.T, beta=0, alpha=scale * _LOG2_E, out=out)


class _SymmetricLogSumExp(torch.autograd.Function):
    """Rows against themselves: exp(logits) is symmetric, so one block serves its rows and its columns."""

    @staticmethod
    def forward(ctx: _Context, rows_ND: Tensor, scale: float) -> Tensor:
        total_N, kept = pair_sums(rows_ND, scale)
        ctx.scale = scale
        ctx.save_for_backward(rows_ND, total_N, *(() if kept is None else (kept,)))
        return total_N.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_N: Tensor) -> tuple[Tensor, None]:
        rows_ND, total_N, *kept = ctx.saved_tensors
        # Without another column the total is zero, and so is the gradient.
        weight_N = grad_N / total_N if len(rows_ND) > 1 else torch.zeros_like(grad_N)
        grad_ND = torch.empty_like(rows_ND)
        add_weighted_pairs(grad_ND, rows_ND, ctx.scale, weight_N, kept[0] if kept else None, alpha=ctx.scale, beta=0)
        return grad_ND, None


class _LogSumExp(torch.autograd.Function):
    """Anchors against other columns, with a running maximum per anchor."""

    @staticmethod
    def forward(
        ctx: _Context,
        anchors_AD: Tensor,
        columns_MD: Tensor,
        scale: float,
        self_offset: int | None,
        groups: Groups | None,
    ) -> Tensor:
        anchors, columns = len(anchors_AD), len(columns_MD)
        ctx.scale, ctx.self_offset, ctx.groups = scale, self_offset, groups
        ctx.kept = fits_single_pass(anchors, columns, anchors_AD.device)
        block = max(anchors, columns) if ctx.kept else _block(anchors_AD.device)
        work = anchors_AD.new_empty(min(anchors, block) * min(columns, block))
        maximum_A = anchors_AD.new_full((anchors,), -torch.inf)
        total_A = anchors_AD.new_zeros(anchors)
        for i in _slices(anchors, block):
            for j in _slices(columns, block):
                logits_IJ = _logits(work, anchors_AD[i], columns_MD[j], scale)
                _exclude(logits_IJ, i, j, self_offset, groups)
                new_I = torch.maximum(maximum_A[i], logits_IJ.amax(1))
                # An anchor without a column so far has maximum -inf, and -inf - (-inf) would be NaN.
                shift_I = new_I.nan_to_num(neginf=0.0)
                total_A[i] *= (maximum_A[i] - shift_I).exp2_()
                total_A[i] += logits_IJ.sub_(shift_I[:, None]).exp2_().sum(1)
                maximum_A[i] = new_I
        kept = (work.view(anchors, columns),) if ctx.kept else ()
        ctx.save_for_backward(anchors_AD, columns_MD, maximum_A, total_A, *kept)
        return maximum_A.add(total_A.log2()).div_(_LOG2_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_A: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        anchors_AD, columns_MD, maximum_A, total_A, *kept = ctx.saved_tensors
        shift_A = maximum_A.nan_to_num(neginf=0.0)
        weight_A = torch.where(total_A > 0, grad_A / total_A, 0) * ctx.scale
        grad_AD = torch.zeros_like(anchors_AD) if ctx.needs_input_grad[0] else None
        grad_MD = torch.zeros_like(columns_MD) if ctx.needs_input_grad[1] else None
        anchors, columns = len(anchors_AD), len(columns_MD)
        block = max(anchors, columns) if kept else _block(anchors_AD.device)
        work = anchors_AD.new_empty(0 if kept else min(anchors, block) * min(columns, block))
        for i in _slices(anchors, block):
            for j in _slices(columns, block):
                if kept:
                    pair_IJ = kept[0] * weight_A[:, None]
                else:
                    pair_IJ = _logits(work, anchors_AD[i], columns_MD[j], ctx.scale)
                    _exclude(pair_IJ, i, j, ctx.self_offset, ctx.groups)
                    pair_IJ.sub_(shift_A[i, None]).exp2_().mul_(weight_A[i, None])
                if grad_AD is not None:
                    grad_AD[i].addmm_(pair_IJ, columns_MD[j])
                if grad_MD is not None:
                    grad_MD[j].addmm_(pair_IJ.T, anchors_AD[i])
        return grad_AD, grad_MD, None, None, None


def _exclude(logits_IJ: Tensor, i: slice, j: slice, self_offset: int | None, groups: Groups | None) -> None:
    """Set the logits that do not count to -inf before any maximum is taken."""
    if groups is not None:
        logits_IJ.masked_fill_(groups[0][i, None] == groups[1][j], -torch.inf)
    if self_offset is not None:
        offset = self_offset + i.start - j.start
        if -logits_IJ.shape[0] < offset < logits_IJ.shape[1]:
            logits_IJ.diagonal(offset).fill_(-torch.inf)
