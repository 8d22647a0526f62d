"""How ranks decide together, so that none waits for one that has gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from ttc.distributed.collectives import gather_json
from ttc.distributed.group import cpu_group, rank

T = TypeVar("T")


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


def from_first_rank(compute: Callable[[], T]) -> T:
    """Compute a JSON-compatible value on rank 0 only and return it on every rank.

    Args:
        compute: may raise a ValueError, which ends all ranks; only rank 0 tells it.
    """
    device = torch.device("cpu")
    if dist.is_initialized() and dist.get_backend() == "nccl":
        device = torch.device("cuda", torch.cuda.current_device())
    values: list[T] = []
    first_rank_first(lambda: values.append(compute()), device)
    return cast("list[list[T]]", gather_json(values, device))[0][0]


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
    work = dist.all_reduce(total, group=cpu_group(), async_op=True)
    assert work is not None  # this rank is in the group
    return lambda: work.wait() and bool(total.item())
