"""The process group: joining, leaving, and who is to blame when it breaks."""

from __future__ import annotations

import datetime
import os
import threading
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

_store: Store | None = None
"""Where the processes of a run leave notes for each other; torchrun's agent keeps it, so that it outlives a rank."""


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
    global _store
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        patience = datetime.timedelta(minutes=timeout_minutes)
        _store, _, _ = next(rendezvous("env://", timeout=patience))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", _store),
            rank=rank,
            world_size=size,
            timeout=patience,
        )
    return World(rank, size, local_rank, device)


def stop() -> None:
    """Leave the process group together: a rank that leaves early tears connections down under the others."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def first_to_fail() -> bool:
    """Tell whether this process is the first of the run that fails: it alone says why, the others follow from it."""
    if _store is None:
        return True
    store, answers = _store, []

    def ask() -> None:
        try:
            answers.append(store.add("failed", 1) == 1)
        except RuntimeError:  # the store went with its host, and nobody else can be asked
            answers.append(True)

    # In a thread, because the host may be cut off: the question would then wait for as long as TCP tries.
    asking = threading.Thread(target=ask, daemon=True)
    try:
        asking.start()
        asking.join(10)
    except RuntimeError:  # there is no memory for a thread
        ask()
    return not answers or answers[0]


def lost_connection(error: BaseException) -> bool:
    """Tell whether an error means that another process has gone or does not answer."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


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
