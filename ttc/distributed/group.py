"""The process group: joining, leaving, and counting who failed."""

from __future__ import annotations

import datetime
import os
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ttc.distributed import launch

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


EVALUATION_MINUTES = 24 * 60.0
"""How long the ranks of an evaluation wait for the first one, which fits probes and draws figures alone."""


def start(device: torch.device, timeout_minutes: float = 30.0) -> World:
    """Join the process group that torchrun or srun describe in the environment, if there is one.

    Args:
        device: this process's device; a CUDA device without an index becomes `cuda:LOCAL_RANK`, or the only
            one that SLURM lets this process see.
        timeout_minutes: how long a collective waits for the other ranks before the run fails.

    Returns:
        The process's place; rank 0 of 1 if it was started alone.
    """
    global _count, _cpu_group
    task = launch.task()
    rank, size, local_rank = task.rank, task.size, task.local_rank
    if device.type == "cuda":
        only = task.slurm and torch.cuda.device_count() == 1
        device = torch.device("cuda", device.index if device.index is not None else 0 if only else local_rank)
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        if task.slurm:
            names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank}
            os.environ.update({name: str(value) for name, value in names.items()} | launch.meeting_point(os.environ))
            os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # no process of the run keeps the store itself
            if rank == 0:
                _keep_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        patience, backend = datetime.timedelta(minutes=timeout_minutes), "nccl" if device.type == "cuda" else "gloo"
        store = _own_keys(next(rendezvous("env://", timeout=patience))[0], rank, size, patience)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        group = dist.new_group(backend="gloo", timeout=patience)
        _count, _cpu_group = store.add, group if isinstance(group, dist.ProcessGroup) else None
    return World(rank, size, local_rank, device)


def _keep_store(address: str, port: int) -> None:
    """Keep the store in a process of its own, as torchrun's agent does: it outlives the ranks that fail.

    So whoever fails because another rank has failed can still ask, and stays silent.
    """
    parent = os.getpid()
    if os.fork():
        return
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # meant for the ranks
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # whoever reads the run's output waits for all that could write to it
            os.dup2(nowhere, stream)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        store = dist.TCPStore(address, port, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        while os.getppid() == parent:
            time.sleep(0.2)
        time.sleep(10)  # for those that the end of rank 0 ends
        del store
    finally:
        os._exit(0)


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
