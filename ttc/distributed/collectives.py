"""Collectives, with and without gradient; what Python values they carry travels as JSON: nothing is ever pickled."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ttc.distributed.group import rank, world_size


def _all_gather(tensor: Tensor) -> Tensor:
    """Concatenate `tensor` of all ranks along the first dimension, in rank order."""
    out = tensor.new_empty((world_size() * tensor.shape[0], *tensor.shape[1:]))
    # all_gather_into_tensor is deprecated where all_gather_single exists.
    collect = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    collect(out, tensor.contiguous())
    return out


class _GatherWithGradient(torch.autograd.Function):
    """Concatenate over ranks; the gradient of a row is the SUM of what all ranks send back for it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        grad_of_rank = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
        scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        scatter(grad_of_rank, grad.contiguous())
        return grad_of_rank


class _SumWithGradient(torch.autograd.Function):
    """Sum over ranks; the gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """Add up the tensors of all ranks; every rank's loss may depend on the sum."""
    return _SumWithGradient.apply(tensor) if dist.is_initialized() else tensor


def mean(tensor: Tensor) -> Tensor:
    """Average a tensor over ranks, without gradient."""
    tensor = tensor.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """Concatenate equally sized tensors of all ranks along the first dimension, without gradient."""
    return _all_gather(tensor.detach()) if dist.is_initialized() else tensor.detach()


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Concatenate equally sized tensors of all ranks along the first dimension, with gradient.

    With this backward and a loss of W / N_global times the sum over local anchors, the average of the ranks' gradients
    is the gradient of the one-process loss.
    """
    return _GatherWithGradient.apply(tensor) if dist.is_initialized() else tensor


def gather_uneven(tensor: Tensor) -> Tensor:
    """Concatenate tensors of all ranks whose first dimensions differ, without gradient."""
    if not dist.is_initialized():
        return tensor.detach()
    counts = _all_gather(torch.tensor([tensor.shape[0]], device=tensor.device)).tolist()
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor.detach()
    parts = _all_gather(padded).view(len(counts), *padded.shape)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast(tensor: Tensor) -> Tensor:
    """Return rank 0's values of `tensor` on every rank; shape and dtype must agree."""
    if dist.is_initialized():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, 0)
    return tensor


def gather_json(value: object, device: torch.device) -> list[object]:
    """Return every rank's JSON-compatible value, in rank order."""
    if not dist.is_initialized():
        return [value]
    payload = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    lengths = _all_gather(torch.tensor([payload.numel()], device=device)).tolist()
    data = bytes(gather_uneven(payload).tolist())
    values, first = [], 0
    for length in lengths:
        values.append(json.loads(data[first : first + length]))
        first += length
    return values


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over ranks: what DDP does, for the few parameters that live outside of it."""
    if dist.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()


class DistributedDataParallel(nn.parallel.DistributedDataParallel):
    """torch's wrapper whose backward pass averages the network's gradients over ranks; sends no buffers around.

    BatchNorm computes the same statistics on every rank, see ttc/models/batchnorm.py.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network; the process group must have been joined."""
        # broadcast_buffers is deprecated where forward_sync_buffers exists.
        parameters = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
        super().__init__(network, gradient_as_bucket_view=True, **{name: False})  # type: ignore[arg-type]  # by version


@dataclass(frozen=True)
class Pool:
    """The rows of all ranks, which a rank's anchors are compared with.

    Attributes:
        z: [B_global, V, D] with gradient.
        labels: [B_global] int64.
        sample_ids: [B_global] int64.
        first: index of this rank's first sample in the pool.
        world_size: number of ranks.
    """

    z: Tensor
    labels: Tensor
    sample_ids: Tensor
    first: int
    world_size: int


def pool_of(z: Tensor, labels: Tensor, sample_ids: Tensor) -> Pool | None:
    """Gather the batch of every rank, or return None in a single process, where the batch is its own pool.

    Args:
        z: [B, V, D], this rank's rows; B is the same on every rank.
        labels: [B] int64.
        sample_ids: [B] int64, global ids.
    """
    if not dist.is_initialized():
        return None
    return Pool(
        z=gather_with_gradient(z),
        labels=gather(labels),
        sample_ids=gather(sample_ids),
        first=rank() * len(labels),
        world_size=world_size(),
    )
