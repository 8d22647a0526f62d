"""Log-sum-exp over all pairs of rows, streamed block by block so that the pair matrix never exists.

Shape suffixes: A anchors, M columns, N rows that are anchors and columns at once, D dimensions.

The backward pass recomputes each block instead of storing it, so memory is O(N D + block^2). A problem that fits into
one block of `_SINGLE_PASS` elements keeps its exponentials: storing them is then cheaper than multiplying twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Edge of a square block. On a CPU a float32 block and its operands stay in a 2 MiB L2 cache, which measured fastest
# (benchmarks/losses.py); a GPU needs larger multiplications to be busy, and is faster still with all pairs of
# 4096 samples in one block (measured on an H200).
_BLOCK_CPU = 512
_BLOCK_GPU = 4096
_SINGLE_PASS_CPU = 1024 * 1024
_SINGLE_PASS_GPU = 8192 * 8192
# Stored exponentials that the backward pass weighs at a time: a small block stays in the cache, one of all rows would
# be as large as what is stored.
_KEPT_ELEMENTS_CPU = 128 * 1024
_KEPT_ELEMENTS_GPU = 4096 * 4096
# Largest spread of logits for which one shift serves all rows: exp(-80) is still a normal float32 number.
_SAFE_SPREAD = 80.0

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
    if anchors_AD is columns_MD and self_offset == 0 and groups is None and one_shift_is_safe(anchors_AD, scale):
        symmetric: Tensor = _SymmetricLogSumExp.apply(anchors_AD, scale)
        return symmetric
    result: Tensor = _LogSumExp.apply(anchors_AD, columns_MD, scale, self_offset, groups)
    return result


def one_shift_is_safe(rows_ND: Tensor, scale: float) -> bool:
    """Tell whether unit rows keep all logits within the range of a single shift."""
    return 2.0 * scale <= (_SAFE_SPREAD if rows_ND.dtype == torch.float32 else 8 * _SAFE_SPREAD)


def _block(device: torch.device) -> int:
    return _BLOCK_CPU if device.type == "cpu" else _BLOCK_GPU


def fits_single_pass(rows: int, columns: int, device: torch.device) -> bool:
    """Tell whether so many pairs are few enough to keep their exponentials."""
    return rows * columns <= (_SINGLE_PASS_CPU if device.type == "cpu" else _SINGLE_PASS_GPU)


def weighted_pairs(weight_N: Tensor, exp_NN: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (weight_i + weight_j) * exp_ij for some rows i at a time, in memory that the next ones take again."""
    rows = len(weight_N)
    elements = _KEPT_ELEMENTS_CPU if weight_N.device.type == "cpu" else _KEPT_ELEMENTS_GPU
    count = min(rows, max(1, elements // rows))
    work_CN = exp_NN.new_empty(count, rows)
    pieces = zip(_slices(rows, count), torch.split(weight_N[:, None], count), torch.split(exp_NN, count), strict=True)
    for i, weight_I1, exp_IN in pieces:
        yield i, torch.add(weight_I1, weight_N, out=work_CN[: len(weight_I1)]).mul_(exp_IN)


def _slices(length: int, block: int) -> Iterator[slice]:
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def _logits(work: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Write scale * left @ right.T into `work` and return that part of it."""
    out = work[: left.shape[0] * right.shape[0]].view(left.shape[0], right.shape[0])
    return torch.addmm(out, left, right.T, beta=0, alpha=scale, out=out)


class _SymmetricLogSumExp(torch.autograd.Function):
    """Rows against themselves: E = exp(logits - shift) is symmetric, so one block serves its rows and its columns."""

    @staticmethod
    def forward(ctx: _Context, rows_ND: Tensor, scale: float) -> Tensor:
        rows = len(rows_ND)
        # No product of two rows exceeds the largest squared length, so exp never overflows, whatever the rows are.
        shift: Tensor = torch.linalg.vecdot(rows_ND, rows_ND).amax() * scale
        ctx.scale, ctx.kept = scale, fits_single_pass(rows, rows, rows_ND.device)
        block = rows if ctx.kept else _block(rows_ND.device)
        work = rows_ND.new_empty(block * block)
        if ctx.kept:
            exp_NN = _logits(work, rows_ND, rows_ND, scale).sub_(shift).exp_().fill_diagonal_(0)
            total_N = exp_NN.sum(1)
            ctx.save_for_backward(rows_ND, total_N, shift, exp_NN)
            return total_N.log() + shift
        total_N = rows_ND.new_zeros(rows)
        for i, j in _upper_blocks(rows, block):
            exp_IJ = _logits(work, rows_ND[i], rows_ND[j], scale).sub_(shift).exp_()
            if i == j:
                exp_IJ.fill_diagonal_(0)
            else:
                total_N[j] += exp_IJ.sum(0)
            total_N[i] += exp_IJ.sum(1)
        ctx.save_for_backward(rows_ND, total_N, shift)
        return total_N.log() + shift

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_N: Tensor) -> tuple[Tensor, None]:
        rows_ND, total_N, shift, *kept = ctx.saved_tensors
        # Without another column the total is zero, and so is the gradient.
        weight_N = grad_N / total_N if len(rows_ND) > 1 else torch.zeros_like(grad_N)
        grad_ND = torch.empty_like(rows_ND) if kept else torch.zeros_like(rows_ND)
        if kept:
            for i, pair_IN in weighted_pairs(weight_N, kept[0]):
                out_ID = grad_ND[i]
                torch.addmm(out_ID, pair_IN, rows_ND, beta=0, alpha=ctx.scale, out=out_ID)
            return grad_ND, None
        block = _block(rows_ND.device)
        work, weights = rows_ND.new_empty(block * block), rows_ND.new_empty(block * block)
        for i, j in _upper_blocks(len(rows_ND), block):
            pair_IJ = _logits(work, rows_ND[i], rows_ND[j], ctx.scale).sub_(shift).exp_()
            if i == j:
                pair_IJ.fill_diagonal_(0)
            out_IJ = weights[: pair_IJ.numel()].view_as(pair_IJ)
            pair_IJ.mul_(torch.add(weight_N[i, None], weight_N[j], out=out_IJ))
            grad_ND[i].addmm_(pair_IJ, rows_ND[j])
            if i != j:
                grad_ND[j].addmm_(pair_IJ.T, rows_ND[i])
        return grad_ND.mul_(ctx.scale), None


def _upper_blocks(length: int, block: int) -> Iterator[tuple[slice, slice]]:
    for i in _slices(length, block):
        for j in _slices(length, block):
            if j.start >= i.start:
                yield i, j


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
                total_A[i] *= (maximum_A[i] - shift_I).exp_()
                total_A[i] += logits_IJ.sub_(shift_I[:, None]).exp_().sum(1)
                maximum_A[i] = new_I
        kept = (work.view(anchors, columns),) if ctx.kept else ()
        ctx.save_for_backward(anchors_AD, columns_MD, maximum_A, total_A, *kept)
        return maximum_A + total_A.log()

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
                    pair_IJ.sub_(shift_A[i, None]).exp_().mul_(weight_A[i, None])
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
