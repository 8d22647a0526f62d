"""Process group and collectives: the only package that uses torch.distributed.

Every function also works in a single process without a process group, so that no caller forks on the number of ranks.
"""

from ttc.distributed.agreement import any_rank, ask_ranks, first_rank_first, from_first_rank
from ttc.distributed.collectives import (
    DistributedDataParallel,
    Pool,
    average_gradients,
    broadcast,
    gather,
    gather_json,
    gather_uneven,
    gather_with_gradient,
    mean,
    pool_of,
    sum_with_gradient,
)
from ttc.distributed.group import EVALUATION_MINUTES, World, count_failure, rank, start, stop, wait, world_size
from ttc.distributed.launch import task as launched_task

__all__ = [
    "EVALUATION_MINUTES",
    "DistributedDataParallel",
    "Pool",
    "World",
    "any_rank",
    "ask_ranks",
    "average_gradients",
    "broadcast",
    "count_failure",
    "first_rank_first",
    "from_first_rank",
    "gather",
    "gather_json",
    "gather_uneven",
    "gather_with_gradient",
    "launched_task",
    "mean",
    "pool_of",
    "rank",
    "start",
    "stop",
    "sum_with_gradient",
    "wait",
    "world_size",
]
