"""Start ranks as real processes with gloo and bring back what each of them returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from tests.processes import CONTEXT, HANGS, free_port
from ttc import distributed

T = TypeVar("T")


def on_ranks(size: int, function: Callable[[distributed.World], T], folder: Path, timeout: float = HANGS) -> list[T]:
    """Call `function` on `size` ranks and return the results in rank order."""
    port = free_port()
    processes = [
        CONTEXT.Process(target=_rank, args=(function, rank, size, port, str(folder / f"{rank}.pt")))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size, f"exit codes of the ranks: {codes}"
    # Written by these very processes; the results are dataclasses of the tests.
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _rank(function: Callable[[distributed.World], T], rank: int, size: int, port: str, path: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    world = distributed.start(torch.device("cpu"), timeout_minutes=HANGS / 60)
    torch.save(function(world), path)
    distributed.stop()
