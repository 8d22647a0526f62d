"""Process group and collectives: the only module that uses torch.distributed.

Every function also works in a single process without a process group, so that no caller forks on the number of ranks.
Collectives that carry Python values send JSON as bytes: nothing is ever pickled.
"""

from __future__ import annotations

import datetime
import inspect
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

_count: Callable[[str, int], int] | None = None
"""Adds to a counter that the processes of a run share; torchrun's agent keeps it, so that it outlives a rank."""
_cpu_group: dist.ProcessGroup | None = None


@dataclass(frozen=True)
class World:
    """Place of one process among all processes of the run."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to the terminal."""
        return self.rank == 0


def start(device: torch.device, timeout_minutes: float = 30.0) -> World:
    """Join the process group that torchrun describes in the environment, if there is one.

    Args:
        device: this process's device; a CUDA device without an index becomes `cuda:LOCAL_RANK`.
        timeout_minutes: how long a collective waits for the other ranks before the run fails.

    Returns:
        The process's place; rank 0 of 1 without torchrun.
    """
    global _count, _cpu_group
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        patience, backend = datetime.timedelta(minutes=timeout_minutes), "nccl" if device.type == "cuda" else "gloo"
        store, _, _ = next(rendezvous("env://", timeout=patience))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        group = dist.new_group(backend="gloo", timeout=patience)
        _count, _cpu_group = store.add, group if isinstance(group, dist.ProcessGroup) else None
    return World(rank, size, local_rank, device)


def stop() -> None:
    """Leave the process group together: a rank that leaves early tears connections down under the others."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def count_failure() -> int:
    """Return how many processes of the run have failed, this one included; 1 where nobody can be asked."""
    try:
        return 1 if _count is None else _count("failed", 1)
    except RuntimeError:  # the counter went with its host
        return 1


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Return when every process has reached this line."""
    if dist.is_initialized():
        dist.barrier()


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
        mine = grad.new_empty((grad.shape[0] // world_size(), *grad.shape[1:]))
        scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        scatter(mine, grad.contiguous())
        return mine


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

    Source: METHODS section 4: with this backward and a loss of W / N_global times the sum over local anchors, the
    average of the ranks' gradients is the gradient of the one-process loss.
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


def first_rank_first(action: Callable[[], None], device: torch.device) -> None:
    """Run an action on rank 0 only, before any rank goes on.

    Args:
        action: may raise a ValueError, which ends all ranks; only rank 0 tells it.
        device: this process's device.
    """
    error = None
    if rank() == 0:
        try:
            action()
        except ValueError as raised:
            error = raised
    failed = any_rank(error is not None, device)
    if error is not None:
        raise error
    if failed:
        # Without the interpreter's clean-up, which waits for the rank that has gone.
        os._exit(1)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return True on every rank when `flag` is True on one: how ranks decide together."""
    if not dist.is_initialized():
        return flag
    total = torch.tensor([int(flag)], device=device)
    dist.all_reduce(total)
    return bool(total.item())


def ask_ranks(flag: bool) -> Callable[[], bool]:
    """Start to ask whether `flag` is True on any rank; the answer is what the returned function returns, later."""
    if not dist.is_initialized():
        return lambda: flag
    # On the CPU: to read it from a GPU would wait for all work before it.
    total = torch.tensor([int(flag)])
    work = dist.all_reduce(total, group=_cpu_group, async_op=True)
    assert work is not None  # this rank is in the group
    return lambda: work.wait() and bool(total.item())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over ranks: what DDP does, for the few parameters that live outside of it."""
    if dist.is_initialized():
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world_size()


def average_over_ranks(network: nn.Module) -> nn.Module:
    """Wrap the network so that its backward pass averages the gradients over ranks; no change in a single process.

    Buffers are not sent around: BatchNorm computes the same statistics on every rank (see batchnorm.py).
    """
    if not dist.is_initialized():
        return network
    # broadcast_buffers is deprecated where forward_sync_buffers exists.
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(network, gradient_as_bucket_view=True, forward_sync_buffers=False)
    return DistributedDataParallel(network, gradient_as_bucket_view=True, broadcast_buffers=False)


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
