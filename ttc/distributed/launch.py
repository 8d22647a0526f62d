"""Who this process is among those that were started together, by torchrun or by srun."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Place of a process among those of its launch.

    Attributes:
        rank: number among all processes, from 0.
        size: number of all processes.
        local_rank: number among the processes on this machine, from 0.
        slurm: whether srun has started them, without torchrun.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    slurm: bool = False


def task(environment: Mapping[str, str] = os.environ) -> Task:
    """Return who this process is; torchrun's variables come before SLURM's, since torchrun may run in a SLURM job."""
    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, size, local_rank = (int(environment.get(name, alone)) for name, alone in _TORCHRUN)
        return Task(rank, size, local_rank)
    if _in_srun_step(environment):
        rank, size, local_rank = (int(environment[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
        return Task(rank, size, local_rank, slurm=True)
    return Task()


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _in_srun_step(environment: Mapping[str, str]) -> bool:
    """Tell whether this is one of several tasks of srun.

    A batch script has the variables of a task too, and the number of tasks that the job has room for, but runs once.
    """
    if not all(environment.get(f"SLURM_{name}", "").isdigit() for name in ("PROCID", "NTASKS", "LOCALID")):
        return False
    batch = environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
    alone = environment.get("SLURM_STEP_NUM_TASKS") == "1"  # a shell in a larger allocation
    return int(environment["SLURM_NTASKS"]) > 1 and not batch and not alone


def meeting_point(environment: Mapping[str, str]) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT where the processes of an srun step find each other; those given come first.

    Every process must come to the same answer: the step's first machine, and a port by the numbers of job and step.
    """
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    host = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else "")
    several = re.search(r"[,\[]", nodes) and environment.get("SLURM_STEP_NUM_NODES", "2") != "1"
    numbers = (environment.get(f"SLURM_{name}", "") for name in ("JOB_ID", "STEP_ID"))
    job, step = (int(number) if number.isdigit() else 0 for number in numbers)
    # Below the ports that Linux gives to connections.
    derived = {
        "MASTER_ADDR": host if several else "127.0.0.1",
        "MASTER_PORT": str(10_000 + (101 * job + step) % 20_000),
    }
    return {name: environment.get(name) or value for name, value in derived.items()}
