"""How ranks decide together, so that none waits for one that has gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ttc.distributed.collectives import gather_json
from ttc.distributed.group import rank

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


class Vote:
    """Makes one rank's wish every rank's, a call later, so that nobody waits for the answer."""

    def __init__(self) -> None:
        """Prepare; every rank must do so at the same point."""
        # The flags stay on the CPU: reading one from a GPU would wait for all work before it.
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized() and dist.get_backend() != "gloo":
            group = dist.new_group(backend="gloo")
            assert not isinstance(group, int), "every rank is a member"
            self._group = group
        self._asked: tuple[dist.Work | None, Tensor] | None = None

    def ask(self, wish: bool) -> bool:
        """Return whether a rank had the wish at the call before this one; without a process group, whether it has now.

        Every rank must call it equally often.
        """
        if not dist.is_initialized():
            return wish
        before, total = self._asked, torch.tensor([int(wish)])
        self._asked = (dist.all_reduce(total, group=self._group, async_op=True), total)
        if before is None:
            return False
        if before[0] is not None:
            before[0].wait()
        return bool(before[1].item())
