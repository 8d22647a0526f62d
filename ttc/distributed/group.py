"""The process group: joining, leaving, and counting who failed."""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

_count: Callable[[str, int], int] | None = None
"""Adds to a counter that the processes of a run share; torchrun's agent keeps it, so that it outlives a rank."""
_cpu_group: dist.ProcessGroup | None = None
"""All ranks, over the CPU: to read a flag from a GPU would wait for all work before it."""


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
        store = _own_keys(next(rendezvous("env://", timeout=patience))[0], rank, size, patience)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        group = dist.new_group(backend="gloo", timeout=patience)
        _count, _cpu_group = store.add, group if isinstance(group, dist.ProcessGroup) else None
    return World(rank, size, local_rank, device)


def _own_keys(store: Store, rank: int, size: int, patience: datetime.timedelta) -> Store:
    """Return the store under a prefix that only this start of the processes uses.

    torchrun keeps one store over all restarts: what a dead process wrote there, such as the address at which it
    listened, would be taken for its successor's, and the run would end at a restart (pytorch issue 135712). The agents'
    number of restarts is no such prefix, since each host counts for itself. So every process asks under a name that
    was never used, and rank 0, which answers all that it finds, waits until the living have told that they heard it.
    """
    name = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks {rank}", name)
        prefix = store.get(f"answer to {name}").decode()
        store.set(f"{prefix} has {rank}", "")
        return PrefixStore(prefix, store)
    give_up, answered, missing = time.monotonic() + patience.total_seconds(), set[str](), set(range(1, size))
    while missing:
        for other in sorted(missing):
            asking = store.get(f"asks {other}").decode() if store.check([f"asks {other}"]) else ""
            if asking and asking not in answered:
                store.set(f"answer to {asking}", name)
                answered.add(asking)
        missing -= {other for other in missing if store.check([f"{name} has {other}"])}
        if missing and time.monotonic() > give_up:
            raise dist.DistStoreError(f"ranks {sorted(missing)} did not come within {patience}")
        time.sleep(0.01)
    return PrefixStore(name, store)


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


def cpu_group() -> dist.ProcessGroup | None:
    """Return the group for flags that stay on the CPU."""
    return _cpu_group
